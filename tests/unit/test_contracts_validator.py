"""Where AsyncAPI's own validator cannot be had, the person at the terminal is told why in one line."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from tools.contracts import __main__ as command
from tools.contracts import validator
from tools.contracts.validator import NoValidatorError

HERE = Path(validator.__file__).parent


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine on which nothing is installed yet: its programs, and an empty var/."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(validator, "_ROOT", tmp_path)
    (tmp_path / "bin").mkdir()
    return tmp_path


def program(machine: Path, name: str, script: str) -> None:
    """Install a program of a few lines of shell."""
    file = machine / "bin" / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


def test_a_machine_without_node_is_told_to_install_it(machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not to have it is no fault of the contract, and must not look like one."""
    assert not list(machine.glob("bin/*"))
    assert command.main(["validate"]) == 2
    assert "install Node.js 18 or newer" in capsys.readouterr().err


@pytest.mark.parametrize("version", ["v16.20.2", "", "nonsense"])
def test_a_node_that_is_too_old_is_named(machine: Path, version: str) -> None:
    """It would fail later, with words that nobody understands."""
    program(machine, "node", f"echo '{version}'")
    program(machine, "npm", "exit 1")
    with pytest.raises(NoValidatorError, match="18 or newer"):
        validator.installed()


def test_a_registry_that_does_not_answer_leaves_nothing_behind(machine: Path) -> None:
    """Half an installation must not pass for a whole one next time."""
    program(machine, "node", "echo v20.0.0")
    program(machine, "npm", "echo 'npm warn something' >&2; echo 'npm error code ENOTFOUND' >&2; exit 1")
    with pytest.raises(NoValidatorError, match="npm error code ENOTFOUND"):
        validator.installed()
    assert not list(machine.glob("var/*"))


def test_the_validator_is_installed_once_and_again_when_its_pins_change(machine: Path) -> None:
    """Installing takes longer than validating."""
    program(machine, "node", 'case "$1" in --version) echo v20.0.0;; *) echo "[]";; esac')
    program(machine, "npm", f"echo x >> {machine}/installed")
    home = validator.installed()
    assert validator.validate("{}") == []
    assert (machine / "installed").read_text() == "x\n"
    pins = b"".join((HERE / name).read_bytes() for name in ("package.json", "package-lock.json", "validate.mjs"))
    assert hashlib.sha256(pins).hexdigest()[:12] in home.name


def test_a_validator_that_crashes_is_no_approval(machine: Path) -> None:
    """Silence would be taken for a valid page."""
    program(machine, "node", 'case "$1" in --version) echo v20.0.0;; *) echo boom >&2; exit 1;; esac')
    program(machine, "npm", "exit 0")
    with pytest.raises(RuntimeError, match="boom"):
        validator.validate("{}")


def test_every_package_of_the_validator_is_pinned_by_its_digest() -> None:
    """What a registry hands out under the same name tomorrow may be another program."""
    lock = json.loads((HERE / "package-lock.json").read_text())
    packages = {name: package for name, package in lock["packages"].items() if name}
    assert "node_modules/@asyncapi/parser" in packages
    assert not [
        name for name, package in packages.items() if not package.get("integrity", "").startswith("sha512-")
    ]
    assert not [name for name, package in packages.items() if "resolved" in package], (
        "the registry is the reader's own"
    )
