"""Programs that some tests need and not every machine has: without one, such a test is skipped, or fails.

On somebody's laptop it is skipped, with what would bring the program. Where `CI` is set it fails: a test that is
skipped there rots, and nobody notices. A CI that truly cannot have a program names it in `CI_WITHOUT` (names
separated by commas), which is one line that everybody can read.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NoReturn

import pytest


def missing(program: str, how: str) -> NoReturn:
    """End a test that needs this program; `how` says what would bring it."""
    if why := failing(program, os.environ):
        pytest.fail(f"{program} is not here: {how}. {why}")
    pytest.skip(f"{program} is not here: {how}")


def failing(program: str, environment: Mapping[str, str]) -> str:
    """Why a test without this program fails here; empty where it is only skipped."""
    if environment.get("CI", "").lower() in {"", "0", "false"}:
        return ""
    spared = {name.strip().lower() for name in environment.get("CI_WITHOUT", "").split(",")}
    if program.lower() in spared:
        return ""
    return f"CI is set, so nothing is skipped unnoticed; CI_WITHOUT={program.lower()} says that it cannot be had"
