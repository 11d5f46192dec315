"""What happened, in order: for the story of a saga, and for a digest that two equal runs share."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

#: Told of no saga in particular: what befell a service, or all of it.
NOBODY = ""


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened: when, to whom, what, and in which saga or command."""

    at: float
    who: str
    what: str
    key: str

    def __str__(self) -> str:
        return f"{self.at:9.3f} s  {self.who:<12} {self.what}"


class Chronicle:
    """The events of a run."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.events: list[Event] = []
        self._clock = clock

    def tell(self, who: str, what: str, key: str = NOBODY) -> None:
        """Note something down."""
        self.events.append(Event(self._clock(), who, what, key))

    def digest(self) -> str:
        """The same for runs in which the same things happened at the same times."""
        digest = hashlib.sha256()
        for event in self.events:
            digest.update(f"{event.at:.9f} {event.who} {event.what} {event.key}\n".encode())
        return digest.hexdigest()

    def story(self, keys: frozenset[str]) -> list[Event]:
        """What happened in these sagas, and what befell services meanwhile."""
        times = [event.at for event in self.events if event.key in keys]
        if not times:
            return []
        first, last = min(times), max(times)
        return [
            event
            for event in self.events
            if event.key in keys or (event.key == NOBODY and first - 1 <= event.at <= last + 1)
        ]
