"""One direction of a connection: what is put in comes out in the same order, in a later turn of the loop."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from proof.broker.queues import Clock

_Step = tuple[Callable[..., None], tuple[Any, ...]]


class Link:
    """Calls under way from one end to the other."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._under_way: deque[_Step] = deque()
        self._awake = False
        self._held = False
        self.is_cut = False

    def put(self, arrive: Callable[..., None], *arguments: Any) -> None:  # noqa: ANN401 - as asyncio has it
        """Have this called at the other end."""
        if self.is_cut:
            return
        self._under_way.append((arrive, arguments))
        if not self._awake:
            self._awake = True
            self._clock.call_soon(self._drain)

    def hold(self, seconds: float, arrive: Callable[..., None], *arguments: Any) -> None:  # noqa: ANN401 - as above
        """Called by what has just come out: it comes out again after a while, and nothing before it."""
        self._under_way.appendleft((arrive, arguments))
        self._held = True
        self._clock.call_at(self._clock.time() + seconds, self._release)

    def cut(self) -> None:
        """Lose what is under way; nothing comes out any more."""
        self.is_cut = True
        self._under_way.clear()

    def _drain(self) -> None:
        under_way = self._under_way
        try:
            while under_way and not self._held:
                arrive, arguments = under_way.popleft()
                arrive(*arguments)
        finally:
            # Also after an error, which is the loop's to report.
            self._awake = bool(under_way)
            if under_way and not self._held:
                self._clock.call_soon(self._drain)

    def _release(self) -> None:
        self._held = False
        self._drain()
