"""A sheet of SVG: shapes and texts in the few colours of a theme, with nothing to load and nothing to run.

Only what every renderer knows is used, so the same file is right in a browser, on a code host and as a PNG. Texts
are measured by their number of characters, which is exact enough for a font in which all are of one width.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from html import escape

#: Width of a character in parts of the size of its font: of DejaVu Sans Mono, the widest of those named below.
_WIDTH = 0.602
_MONO = "ui-monospace, SFMono-Regular, Menlo, 'DejaVu Sans Mono', 'Liberation Mono', Consolas, monospace"


class Theme(StrEnum):
    """Colours on a light or a dark ground; `auto` is what the reader's own screen is set to."""

    LIGHT = "light"
    DARK = "dark"
    AUTO = "auto"


#: Each role's colour on light and on dark ground. Texts have a contrast of at least 4.5 to 1 (WCAG 2 AA).
_COLOURS: Mapping[str, tuple[str, str]] = {
    "ground": ("#ffffff", "#0d1117"),
    "band": ("#f4f6f9", "#151b23"),
    "edge": ("#d0d7de", "#30363d"),
    "ink": ("#1f2328", "#e6edf3"),
    "muted": ("#59636e", "#9198a1"),
    "box": ("#ffffff", "#1c232c"),
    "forward": ("#0b60c9", "#58a6ff"),
    "back": ("#c4232b", "#ff7b72"),
    "undo": ("#8a4b00", "#e3a23c"),
    "pivot": ("#fff3cf", "#3a2d0b"),
    "pivot-edge": ("#9a6700", "#d9a520"),
    "done": ("#e2f5e8", "#10301c"),
    "done-edge": ("#17753a", "#3fb950"),
}


class Canvas:
    """A sheet that is drawn on, of a size in pixels; `svg` is the whole file."""

    def __init__(self, width: float, height: float, *, title: str, description: str) -> None:
        self.width = width
        self.height = height
        self._title = title
        self._description = description
        self._parts: list[str] = []

    def box(
        self, x: float, y: float, width: float, height: float, *, fill: str, edge: str = "", round_: float = 8
    ) -> None:
        """A rectangle with round corners; without an edge where no colour is named for it."""
        classes = f"f-{fill}" + (f" s-{edge}" if edge else "")
        place = f'x="{_n(x)}" y="{_n(y)}" width="{_n(width)}" height="{_n(height)}" rx="{_n(round_)}"'
        self._parts.append(f'<rect class="{classes}" {place}/>')

    def line(self, *points: tuple[float, float], colour: str, dashed: bool = False, arrow: bool = True) -> None:
        """A line through points, with round corners, and an arrow's head at its end."""
        classes = f"line s-{colour}" + (" dashed" if dashed else "")
        # The head covers the line's end, so that the line does not show at its tip.
        drawn = _shortened(points) if arrow else points
        self._parts.append(f'<path class="{classes}" d="{_rounded(drawn)}"/>')
        if arrow:
            self._parts.append(f'<path class="f-{colour}" d="{_head(points[-2], points[-1])}"/>')

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        colour: str = "ink",
        size: float = 13,
        bold: bool = False,
        anchor: str = "start",
    ) -> None:
        """One line of text; `y` is its base line, `anchor` is start, middle or end."""
        classes = f"f-{colour}" + (" bold" if bold else "")
        place = f'x="{_n(x)}" y="{_n(y)}" font-size="{_n(size)}" text-anchor="{anchor}"'
        self._parts.append(f'<text class="{classes}" {place}>{escape(text)}</text>')

    def svg(self, theme: Theme = Theme.AUTO) -> str:
        """The file, in the colours of a theme."""
        styles = _styles(dark=theme is Theme.DARK)
        if theme is Theme.AUTO:
            styles += f"\n@media (prefers-color-scheme: dark) {{\n{_colours(dark=True)}\n}}"
        size = f'width="{_n(self.width)}" height="{_n(self.height)}"'
        view = f'viewBox="0 0 {_n(self.width)} {_n(self.height)}" role="img" aria-labelledby="title description"'
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" {size} {view}>',
                f'<title id="title">{escape(self._title)}</title>',
                f'<desc id="description">{escape(self._description)}</desc>',
                f"<style>\n{styles}\n</style>",
                f'<rect class="f-ground" width="{_n(self.width)}" height="{_n(self.height)}" rx="12"/>',
                *self._parts,
                "</svg>\n",
            ]
        )


def width(text: str, size: float = 13) -> float:
    """How wide a text is, in pixels."""
    return len(text) * size * _WIDTH


def _styles(*, dark: bool) -> str:
    return "\n".join(
        [
            f"text {{ font-family: {_MONO}; }}",
            ".bold { font-weight: bold; }",
            ".line { fill: none; stroke-width: 1.8; }",
            ".dashed { stroke-dasharray: 5 4; }",
            _colours(dark=dark),
        ]
    )


def _colours(*, dark: bool) -> str:
    return "\n".join(
        f".f-{role} {{ fill: {pair[dark]}; }} .s-{role} {{ stroke: {pair[dark]}; }}"
        for role, pair in _COLOURS.items()
    )


def _n(value: float) -> str:
    """A number without noise behind its point."""
    return f"{value:.1f}".removesuffix(".0")


_Point = tuple[float, float]
_HEAD = 9.0
_CORNER = 10.0


def _head(before: _Point, tip: _Point) -> str:
    """A triangle whose tip is the end of a line that is upright or level."""
    x, y = tip
    dx, dy = _direction(before, tip)
    left = (x - _HEAD * dx - 4 * dy, y - _HEAD * dy - 4 * dx)
    right = (x - _HEAD * dx + 4 * dy, y - _HEAD * dy + 4 * dx)
    return f"M{_p(tip)} L{_p(left)} L{_p(right)} Z"


def _shortened(points: tuple[_Point, ...]) -> tuple[_Point, ...]:
    dx, dy = _direction(points[-2], points[-1])
    x, y = points[-1]
    return (*points[:-1], (x - (_HEAD - 1) * dx, y - (_HEAD - 1) * dy))


def _rounded(points: tuple[_Point, ...]) -> str:
    path = f"M{_p(points[0])}"
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        come, go = _direction(before, corner), _direction(corner, after)
        x, y = corner
        path += f" L{_p((x - _CORNER * come[0], y - _CORNER * come[1]))}"
        path += f" Q{_p(corner)} {_p((x + _CORNER * go[0], y + _CORNER * go[1]))}"
    return path + f" L{_p(points[-1])}"


def _direction(before: _Point, after: _Point) -> _Point:
    dx, dy = after[0] - before[0], after[1] - before[1]
    length = (dx * dx + dy * dy) ** 0.5
    return (dx / length, dy / length) if length else (0.0, 0.0)


def _p(point: _Point) -> str:
    return f"{_n(point[0])} {_n(point[1])}"
