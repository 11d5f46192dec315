"""`python -m tools.sbom [IMAGE]`: writes var/sbom.cdx.json, a list of all that is in the image (CycloneDX 1.6)."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

from tools import images
from tools.docker_engine import ROOT, VAR, SetupError, answer, logged, stage

HERE = Path(__file__).resolve().parent
ENVIRONMENT = ROOT / ".venv-sbom"
DOCUMENT = VAR / "sbom.cdx.json"
_LOG = VAR / "sbom.log"
_SECONDS = 120


def found_in(image: str) -> dict[str, Any]:
    """All that an image has in it; raises SetupError. It runs as little as can be, and reaches nobody."""
    command = ["docker", "run", "--rm", "--interactive", "--network=none", "--read-only", "--cap-drop=ALL"]
    command += ["--security-opt=no-new-privileges", "--entrypoint=python", image, "-"]
    inside = (HERE / "inside.py").read_text()
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True, input=inside, timeout=_SECONDS)
    except (OSError, subprocess.SubprocessError) as problem:
        told = str(getattr(problem, "stderr", "") or problem).strip()
        raise SetupError(f"{image} cannot be asked what is in it: {told}") from problem
    found: dict[str, Any] = json.loads(done.stdout)
    return found | {"image": _named(image)}


def _named(image: str) -> dict[str, str]:
    told = (answer("docker", "image", "inspect", "--format", "{{.Id}} {{.Created}}", image) or " ").split()
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    # More digits of a second than Python reads say nothing.
    created = f"{told[1][:19]}+00:00"
    return {"name": image.partition(":")[0], "version": version, "id": told[0], "created": created}


def library() -> Path:
    """The Python of the environment that has the library, made if it is not there; raises SetupError."""
    python, wanted = ENVIRONMENT / "bin" / "python", HERE / "requirements.txt"
    stamp = ENVIRONMENT / "requirements-installed"
    if stamp.exists() and stamp.read_text() == wanted.read_text():
        return python
    with stage("Setting up .venv-sbom"):
        logged(sys.executable, "-m", "venv", "--clear", ENVIRONMENT, log=_LOG)
        install = (
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-input",
            "--require-hashes",
        )
        logged(python, *install, "--only-binary=:all:", "--requirement", wanted, log=_LOG)
        stamp.write_text(wanted.read_text())
    return python


def document(image: str) -> str:
    """The list as CycloneDX has it; raises SetupError."""
    found = found_in(image)
    command = [library(), HERE / "writing.py"]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, input=json.dumps(found), timeout=_SECONDS
    )
    if done.returncode:
        raise SetupError(f"The list cannot be written:\n{done.stderr.strip()}")
    return done.stdout


def main(arguments: list[str] | None = None) -> int:
    """Write the list of an image, by default that of the services."""
    parser = argparse.ArgumentParser(prog="python -m tools.sbom", description=__doc__)
    parser.add_argument("image", nargs="?", help="default: the services' image, built if need be")
    try:
        image = parser.parse_args(arguments).image or images.ensure().service
        told = document(image)
    except SetupError as problem:
        print(problem, file=sys.stderr)
        return 1
    DOCUMENT.parent.mkdir(exist_ok=True)
    DOCUMENT.write_text(told)
    print(f"{len(json.loads(told)['components'])} components of {image}: {DOCUMENT.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
