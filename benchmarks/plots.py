"""Curves as SVG, written by hand: the same numbers give the same file, and no library need be installed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

Points = Sequence[Sequence[float]]

_WIDTH, _HEIGHT = 720, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 20, 46, 80
_LOOK = 'role="img" font-family="sans-serif" font-size="12" fill="#333"'
#: Told apart also by those who see few colours (Okabe and Ito).
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999")
_TICKS = 6


@dataclass(frozen=True, slots=True)
class Axis:
    """What an axis says, and whether each step is ten times the last."""

    label: str
    logarithmic: bool = False


def curves(title: str, lines: Mapping[str, Points], *, x: Axis, y: Axis) -> str:
    """Lines over one another, each of (x, y) points, with a legend below."""
    drawn = {name: [(px, py) for px, py in points] for name, points in lines.items() if points}
    across = _Scale.over([px for points in drawn.values() for px, _ in points], x, _LEFT, _WIDTH - _RIGHT)
    up = _Scale.over([py for points in drawn.values() for _, py in points], y, _HEIGHT - _BOTTOM, _TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" {_LOOK}>',
        f"<title>{escape(title)}</title>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>',
        f'<text x="{_LEFT}" y="24" font-size="15" font-weight="bold">{escape(title)}</text>',
        *_grid(across, up),
        *(_line(points, across, up, colour) for points, colour in zip(drawn.values(), _COLOURS, strict=False)),
        *_legend(list(drawn)),
    ]
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    height = (_TOP + _HEIGHT - _BOTTOM) / 2
    parts.append(f'<text x="{middle}" y="{_HEIGHT - 42}" text-anchor="middle">{escape(x.label)}</text>')
    turned = f'transform="rotate(-90 16 {height})"'
    parts.append(f'<text x="16" y="{height}" text-anchor="middle" {turned}>{escape(y.label)}</text>')
    return "\n".join([*parts, "</svg>", ""])


@dataclass(frozen=True, slots=True)
class _Scale:
    """From numbers to places on the page."""

    low: float
    high: float
    begin: float
    end: float
    logarithmic: bool

    @classmethod
    def over(cls, values: Sequence[float], axis: Axis, begin: float, end: float) -> _Scale:
        if axis.logarithmic:
            positive = [value for value in values if value > 0] or [1.0]
            low = 10.0 ** math.floor(math.log10(min(positive)))
            high = 10.0 ** math.ceil(math.log10(max(positive)))
            return cls(low, high if high > low else 10 * low, begin, end, logarithmic=True)
        step = _step(max(values, default=1.0))
        return cls(
            0.0, step * math.ceil(max(max(values, default=1.0), 1e-9) / step), begin, end, logarithmic=False
        )

    def __call__(self, value: float) -> float:
        if self.logarithmic:
            part = math.log10(max(value, self.low) / self.low) / math.log10(self.high / self.low)
        else:
            part = (value - self.low) / (self.high - self.low)
        return round(self.begin + part * (self.end - self.begin), 1)

    def ticks(self) -> list[float]:
        if self.logarithmic:
            decades = round(math.log10(self.high / self.low))
            return [self.low * 10**decade for decade in range(decades + 1)]
        step = _step(self.high)
        return [step * number for number in range(round(self.high / step) + 1)]


def _step(largest: float) -> float:
    """A round distance between ticks."""
    rough = max(largest, 1e-9) / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)


def _grid(across: _Scale, up: _Scale) -> list[str]:
    lines = []
    for value in up.ticks():
        y = up(value)
        lines.append(f'<path d="M{_LEFT} {y}H{_WIDTH - _RIGHT}" stroke="#ddd"/>')
        lines.append(f'<text x="{_LEFT - 8}" y="{y + 4}" text-anchor="end">{value:,g}</text>')
    for value in across.ticks():
        x = across(value)
        lines.append(f'<path d="M{x} {_HEIGHT - _BOTTOM}v5" stroke="#666"/>')
        lines.append(f'<text x="{x}" y="{_HEIGHT - _BOTTOM + 19}" text-anchor="middle">{value:,g}</text>')
    lines.append(f'<path d="M{_LEFT} {_TOP}V{_HEIGHT - _BOTTOM}H{_WIDTH - _RIGHT}" stroke="#666" fill="none"/>')
    return lines


def _line(points: Sequence[tuple[float, float]], across: _Scale, up: _Scale, colour: str) -> str:
    path = " ".join(f"{across(px)},{up(py)}" for px, py in points)
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'


def _legend(names: Sequence[str]) -> list[str]:
    wide = (_WIDTH - _LEFT - _RIGHT) / max(len(names), 1)
    lines = []
    for number, (name, colour) in enumerate(zip(names, _COLOURS, strict=False)):
        x, y = round(_LEFT + number * wide, 1), _HEIGHT - 16
        lines.append(f'<path d="M{x} {y - 4}h18" stroke="{colour}" stroke-width="3"/>')
        lines.append(f'<text x="{x + 24}" y="{y}">{escape(name)}</text>')
    return lines
