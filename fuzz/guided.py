"""One target under Atheris, which keeps what reaches code that nothing reached before: `python -m fuzz.guided`.

libFuzzer, inside Atheris, owns the process from here on: it ends it, and tells what it did on standard error.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import atheris  # type: ignore[import-untyped] # it brings no types

with atheris.instrument_imports(include=["common", "ops", "pamqp", "fuzz.targets"]):
    from fuzz import bounds, mutation
    from fuzz.targets import TARGETS

#: Every so many executions one is weighed, which takes longer.
_WEIGHED = 50


def main() -> None:
    """Search: the target, where its worst inputs are to be kept, and libFuzzer's own arguments."""
    name, kept, *arguments = sys.argv[1:]
    target, worst = TARGETS[name], bounds.Worst()

    def once(data: bytes) -> None:
        before = worst.seconds, worst.memory
        if worst.executions % _WEIGHED:
            worst.timed(target, data)
        else:
            worst.executions += 1
            worst.weighed(target, data)
        if (worst.seconds, worst.memory) != before:
            worst.save(Path(kept))

    def changed(data: bytes, most: int, seed: int) -> bytes:
        chance = random.Random(seed)  # noqa: S311 - the fuzzer's own seed decides
        if chance.random() < 0.5:
            return bytes(atheris.Mutate(data, most))
        return mutation.mutated(name, data, chance)[:most]

    atheris.Setup([sys.argv[0], *arguments], once, custom_mutator=changed)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
