"""AsyncAPI's own validator, installed on demand: it lives in npm, and this project in Python.

Its packages are pinned with their digests in package-lock.json and kept under var/. Without Node.js there is no
such validator; then the official JSON schema, which the tests carry, is the second best.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

_HERE = Path(__file__).resolve().parent
_ROOT = _HERE.parents[2]
_FILES = ("package.json", "package-lock.json", "validate.mjs")
_SECONDS_TO_INSTALL = 180
_SECONDS_TO_VALIDATE = 60
_NEEDS_NODE = 18
#: The parser's severities, worst first: error, warning, information, hint.
_WARNING = 1


class NoValidatorError(Exception):
    """The validator cannot be had on this machine; the text says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What the validator has to say: 0 an error, 1 a warning, 2 information, 3 a hint."""

    severity: int
    text: str

    @property
    def is_wrong(self) -> bool:
        """Whether the document should not be published like this."""
        return self.severity <= _WARNING


def validate(document: str) -> list[Finding]:
    """What AsyncAPI's parser finds in a document; NoValidatorError where it cannot be run."""
    home = installed()
    try:
        done = subprocess.run(
            ["node", "validate.mjs"],
            cwd=home,
            input=document,
            capture_output=True,
            text=True,
            timeout=_SECONDS_TO_VALIDATE,
            check=True,
        )
    except subprocess.CalledProcessError as error:
        raise RuntimeError(f"the validator in {home} crashed: {error.stderr.strip()}") from error
    return [Finding(**finding) for finding in json.loads(done.stdout)]


def installed() -> Path:
    """Where the validator is, after installing it if it was not there; NoValidatorError if that cannot be done."""
    digest = hashlib.sha256(b"".join((_HERE / name).read_bytes() for name in _FILES)).hexdigest()[:12]
    home = _ROOT / "var" / f"asyncapi-{digest}"
    _look_for_node()
    if not home.is_dir():
        _install(home)
    return home


def _look_for_node() -> None:
    if not shutil.which("node") or not shutil.which("npm"):
        raise NoValidatorError(f"there is no Node.js with npm; install Node.js {_NEEDS_NODE} or newer")
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=False).stdout.strip()
    major = version.removeprefix("v").partition(".")[0]
    if not major.isdecimal() or int(major) < _NEEDS_NODE:
        raise NoValidatorError(f"Node.js is too old ({version or 'no answer'}); {_NEEDS_NODE} or newer is needed")


def _install(home: Path) -> None:
    """Install what package-lock.json pins, elsewhere first: what is half installed must not look whole."""
    home.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.parent, prefix=f"{home.name}.") as place:
        started = Path(place) / "new"
        started.mkdir()
        for name in _FILES:
            shutil.copy(_HERE / name, started)
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1"]
        try:
            subprocess.run(
                command, cwd=started, capture_output=True, text=True, timeout=_SECONDS_TO_INSTALL, check=True
            )
        except subprocess.TimeoutExpired as error:
            raise NoValidatorError(f"npm did not answer within {_SECONDS_TO_INSTALL} s") from error
        except subprocess.CalledProcessError as error:
            why = next((line for line in error.stderr.splitlines() if line.startswith("npm error")), error.stderr)
            raise NoValidatorError(f"npm could not install it: {why.strip():.300}") from error
        if not home.is_dir():
            started.rename(home)
