"""Every chance of a run comes from its seed: the production code's too, so that a seed tells the whole run."""

from __future__ import annotations

import contextlib
import random
import secrets
import uuid
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

from aiormq.base import FutureStore

from common import bus


class _InOrder(dict[Any, None]):
    """What aiormq needs of a set, in the order of arrival: a set has futures in the order of their addresses."""

    def add(self, item: Any) -> None:  # noqa: ANN401 - as a set has it
        self[item] = None

    def remove(self, item: Any) -> None:  # noqa: ANN401 - as above
        del self[item]

    def pop(self) -> Any:  # type: ignore[override]  # noqa: ANN401 - as above
        first = next(iter(self))
        del self[first]
        return first


def chance(seed: int | str, use: str) -> random.Random:
    """Chances for one use, that no other use can shift."""
    return random.Random(f"{seed}/{use}")  # noqa: S311 - a game of chance, not a secret


@contextlib.contextmanager
def seeded(seed: int | str) -> Iterator[None]:
    """Let the production code draw its ids, traces, shuffles and jitter from the seed."""
    ids = chance(seed, "ids")
    jitter = chance(seed, "jitter")

    def uuid4() -> uuid.UUID:
        return uuid.UUID(int=ids.getrandbits(128), version=4)

    def token_hex(size: int = 32) -> str:
        return f"{ids.getrandbits(8 * size):0{2 * size}x}"

    store = FutureStore.__init__

    def ordered(self: FutureStore, *arguments: Any, **named: Any) -> None:  # noqa: ANN401 - aiormq's
        store(self, *arguments, **named)
        self.futures = _InOrder()  # type: ignore[assignment]

    before = random.getstate()
    random.seed(f"{seed}/shuffles")
    try:
        with (
            mock.patch.object(uuid, "uuid4", uuid4),
            mock.patch.object(secrets, "token_hex", token_hex),
            mock.patch.object(FutureStore, "__init__", ordered),
            # A session makes a source of its own, which would begin with the operating system's randomness.
            mock.patch.object(bus, "random", SimpleNamespace(Random=lambda: jitter, shuffle=jitter.shuffle)),
        ):
            yield
    finally:
        random.setstate(before)
