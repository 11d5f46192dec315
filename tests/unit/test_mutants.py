"""How the mutation run reads its results and judges its survivors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tools.mutants import reading, session, verdict, workspace
from tools.mutants.reading import Fate, Mutant
from tools.mutants.verdict import Explanation, judge

MUTATED = """\
class Purse:
    @_mutmut_mutated(mutants_xǁPurseǁpay__mutmut)
    def pay(self, amount: int) -> int:
        return self.left - amount

    def xǁPurseǁpay__mutmut_orig(self, amount: int) -> int:
        return self.left - amount

    def xǁPurseǁpay__mutmut_1(self, amount: int) -> int:
        return self.left + amount

def x_greet__mutmut_orig(name: str) -> str:
    if name >= "a":
        return "hello there"

def x_greet__mutmut_1(name: str) -> str:
    if name > "a":
        return "hello there"

def x_greet__mutmut_2(name: str) -> str:
    if name >= "a":
        return "HELLO THERE"
"""
SPANS = {
    "xǁPurseǁpay__mutmut_orig": [6, 8],
    "xǁPurseǁpay__mutmut_1": [9, 11],
    "x_greet__mutmut_orig": [12, 15],
    "x_greet__mutmut_1": [16, 19],
    "x_greet__mutmut_2": [20, 22],
}
LIVED = Mutant("shop.py", "greet", 'return "hello there"', '"hello there"', '"HELLO THERE"', Fate.SURVIVED)
WORDING = Explanation(reason="Only words.", was='"* *"')


def leave(home: Path, **codes: int | None) -> None:
    """Leave the files of a run, as mutmut leaves them."""
    folder = home / "mutants"
    folder.mkdir()
    (folder / "shop.py").write_text(MUTATED)
    (folder / "shop.py.spans").write_text(json.dumps({"version": 1, "spans": SPANS}))
    named = {f"shop.{name}": code for name, code in codes.items()}
    (folder / "shop.py.meta").write_text(json.dumps({"exit_code_by_key": named}))


def test_a_mutant_is_known_by_its_source_and_not_by_its_line(tmp_path: Path) -> None:
    """Else every explanation would be out of date after a comment is added above."""
    leave(tmp_path, xǁPurseǁpay__mutmut_1=1, x_greet__mutmut_1=-24, x_greet__mutmut_2=0)
    assert reading.mutants(tmp_path, ["shop.py"]) == [
        Mutant("shop.py", "Purse.pay", "return self.left - amount", "-", "+", Fate.KILLED),
        Mutant("shop.py", "greet", 'if name >= "a":', ">=", ">", Fate.TIMEOUT),
        LIVED,
    ]


@pytest.mark.parametrize(
    ("code", "fate"),
    [
        (1, Fate.KILLED),
        (0, Fate.SURVIVED),
        (33, Fate.UNTESTED),
        (2, Fate.UNKNOWN),
        (4, Fate.UNKNOWN),
        (None, Fate.UNKNOWN),
    ],
)
def test_only_a_failed_test_kills(tmp_path: Path, code: int | None, fate: Fate) -> None:
    """A worker that was interrupted, or that pytest did not understand, has tested nothing."""
    leave(tmp_path, x_greet__mutmut_2=code)
    assert [mutant.fate for mutant in reading.mutants(tmp_path, ["shop.py"])] == [fate]


def test_a_change_that_changes_nothing_is_no_mutant_but_must_live(tmp_path: Path) -> None:
    """Tests that fail without a reason would kill every mutant."""
    leave(tmp_path, x_greet__mutmut_0=1, x_greet__mutmut_2=1)
    assert len(reading.mutants(tmp_path, ["shop.py"])) == 1
    assert reading.no_ops(tmp_path, ["shop.py"]) == {"shop.py greet": Fate.KILLED}


@pytest.mark.parametrize(
    ("of_greet", "changed"),
    [(["one"], ["Purse.pay"]), (["one", "three"], ["Purse.pay", "greet"]), ([], ["Purse.pay"])],
)
def test_every_test_that_may_kill_is_tried_on_a_change_that_changes_nothing(
    tmp_path: Path, of_greet: list[str], changed: list[str]
) -> None:
    """In as few functions as reach them all: each is a run of its tests in a fork, where some hang."""
    leave(tmp_path, xǁPurseǁpay__mutmut_1=1, x_greet__mutmut_1=None, x_greet__mutmut_2=0)
    reached = {"shop.xǁPurseǁpay": ["one", "two"], "shop.x_greet": of_greet}
    stats = {"tests_by_mangled_function_name": reached}
    (tmp_path / "mutants/mutmut-stats.json").write_text(json.dumps(stats))
    session._add_no_ops(tmp_path, ["shop.py"])
    assert reading.no_ops(tmp_path, ["shop.py"]) == {f"shop.py {name}": Fate.UNKNOWN for name in changed}
    assert reading.progress(tmp_path, ["shop.py"]) == (2, 3 + len(changed))


def test_what_lived_is_tested_again_and_what_was_killed_is_not(tmp_path: Path) -> None:
    """A new test may kill a survivor; nothing wakes the dead."""
    leave(tmp_path, xǁPurseǁpay__mutmut_1=1, x_greet__mutmut_1=-24, x_greet__mutmut_2=0)
    session._forget_survivors(tmp_path, ["shop.py"])
    fates = [mutant.fate for mutant in reading.mutants(tmp_path, ["shop.py"])]
    assert fates == [Fate.KILLED, Fate.UNKNOWN, Fate.UNKNOWN]


def test_a_survivor_needs_an_explanation() -> None:
    """Either a test is missing, or somebody says why none is."""
    judged = judge([LIVED], [], whole=True)
    assert (judged.is_good, judged.unexplained, judged.counts["shop.py"]["survived"]) == (False, [LIVED], 1)
    judged = judge([LIVED], [WORDING], whole=True)
    assert (judged.is_good, judged.unexplained, judged.counts["shop.py"]["explained"]) == (True, [], 1)


@pytest.mark.parametrize("fate", [Fate.KILLED, Fate.TIMEOUT])
def test_an_explanation_that_no_survivor_needs_is_out_of_date(fate: Fate) -> None:
    """It would one day excuse another mutant that happens to look like it."""
    dead = Mutant(LIVED.file, LIVED.function, LIVED.line, LIVED.was, LIVED.becomes, fate)
    assert not judge([dead], [WORDING], whole=True).is_good
    assert judge([dead], [WORDING], whole=False).is_good, "a part of the files says nothing about the others"


def test_a_mutant_of_which_nobody_knows_spoils_the_verdict() -> None:
    """Not tested is not killed."""
    lost = Mutant("shop.py", "greet", "x", "x", "y", Fate.UNKNOWN)
    assert not judge([lost], [], whole=True).is_good


@pytest.mark.parametrize(
    ("part", "pattern", "covers"),
    [
        ("file", "shop.py", True),
        ("file", "*.py", True),
        ("file", "shop", False),
        ("function", "greet", True),
        ("function", "greet*", True),
        ("function", "gre", False),
        ("line", 'return  "hello there"', True),
        ("line", 'return "hello"', False),
        ("was", '"hello *"', True),
        ("was", '"hello t.ere"', False),
        ("becomes", "None", False),
    ],
)
def test_a_star_is_the_only_pattern_and_blanks_do_not_count(part: str, pattern: str, *, covers: bool) -> None:
    """Code is full of what other patterns would take for themselves."""
    assert Explanation(reason="", **{part: pattern}).covers(LIVED) == covers


def test_every_explanation_gives_its_reason_in_a_sentence() -> None:
    """An excuse that nobody can check is none."""
    for explanation in verdict.read():
        assert explanation.reason.endswith("."), explanation
        assert " " in explanation.reason, explanation
        assert str(explanation), "an explanation of everything explains nothing"


def test_what_is_mutated_is_all_there() -> None:
    """A file that was renamed must not leave the run unnoticed."""
    files = workspace.mutated_files([])
    assert len([file for file in files if file.endswith("domain.py")]) == 5
    assert len([file for file in files if file.endswith("dead_letter.py")]) == 5
    assert {"common/barrier.py", "common/outbox.py", "common/recovery.py", "common/unit_of_work.py"} <= set(files)
    with pytest.raises(FileNotFoundError):
        workspace.mutated_files(["no_such_file.py"])
