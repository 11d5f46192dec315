"""The search for hostile input: what was once interesting, what is too large to keep, and that it can find."""

from __future__ import annotations

import random
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import pytest

from common import history, messages, recovery, wire
from common.messages import MAX_BODY
from fuzz import bounds, corpus, hostile, mutation
from fuzz.bounds import OutOfBoundsError, Worst
from fuzz.inputs import Letter, join, letter, of_letter, split
from fuzz.targets import TARGETS
from ops.letters import letter as letters

ROOT = Path(__file__).resolve().parents[2]
#: Changed inputs for each target; `make fuzz` tries millions.
CHANGED = 300
GIANTS = {name: (target, data) for name, target, data in hostile.giants()}


@pytest.mark.parametrize("target", TARGETS)
def test_what_was_interesting_once_is_read_or_refused_within_bounds(target: str) -> None:
    """All that the search began with, and what it found to reach something new."""
    kept = corpus.kept(target)
    assert kept, "the corpus is gone"
    worst = Worst()
    for data in (*hostile.seeds(target), *kept):
        worst.timed(TARGETS[target], data)
    worst.weighed(TARGETS[target], max(kept, key=len))


@pytest.mark.parametrize("target", TARGETS)
def test_small_changes_of_it_are_read_or_refused_within_bounds(target: str) -> None:
    """The same changes in every run, so that a failure is never luck."""
    chance = random.Random(f"{target} 1")
    known = [*hostile.seeds(target), *corpus.kept(target)]
    worst = Worst()
    for _ in range(CHANGED):
        data = chance.choice(known)
        for _ in range(chance.randrange(1, 4)):
            data = mutation.mutated(target, data, chance)
        worst.timed(TARGETS[target], data)


@pytest.mark.parametrize("name", GIANTS)
def test_no_giant_costs_more_than_any_message_may(name: str) -> None:
    """Depth, length and number: what one message can make a service compute and hold."""
    target, data = GIANTS[name]
    worst = Worst()
    worst.timed(TARGETS[target], data)
    if target != "deliveries" or len(data) > MAX_BODY * 2:
        # What a delivery holds beside its body was weighed with the body; to watch every object takes its time.
        worst.weighed(TARGETS[target], data)


def _stumbles(*_: object, **__: object) -> NoReturn:
    raise KeyError("a reader that stumbles")


@pytest.mark.parametrize(
    ("target", "module", "name"),
    [
        ("frames", wire, "_read"),
        ("wire", wire, "_fill"),
        ("bodies", messages, "_read_json"),
        ("deliveries", recovery, "_believed"),
        ("letters", letters, "_name"),
        ("records", history, "_entry"),
    ],
)
def test_a_reader_that_stumbles_is_found(
    target: str, module: ModuleType, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search that cannot fail proves nothing."""
    if target == "records":
        # Its reader takes a KeyError for an answer.
        monkeypatch.setattr(module, "_duration", lambda _: float("nan"))
    else:
        monkeypatch.setattr(module, name, _stumbles)

    def search() -> None:
        for data in hostile.seeds(target):
            TARGETS[target](data)

    with pytest.raises((KeyError, AssertionError, ValueError)):
        search()


def _takes_much(_: bytes) -> None:
    bytearray(30 * 1024 * 1024)


def _takes_long(_: bytes) -> None:
    sum(range(100_000))


def test_an_input_that_takes_too_long_or_too_much_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bounds are part of every property."""
    with pytest.raises(OutOfBoundsError, match="memory"):
        Worst().weighed(_takes_much, b"")
    monkeypatch.setattr(bounds, "SECONDS", 0.0)
    with pytest.raises(OutOfBoundsError, match="processor time"):
        Worst().timed(_takes_long, b"")


def test_an_input_says_what_it_was_made_of() -> None:
    """What is kept must be the same delivery tomorrow."""
    told = Letter("point", "point.events", "reservation.confirmed", b"\x20\x00abc", b'{"a":1}\n')
    assert letter(of_letter(told)) == told
    assert split(join("a", "", "c", rest=b"x\ny"), 3) == (["a", "", "c"], b"x\ny")


def test_what_is_kept_can_be_written_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any bytes, as lines that a person can read and a review can compare."""
    monkeypatch.setattr(corpus, "_ROOM", tmp_path)
    corpus.keep("bodies", [b"\xff\x00\n", b'{"a":1}', b"\xff\x00\n", b"x" * 5000])
    assert corpus.kept("bodies") == [b"\xff\x00\n", b'{"a":1}']
    assert (tmp_path / "bodies.txt").read_text().isascii()


@pytest.mark.skipif(find_spec("atheris") is None, reason="Atheris has no wheel for this Python and machine")
def test_the_guided_search_runs_and_finds_its_way(tmp_path: Path) -> None:
    """`make fuzz` in a second, so that it cannot rot: it reaches more than the one input that it was given."""
    (tmp_path / "seeds").mkdir()
    (tmp_path / "seeds" / "one").write_bytes(hostile.seeds("frames")[0])
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "fuzz.guided", "frames", tmp_path / "worst"),
            *("-runs=3000", "-seed=1", "-print_final_stats=1", tmp_path / "seeds"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert "stat::number_of_executed_units: 3000" in ended.stderr
    assert len(list((tmp_path / "seeds").iterdir())) > 3
    assert (tmp_path / "worst" / "worst.json").exists()
