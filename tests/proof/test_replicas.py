"""Two replicas of a service at once: the promise holds statement by statement, and each guard of it is needed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from common.barrier import TABLE, Kind, State
from proof import sabotage
from proof.cells import noting
from proof.laboratory import open_laboratory
from proof.races import races
from proof.scenarios import Scenario
from proof.search import Search

RACES = {scenario.name: scenario for scenario in races()}


async def searched(scenario: Scenario) -> Search:
    """A scenario, searched in a laboratory of its own."""
    async with open_laboratory() as laboratory:
        return await Search(laboratory, scenario).run()


@pytest.mark.parametrize("name", RACES)
async def test_the_promise_holds_when_reads_and_commits_of_two_replicas_interleave(name: str) -> None:
    """Replicas are how the services grow; what one reads may be old before it commits."""
    search = await searched(RACES[name])
    alone = await searched(replace(RACES[name], replicas=()))

    assert search.violation is None, str(search.violation)
    assert search.states > alone.states, "nobody ever stood still between two statements"
    assert search.endings == alone.endings, "a second replica makes no new ending possible"


@pytest.mark.parametrize("act", sabotage.RACES)
async def test_only_two_replicas_notice_when_a_guard_against_the_other_is_taken_out(act: str) -> None:
    """Each lock and each comparison is taken out once; with one replica nobody would ever miss it."""
    race = RACES[sabotage.RACES[act].noticed_in]
    with sabotage.RACES[act].apply():
        search = await searched(race)
        alone = await searched(replace(race, replicas=()))

    assert search.violation is not None, f"nobody noticed: {act}"
    assert any("stands still" in step for step in search.violation.timeline), "it takes two to notice"
    assert alone.violation is None, str(alone.violation)


async def test_the_ledger_takes_nothing_twice_even_if_compare_and_set_fails() -> None:
    """Points have two guards: the row of the saga, and the ledger's own key of saga and kind."""
    with sabotage.RACES["compare-and-set does not count the rows"].apply():
        search = await searched(RACES["point twice, undone"])

    assert search.violation is None, str(search.violation)


async def test_a_closed_saga_is_never_asked_to_go_on() -> None:
    """Why `closed` x forward cannot be sabotaged to effect: only services behind the failed one are closed.

    They would have to be sent a forward message by a predecessor that did its part, and it did not. So these two
    cells are a second guard, for databases that were set back. All others are asked here, but for those of the
    settlement, which only the searches with losses have.
    """
    with noting() as asked:
        for scenario in RACES.values():
            if "twice" in scenario.name:
                assert (await searched(scenario)).violation is None

    of_settlement = {cell for cell in TABLE if State.SETTLED in cell or Kind.SETTLEMENT in cell}
    assert set(TABLE) - of_settlement - asked == {
        (State.CLOSED, Kind.FORWARD),
        (State.CLOSED, Kind.DEAD_LETTER),
    }
