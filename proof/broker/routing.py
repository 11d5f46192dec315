"""Exchanges: which queues a routing key leads to."""

from __future__ import annotations

from collections.abc import Iterable


def matches(pattern: str, key: str) -> bool:
    """Whether a topic pattern takes a routing key: `*` is one word, `#` any number of them, none included."""
    return _matches(_words(pattern), _words(key))


def _words(key: str) -> list[str]:
    return key.split(".") if key else []


def _matches(pattern: list[str], words: list[str]) -> bool:
    if not pattern:
        return not words
    first, rest = pattern[0], pattern[1:]
    if first == "#":
        return any(_matches(rest, words[skipped:]) for skipped in range(len(words) + 1))
    return bool(words) and first in {"*", words[0]} and _matches(rest, words[1:])


class Exchange:
    """A topic, direct or fanout exchange: its bindings, and the routes it has found for the keys it has seen."""

    def __init__(self, name: str, kind: str, *, durable: bool, alternate: str | None) -> None:
        self.name = name
        self.kind = kind
        self.durable = durable
        self.alternate = alternate
        self._bindings: dict[tuple[str, str], None] = {}
        self._routes: dict[str, tuple[str, ...]] = {}

    @property
    def bindings(self) -> list[tuple[str, str]]:
        """Routing key and queue of each binding."""
        return list(self._bindings)

    def bind(self, key: str, queue: str) -> None:
        """Send what matches the key to the queue; doing it again changes nothing."""
        self._bindings[key, queue] = None
        self._routes.clear()

    def unbind(self, key: str, queue: str) -> None:
        """Undo a binding; one that is not there is none to undo."""
        self._bindings.pop((key, queue), None)
        self._routes.clear()

    def forget(self, queue: str) -> None:
        """Undo all bindings of a queue."""
        self._bindings = {binding: None for binding in self._bindings if binding[1] != queue}
        self._routes.clear()

    def route(self, keys: Iterable[str]) -> tuple[str, ...]:
        """The queues that these keys reach, each once."""
        found: dict[str, None] = {}
        for key in keys:
            if key not in self._routes:
                self._routes[key] = tuple(
                    dict.fromkeys(queue for bound, queue in self._bindings if self._takes(bound, key))
                )
            found.update(dict.fromkeys(self._routes[key]))
        return tuple(found)

    def _takes(self, bound: str, key: str) -> bool:
        match self.kind:
            case "topic":
                return matches(bound, key)
            case "fanout":
                return True
            case _:
                return bound == key
