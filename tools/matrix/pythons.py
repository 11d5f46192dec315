"""A virtual environment for each Python of this machine, with the tests' pinned requirements."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from tools.docker_engine import ROOT, VAR, SetupError, answer, logged, stage

_HOME = VAR / "matrix"
_LOG = _HOME / "pythons.log"
_REQUIREMENTS = ROOT / "requirements" / "dev.txt"


def environment(version: str) -> Path:
    """The Python of a virtual environment of this version, made if need be; raises SetupError."""
    home = _HOME / f"python{version}"
    python, stamp = home / "bin" / "python", home / "requirements"
    if stamp.exists() and stamp.read_bytes() == _REQUIREMENTS.read_bytes():
        return python
    with stage(f"Setting up Python {version}"):
        logged(_interpreter(version), "-m", "venv", "--clear", home, log=_LOG)
        pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input")
        logged(*pip, "--require-hashes", "--requirement", _REQUIREMENTS, log=_LOG)
        shutil.copy(_REQUIREMENTS, stamp)
    return python


def _interpreter(version: str) -> Path:
    """An interpreter on the PATH, or one of pyenv's, the newest."""
    if f"{sys.version_info.major}.{sys.version_info.minor}" == version:
        return Path(sys.executable)
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    found = [*root.glob(f"versions/{version}.*/bin/python"), Path(shutil.which(f"python{version}") or "none")]
    for python in found:
        # One of pyenv's shims is there for every version, and works for those that are chosen.
        if (answer(str(python), "--version") or "").startswith(f"Python {version}."):
            return python
    raise SetupError(f"Python {version} is not on this machine; neither pyenv nor the PATH has one.")
