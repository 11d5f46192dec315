"""Inputs that once were interesting, kept beside this file: a text for each target, a line for each input.

`python -m fuzz.corpus` takes over what the last search kept: one input, as short as it could be made, for each
thing that only it reached. What broke a property is kept by hand in `hostile`, and has a named test.
"""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_ROOM = ROOT / "fuzz" / "kept"
_VAR = ROOT / "var" / "fuzz"
#: Longer ones belong to the giants, which are made anew each time.
_LONGEST = 512


def kept(target: str) -> list[bytes]:
    """The inputs of a target. Each line is a JSON text whose characters are bytes."""
    file = _ROOM / f"{target}.txt"
    return [json.loads(line).encode("latin-1") for line in file.read_text().splitlines()] if file.exists() else []


def keep(target: str, inputs: list[bytes]) -> None:
    """Write down the inputs of a target, the shortest first."""
    _ROOM.mkdir(exist_ok=True)
    short = sorted({data for data in inputs if len(data) <= _LONGEST}, key=lambda data: (len(data), data))
    lines = [json.dumps(data.decode("latin-1")) + "\n" for data in short]
    (_ROOM / f"{target}.txt").write_text("".join(lines))


if __name__ == "__main__":
    for folder in sorted(_VAR.iterdir()):
        if found := [file.read_bytes() for file in (folder / "corpus").glob("*")]:
            keep(folder.name, found)
