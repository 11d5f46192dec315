"""`python -m tools.advisories`: 1 if something that the services are made of has a known fault, else 0.

Where the index cannot be reached it says so in one line, and is content. ADVISORIES_URL names another one than
PyPI with its JSON API; empty, nobody is asked.
"""

from __future__ import annotations

import argparse
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from tools.advisories import asking, ignored, pins
from tools.docker_engine import ROOT, VAR

SOURCE = "https://pypi.org/pypi"


def main(arguments: list[str] | None = None) -> int:
    """Ask, and tell."""
    parser = argparse.ArgumentParser(prog="python -m tools.advisories", description=__doc__)
    parser.add_argument("requirements", nargs="*", type=Path, default=[ROOT / "requirements" / "runtime.txt"])
    parser.add_argument("--ignored", type=Path, default=Path(__file__).with_name("ignored.toml"))
    parser.add_argument("--kept", type=Path, default=VAR / "advisories.json", help="where a day's answer is kept")
    wanted = parser.parse_args(arguments)
    # A list that cannot be read is a mistake, network or not.
    known = ignored.read(wanted.ignored)
    pinned = [pin for file in wanted.requirements for pin in pins.read(file)]
    source = os.environ.get("ADVISORIES_URL", SOURCE)
    if not source:
        print("advisories: skipped, since ADVISORIES_URL is empty")
        return 0
    try:
        answer = asking.ask(source, pinned, wanted.kept)
    except asking.AwayError as error:
        print(f"advisories: skipped, since {source} cannot be asked: {error}")
        return 0
    result = ignored.judged(answer.faults, known, today=datetime.now(UTC).date())
    for pin in answer.unknown:
        print(f"advisories: {pin} is not known there")
    for remark in result.remarks:
        print(f"advisories: {remark}")
    for fault in result.faults:
        print(f"advisories: {fault}", file=sys.stderr)
    if result.faults:
        return 1
    print(f"advisories: no known fault in {len(pinned)} releases")
    return 0


if __name__ == "__main__":
    sys.exit(main())
