"""Images beside the services' own: an older version of them, and one whose clock can be set."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import tempfile
from io import BytesIO
from pathlib import Path

from containers.labels import ROOT
from tools.docker_engine import VAR, SetupError, answer, logged, stage
from tools.images import Images

_LOG = VAR / "chaos-images.log"
_PREVIOUS = "concert-saga:previous"
_SKEWED = "concert-saga:skewed"
_WHEELS = VAR / "wheels"
_SKEWED_RECIPE = """\
ARG SERVICE
FROM ${SERVICE}
USER root
RUN apt-get update && apt-get install --yes --no-install-recommends libfaketime \\
    && ln -s /usr/lib/*/faketime/libfaketime.so.1 /usr/local/lib/ && rm -rf /var/lib/apt/lists/*
USER saga
"""


def oldest_with_these_tables() -> str:
    """The commit that last changed a table: the oldest version that can run beside this one."""
    return _git("log", "-1", "--format=%h", "--", ":(glob)*_svc/migrations/0*.py").decode().strip()


def previous(images: Images, commit: str) -> str:
    """Build the services as they were at a commit; the image's name. SetupError."""
    with tempfile.TemporaryDirectory(dir=VAR) as here, stage(f"Building the services of {commit}"):
        with tarfile.open(fileobj=BytesIO(_git("archive", commit))) as archive:
            archive.extractall(here, filter="data")
        if _WHEELS.exists():
            # Those that fit are taken, the others come from the index.
            shutil.copytree(_WHEELS, Path(here) / "var" / "wheels")
        _build(_PREVIOUS, Path(here), PYTHON_IMAGE=images.python)
    return _PREVIOUS


def skewed(images: Images) -> str:
    """Build the services with libfaketime beside them; the image's name. SetupError."""
    with tempfile.TemporaryDirectory(dir=VAR) as here, stage("Building the services with a clock that can be set"):
        (Path(here) / "Dockerfile").write_text(_SKEWED_RECIPE)
        _build(_SKEWED, Path(here), SERVICE=images.service)
    return _SKEWED


def _build(name: str, context: Path, **arguments: str) -> None:
    given = [f"--build-arg={key}={value}" for key, value in arguments.items()]
    builder = {"BUILDX_BUILDER": answer("docker", "context", "show") or "default"}
    logged("docker", "build", "--tag", name, *given, context, log=_LOG, settings=builder)


def _git(*words: str) -> bytes:
    try:
        return subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise SetupError(f"git {words[0]} failed: {error}") from error
