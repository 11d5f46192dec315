"""`python -m tools.contracts`: validate docs/asyncapi.yaml, hold it against the last release, or release it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml

from tools.contracts import compare, validator
from tools.contracts.asyncapi import PAGE, ROOT

RELEASED = ROOT / "tests/support/contracts/released.yaml"


def main(arguments: list[str] | None = None) -> int:
    """Do what was asked: 0 if all is well, 1 if the contract is wrong or broken, 2 if nobody can tell."""
    parser = argparse.ArgumentParser(prog="python -m tools.contracts", description="The published contract.")
    acts = parser.add_subparsers(dest="act", required=True)
    acts.add_parser("validate", help="ask AsyncAPI's own validator (needs Node.js)")
    comparing = acts.add_parser("compare", help="what a client or observer would notice, from OLD to NEW")
    comparing.add_argument("old", type=Path, nargs="?", default=RELEASED)
    comparing.add_argument("new", type=Path, nargs="?", default=PAGE)
    acts.add_parser("release", help="from now on today's contract is the promise")
    asked = parser.parse_args(arguments)
    match asked.act:
        case "validate":
            return _validate()
        case "compare":
            return _compare(asked.old, asked.new)
    RELEASED.write_bytes(PAGE.read_bytes())
    print(f"{RELEASED.relative_to(ROOT)} written")
    return 0


def load(path: Path) -> dict[str, Any]:
    """An AsyncAPI document."""
    document: dict[str, Any] = yaml.safe_load(path.read_text())
    return document


def _validate() -> int:
    try:
        findings = validator.validate(PAGE.read_text())
    except validator.NoValidatorError as error:
        print(f"AsyncAPI's validator cannot be had: {error}", file=sys.stderr)
        return 2
    for finding in findings:
        print(finding.text)
    wrong = any(finding.is_wrong for finding in findings)
    print(f"{PAGE.relative_to(ROOT)}: {'not valid' if wrong else 'valid'}")
    return 1 if wrong else 0


def _compare(old: Path, new: Path) -> int:
    try:
        breaks = compare.breaks(load(old), load(new))
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        print(f"no two contracts of this project: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    print(compare.told(breaks) or "nobody would notice")
    return 1 if breaks else 0


if __name__ == "__main__":
    sys.exit(main())
