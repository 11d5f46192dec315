"""The board's colours: every text and every mark stands out from its ground, light and dark (WCAG 2.2, AA)."""

from __future__ import annotations

import re

import pytest

from ops.board.site import STATIC

TEXT = 4.5
"""Least contrast of text (success criterion 1.4.3)."""
MARK = 3.0
"""Least contrast of what is no text but means something, and of edges of controls (1.4.11)."""

#: What stands on what, as the style sheet uses it.
PAIRS = [
    *((text, ground, TEXT) for text in ("ink", "soft") for ground in ("paper", "card", "sunk")),
    *(
        (tone, ground, TEXT)
        for tone in ("go", "back", "bad", "good")
        for ground in ("card", "sunk", f"{tone}-wash")
    ),
    *(("ink", f"{tone}-wash", TEXT) for tone in ("bad",)),
    ("card", "ink", TEXT),
    ("bad", "paper", TEXT),
    *(
        (mark, ground, MARK)
        for mark in ("go", "back", "bad", "good", "edge", "focus")
        for ground in ("card", "sunk")
    ),
    *((mark, "paper", MARK) for mark in ("edge", "focus", "good")),
    ("back", "back-wash", MARK),
]


def _themes() -> dict[str, dict[str, str]]:
    text = (STATIC / "colours.css").read_text()
    light, dark = text.split("@media (prefers-color-scheme: dark)")
    read = [dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", part)) for part in (light, dark)]
    return {"light": read[0], "dark": read[0] | read[1]}


def _luminance(colour: str) -> float:
    """Relative luminance, as WCAG defines it for sRGB."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _contrast(one: str, other: str) -> float:
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_the_yardstick_is_right() -> None:
    """The rule's own examples: black on white is 21, and #767676 is the lightest grey that white may bear."""
    assert _contrast("#000000", "#ffffff") == pytest.approx(21)
    assert _contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_text_and_mark_stands_out_from_its_ground(theme: str) -> None:
    """Who sees little, or sits in the sun, reads the board too."""
    colours = _themes()[theme]
    weak = {
        f"{front} on {ground}": round(found, 2)
        for front, ground, least in PAIRS
        if (found := _contrast(colours[front], colours[ground])) < least
    }
    assert not weak


def test_colours_are_written_in_one_file_only() -> None:
    """A colour that is written elsewhere would be in no theme, and in no test."""
    sheet = re.sub(r"/\*.*?\*/", "", (STATIC / "board.css").read_text(), flags=re.DOTALL)
    assert not re.findall(r"#[0-9a-fA-F]{3,8}\b(?=[^{}]*;)", re.sub(r"#[a-zA-Z-]+[^{};]*\{", "{", sheet))


def test_dark_changes_every_colour_that_light_has() -> None:
    """One that was forgotten would be dark on dark."""
    text = (STATIC / "colours.css").read_text()
    light, dark = (set(re.findall(r"--([a-z-]+):", part)) for part in text.split("@media"))
    assert light == dark
