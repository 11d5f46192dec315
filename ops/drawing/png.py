"""A drawing as PNG, rendered on this machine by resvg (https://github.com/linebender/resvg).

The renderer leaves a text out in silence where it finds no font, so the font comes with the drawing: the same
picture on every machine, pixel for pixel.
"""

from __future__ import annotations

from pathlib import Path

import resvg_py

from ops.drawing.canvas import Canvas, Theme

_FONTS = Path(__file__).with_name("fonts")


def render(canvas: Canvas, theme: Theme, *, zoom: float = 2) -> bytes:
    """The drawing as PNG, `zoom` pixels for each of its own."""
    # There is no reader whose screen could be asked.
    chosen = Theme.LIGHT if theme is Theme.AUTO else theme
    return resvg_py.svg_to_bytes(
        svg_string=canvas.svg(chosen),
        zoom=zoom,
        skip_system_fonts=True,
        font_files=[str(font) for font in sorted(_FONTS.glob("*.ttf"))],
    )
