"""The generated documents say all there is to say."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [*ROOT.glob("common/*.py"), *ROOT.glob("*_svc/*.py")]


def test_every_reason_for_parking_is_explained_to_the_person_who_must_look() -> None:
    """A code in a header is of no use to an operator who cannot look it up."""
    given = {
        reason
        for source in SOURCES
        for found in re.findall(r'(?:Malformed|Parked)\(\s*"(\w+)"|reason="(\w+)"', source.read_text())
        for reason in found
        if reason
    }
    explained = set(re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/messages.md").read_text(), re.MULTILINE))

    assert {"not_json", "bad_headers", "channel_failed"} <= given, "the search finds nothing"
    assert given <= explained, f"not in docs/messages.md: {sorted(given - explained)}"


def test_every_decision_is_listed() -> None:
    """An ADR that nobody can find decides nothing."""
    index = (ROOT / "docs/adr/README.md").read_text()
    for page in ROOT.glob("docs/adr/0*.md"):
        assert page.name in index
        assert page.read_text().splitlines()[0].split(". ", 1)[1] in index
