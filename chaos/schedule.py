"""Which fault comes when: each of them once, or round after round; by a seed, so that it can be repeated."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence

from chaos.faults import Fault


def turns(faults: Sequence[Fault], chance: random.Random, minutes: float) -> Iterator[Fault]:
    """The faults in an order of chance: each once, or, with minutes, round after round until those are over."""
    ends = time.monotonic() + 60 * minutes
    while True:
        for fault in chance.sample(list(faults), k=len(faults)):
            if minutes and time.monotonic() >= ends:
                return
            yield fault
        if not minutes:
            return
