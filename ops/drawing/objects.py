"""The broker's objects as a picture: what reaches a service on the left, its own recovery on the right.

One lane a service. The two exchanges are bars through all lanes; what a queue is bound with stands at its line.
"""

from __future__ import annotations

from collections.abc import Sequence

from common import saga, topology
from common.settings import Delay
from common.topology import EVENTS, HISTORY, RECOVERY
from ops.drawing.canvas import Canvas, width

_TOP = 64.0
_PAD = 16.0
_LINE = 19.0
_ROW = 26.0
_GAP = 44.0
_BAR = 30.0
_SMALL = 12.0
_QUEUE = 38.0


def draw(delays: Sequence[Delay]) -> Canvas:
    """The picture of the topology for these retry levels."""
    return _Drawing(delays).draw()


class _Drawing:
    """Columns from left to right: exchange, keys, queues of work, service, exchange, queues, what they do."""

    def __init__(self, delays: Sequence[Delay]) -> None:
        self.delays = delays
        derived = topology.derive(delays)
        self.keys = {
            queue.name: [it.key for it in derived.bindings if (it.exchange, it.queue) == (EVENTS, queue.name)]
            for queue in derived.queues
        }
        work = [queue for service in saga.SERVICES for queue in self._work(service)]
        kept = [queue for service in saga.SERVICES for queue in self._kept(service)]
        self.events = 24.0
        self.key = self.events + _BAR + 16
        self.queue = self.key + max(width(key, _SMALL) for keys in self.keys.values() for key in keys) + _GAP
        self.wide = max(width(name) for name in work) + 24
        self.service = self.queue + self.wide + _GAP
        self.broad = max(width(name, 14) for name in saga.SERVICES) + 28
        self.recovery = self.service + self.broad + _GAP + 28
        self.kept = self.recovery + _BAR + _GAP
        self.kept_wide = max(width(name, _SMALL) for name in kept) + 20
        self.words = self.kept + self.kept_wide + 14
        self.width = self.words + max(width(_purpose(queue), 11) for queue in kept) + 24
        self.tops = self._tops()
        self.bottom = self.tops[-1]
        self.canvas = Canvas(
            self.width,
            self.bottom + 84,
            title="The broker's objects",
            description=f"{EVENTS} brings each service its commands and events; {RECOVERY} leads its copies to "
            f"retry levels, dead letters and parked messages, and what services tell to {HISTORY}.",
        )

    @staticmethod
    def _work(service: str) -> list[str]:
        commands = [topology.commands_queue(service)] if saga.command_keys(service) else []
        return [*commands, topology.events_queue(service)]

    def _kept(self, service: str) -> list[str]:
        levels = [topology.retry_queue(service, delay) for delay in self.delays]
        return [*levels, topology.dead_queue(service), topology.parked_queue(service)]

    def _tops(self) -> list[float]:
        """Where the lanes begin, and where the last one ends."""
        tops = [_TOP]
        for service in saga.SERVICES:
            left = sum(self._tall(queue) + _PAD for queue in self._work(service))
            right = _ROW * len(self._kept(service)) + _PAD
            tops.append(tops[-1] + max(left, right) + _PAD)
        return tops

    def _tall(self, queue: str) -> float:
        return max(_QUEUE, _LINE * len(self.keys[queue]) + 8)

    def draw(self) -> Canvas:
        """All of it."""
        for place, service in enumerate(saga.SERVICES):
            if place % 2 == 0:
                top, end = self.tops[place], self.tops[place + 1]
                self.canvas.box(8, top, self.width - 16, end - top, fill="band", round_=6)
            self._lane(service, self.tops[place], self.tops[place + 1])
        self._bars()
        self._history()
        return self.canvas

    def _bars(self) -> None:
        for x, name, role in ((self.events, EVENTS, "forward"), (self.recovery, RECOVERY, "undo")):
            end = self.bottom + (52 if name == RECOVERY else 8)
            self.canvas.box(x, _TOP - 8, _BAR, end - _TOP, fill="box", edge=role)
            self.canvas.text(max(x + _BAR / 2, 70), _TOP - 20, name, bold=True, colour=role, anchor="middle")

    def _lane(self, service: str, top: float, end: float) -> None:
        middle = (top + end) / 2
        y = middle - (sum(self._tall(queue) + _PAD for queue in self._work(service)) - _PAD) / 2
        for queue in self._work(service):
            tall = self._tall(queue)
            self._queue_of_work(queue, y, tall, middle)
            y += tall + _PAD
        self.canvas.box(self.service, middle - 22, self.broad, 44, fill="done", edge="done-edge", round_=22)
        name = self.service + self.broad / 2
        self.canvas.text(name, middle + 5, service, size=14, bold=True, anchor="middle")
        out = self.service + self.broad
        self.canvas.line((out, middle), (self.recovery, middle), colour="undo")
        self.canvas.text(out + 8, middle - 8, "copies", size=_SMALL, colour="undo")
        self._recovery_of(service, middle)

    def _queue_of_work(self, queue: str, y: float, tall: float, middle: float) -> None:
        keys = self.keys[queue]
        centre = y + tall / 2
        first = centre - _LINE * (len(keys) - 1) / 2
        for number, key in enumerate(keys):
            self.canvas.text(self.key, first + _LINE * number - 5, key, size=_SMALL, colour="forward")
            line = first + _LINE * number
            self.canvas.line((self.events + _BAR, line), (self.queue, line), colour="forward")
        self.canvas.box(self.queue, y, self.wide, tall, fill="box", edge="ink")
        self.canvas.text(self.queue + self.wide / 2, centre + 4, queue, anchor="middle")
        right = self.queue + self.wide
        bend = right + _GAP / 2
        if abs(centre - middle) < 1:
            self.canvas.line((right, centre), (self.service, centre), colour="forward")
        else:
            self.canvas.line(
                (right, centre), (bend, centre), (bend, middle), (self.service, middle), colour="forward"
            )

    def _recovery_of(self, service: str, middle: float) -> None:
        kept = self._kept(service)
        y = middle - _ROW * len(kept) / 2
        for name in kept:
            edge = "undo" if ".retry." in name else "back"
            self.canvas.line((self.recovery + _BAR, y + 13), (self.kept, y + 13), colour=edge)
            self.canvas.box(self.kept, y + 2, self.kept_wide, 22, fill="box", edge=edge, round_=5)
            self.canvas.text(self.kept + 10, y + 17, name, size=_SMALL)
            self.canvas.text(self.words, y + 17, _purpose(name), size=11, colour="muted")
            y += _ROW

    def _history(self) -> None:
        y = self.bottom + 44
        words = f"What a service says goes to {EVENTS} again."
        self.canvas.text(self.events, y + 4, words, size=_SMALL, colour="forward")
        self.canvas.line((self.recovery + _BAR, y), (self.kept, y), colour="muted")
        self.canvas.box(self.kept, y - 18, width(HISTORY) + 40, 36, fill="box", edge="muted")
        self.canvas.text(self.kept + 20, y + 4, HISTORY)
        words = "a stream of what services and operators did"
        self.canvas.text(self.kept + width(HISTORY) + 54, y + 4, words, size=11, colour="muted")


def _purpose(queue: str) -> str:
    """What a queue of the services' own recovery is for."""
    service, _, kind = queue.partition(".")
    if kind.startswith("retry."):
        return f"then, as {topology.return_key(service)}, to {topology.events_queue(service)}"
    return "its dead-letter handler decides" if queue == topology.dead_queue(service) else "a person decides"
