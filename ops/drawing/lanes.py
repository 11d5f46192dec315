"""The saga as a picture of lanes: forward from the upper left to the lower right, and the way back on the left.

Every lane is a service. A step that refuses says `<service>.failed`, which runs to the line at the left; from
there every service hears it and, alone, undoes its part. Positions follow from the table: a step more is a lane
more.
"""

from __future__ import annotations

from collections.abc import Sequence

from common import saga
from common.saga import Step
from ops.drawing.canvas import Canvas, width

_LANE = 92.0
_TOP = 92.0
_MARGIN = 24.0
_BOX = (128.0, 52.0)
_FRAME = 4.0
_SHIFT = 104.0
_SMALL = 12.0
_GAP = 28.0
_LEGEND = 66.0


def draw(steps: Sequence[Step] = saga.SAGA) -> Canvas:
    """The picture of a saga's table."""
    return _Drawing(steps).draw()


class _Drawing:
    """The positions, and the strokes in the order in which they lie over one another."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self.steps = steps
        backwards = [step.failed for step in steps if step.refusals] + [_undoing(steps, step) for step in steps]
        #: Where the line of the failures runs, and where the first box begins.
        self.bus = _MARGIN + width("step 10") + 30
        self.left = self.bus + max(width(text, _SMALL) for text in backwards) + 2 * _GAP
        ends = [
            self.x(place) + _BOX[0] + _GAP + width(step.emits, _SMALL) + _GAP for place, step in enumerate(steps)
        ]
        self.pivot = next((place for place, step in enumerate(steps) if step.pivot), None)
        #: Where the pivot's event runs up to the first lane.
        self.completion = max(ends) + 4
        self.width = self.completion + _GAP + _MARGIN
        self.canvas = Canvas(
            self.width,
            _TOP + _LANE * len(steps) + _LEGEND,
            title="The saga",
            description=_sentence(steps),
        )

    def x(self, place: int) -> float:
        """The left edge of a step's box."""
        return self.left + _SHIFT * place

    def y(self, place: int) -> float:
        """The middle of a step's lane."""
        return _TOP + _LANE * (place + 0.5)

    def edge(self, place: int, step: Step) -> float:
        """Where lines from the left end: the pivot has a second frame."""
        return self.x(place) - (_FRAME if step.pivot else 0)

    def draw(self) -> Canvas:
        """All of it."""
        for place in range(len(self.steps)):
            self._lane(place)
        self._border()
        self._command()
        self._line_of_failures()
        for place, step in enumerate(self.steps):
            self._backward(place, step)
            self._forward(place, step)
        for place, step in enumerate(self.steps):
            self._box(place, step)
        self._legend()
        return self.canvas

    def _lane(self, place: int) -> None:
        top = _TOP + _LANE * place
        if place % 2 == 0:
            self.canvas.box(8, top, self.width - 16, _LANE, fill="band", round_=6)
        self.canvas.text(_MARGIN, self.y(place) + 4, f"step {place + 1}", colour="muted")

    def _border(self) -> None:
        """The line behind the pivot: what is above it can be undone."""
        if self.pivot is None or self.pivot + 1 == len(self.steps):
            return
        y = _TOP + _LANE * (self.pivot + 1)
        self.canvas.line((8, y), (self.width - 8, y), colour="pivot-edge", dashed=True, arrow=False)

    def _command(self) -> None:
        x = self.x(0) + _BOX[0] / 2
        self.canvas.box(x - 48, 18, 96, 30, fill="box", edge="edge", round_=15)
        self.canvas.text(x, 38, "client", anchor="middle")
        self.canvas.line((x, 48), (x, self.y(0) - _BOX[1] / 2), colour="forward")
        self.canvas.text(x + 12, 72, self.steps[0].on, colour="forward", size=_SMALL)

    def _line_of_failures(self) -> None:
        refusing = [place for place, step in enumerate(self.steps) if step.refusals]
        if not refusing:
            return
        ends = (_TOP - 6, self.y(len(self.steps) - 1) - 14)
        self.canvas.line((self.bus, ends[0]), (self.bus, ends[1]), colour="back", dashed=True, arrow=False)
        self.canvas.text(self.bus, _TOP - 14, saga.ANY_FAILED, colour="back", bold=True, anchor="middle")

    def _backward(self, place: int, step: Step) -> None:
        """What a step says when it refuses, and what it does when another did."""
        x, hears, says = self.edge(place, step), self.y(place) - 14, self.y(place) + 18
        self.canvas.line((self.bus, hears), (x, hears), colour="undo", dashed=True)
        self.canvas.text(self.bus + 14, hears - 6, _undoing(self.steps, step), colour="undo", size=_SMALL)
        if step.refusals:
            self.canvas.line((x, says), (self.bus, says), colour="back", dashed=True)
            self.canvas.text(self.bus + 14, says - 6, step.failed, colour="back", size=_SMALL)

    def _forward(self, place: int, step: Step) -> None:
        right, y = self.x(place) + _BOX[0], self.y(place)
        self.canvas.text(
            right + 8 + (_FRAME if step.pivot else 0), y - 8, step.emits, colour="forward", size=_SMALL
        )
        if place + 1 < len(self.steps):
            corner = self.x(place + 1) + _BOX[0] / 2
            top = self.y(place + 1) - _BOX[1] / 2 - (_FRAME if self.steps[place + 1].pivot else 0)
            self.canvas.line((right, y), (corner, y), (corner, top), colour="forward")
        else:
            self.canvas.line((right, y), (right + width(step.emits, _SMALL) + _GAP, y), colour="forward")
        if place == self.pivot and place:
            self._completion(right, y)

    def _completion(self, right: float, y: float) -> None:
        """The pivot's event completes what the first step began."""
        words = f"{self.steps[0].service} completes"
        broad = max(width(words, _SMALL), width(saga.COMPLETED, _SMALL)) + 36
        top, end = self.y(0), self.completion - 36
        self.canvas.line((right, y), (self.completion, y), (self.completion, top), (end, top), colour="forward")
        self.canvas.box(end - broad, top - 24, broad, 48, fill="done", edge="done-edge", round_=24)
        self.canvas.text(end - broad / 2, top - 4, words, size=_SMALL, bold=True, anchor="middle")
        self.canvas.text(
            end - broad / 2, top + 13, saga.COMPLETED, size=_SMALL, colour="done-edge", anchor="middle"
        )

    def _box(self, place: int, step: Step) -> None:
        x, y = self.x(place), self.y(place) - _BOX[1] / 2
        if step.pivot:
            frame = (x - _FRAME, y - _FRAME, _BOX[0] + 2 * _FRAME, _BOX[1] + 2 * _FRAME)
            self.canvas.box(*frame, fill="ground", edge="pivot-edge", round_=12)
        colours = ("pivot", "pivot-edge") if step.pivot else ("box", "ink")
        self.canvas.box(x, y, *_BOX, fill=colours[0], edge=colours[1])
        middle = x + _BOX[0] / 2
        self.canvas.text(middle, y + 22, step.service, size=15, bold=True, anchor="middle")
        self.canvas.text(middle, y + 40, _about(step), size=11, colour="muted", anchor="middle")

    def _legend(self) -> None:
        y = _TOP + _LANE * len(self.steps) + 30
        x = _MARGIN
        for colour, words in (
            ("forward", "forward, one message at a time"),
            ("back", "refused, or retries spent"),
            ("undo", "each service alone undoes its part"),
        ):
            self.canvas.line((x, y - 4), (x + 34, y - 4), colour=colour, dashed=colour != "forward")
            self.canvas.text(x + 44, y, words, size=_SMALL)
            x += 44 + width(words, _SMALL) + _GAP
        if self.pivot is not None:
            words = "The pivot: before it everything can be undone, after it the saga only goes forward."
            self.canvas.text(_MARGIN, y + 22, words, size=_SMALL, colour="pivot-edge")


def _about(step: Step) -> str:
    if step.pivot:
        return "the pivot"
    count = len(step.refusals)
    return f"may refuse ({count})" if count else "cannot fail"


def _undoing(steps: Sequence[Step], step: Step) -> str:
    """What a service does when it hears of a failure."""
    if step.compensation:
        return f"undoes: {step.compensation}"
    return "tells the user" if step is steps[-1] else "remembers never to do it"


def _sentence(steps: Sequence[Step]) -> str:
    """The picture in words, for who cannot see it."""
    told = [f"{step.service} does its part on {step.on} and says {step.emits}" for step in steps]
    undone = [f"{step.service} with {step.compensation}" for step in steps if step.compensation]
    return f"{'; '.join(told)}. On {saga.ANY_FAILED} these undo their part: {', '.join(undone)}."
