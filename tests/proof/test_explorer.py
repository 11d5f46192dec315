"""The search of every interleaving: the promise holds, and a promise that is sabotaged is seen to break."""

from __future__ import annotations

import pytest

from proof import sabotage
from proof.explorer import Scenario, Search, repaired, scenarios
from proof.laboratory import open_laboratory

SEARCHED = scenarios(duplicates=1, two_sagas=False)
LOSSY = repaired(duplicates=0, losses=2)
CONFLICTS = [scenario for scenario in scenarios(duplicates=0, two_sagas=True) if len(scenario.commands) > 1]


@pytest.mark.parametrize("scenario", SEARCHED, ids=lambda scenario: scenario.name)
async def test_one_saga_is_whole_or_undone_in_every_interleaving(scenario: Scenario) -> None:
    """The promise itself, over every order of deliveries, one repetition, deaths and the deadline."""
    async with open_laboratory() as laboratory:
        search = await Search(laboratory, scenario).run()

    assert search.violation is None, str(search.violation)
    assert search.states > 1000, "the search went nowhere"


@pytest.mark.parametrize("scenario", LOSSY, ids=lambda scenario: scenario.name)
async def test_one_saga_settles_whatever_gets_lost(scenario: Scenario) -> None:
    """From every world that can be reached a way leads to one in which it is settled, all of it or nothing."""
    async with open_laboratory() as laboratory:
        search = await Search(laboratory, scenario).run()

    assert search.violation is None, str(search.violation)
    assert search.states > 100, "the search went nowhere"


@pytest.mark.parametrize("act", sabotage.REPAIR)
async def test_the_search_notices_when_a_repair_is_taken_out(act: str) -> None:
    """A saga that stays open for ever breaks no promise at any moment: only that no way leads on tells it."""
    async with open_laboratory() as laboratory:
        with sabotage.REPAIR[act]():
            search = await Search(laboratory, LOSSY[0]).run()

    assert search.violation is not None, f"nobody noticed: {act}"


@pytest.mark.parametrize("act", sabotage.ACTS)
async def test_the_search_notices_when_a_guard_is_taken_out(act: str) -> None:
    """A search that cannot fail proves nothing, so each guard is taken out once."""
    wanted = (*scenarios(duplicates=0, two_sagas=False), SEARCHED[0], *CONFLICTS)
    async with open_laboratory() as laboratory:
        with sabotage.ACTS[act]():
            for scenario in wanted:
                search = await Search(laboratory, scenario).run()
                if search.violation:
                    break

    assert search.violation is not None, f"nobody noticed: {act}"
    assert search.violation.timeline, "a violation tells how it came about"


async def test_every_ending_is_reached() -> None:
    """A search that never sees a saga complete, or never sees one undone, looks at the wrong thing."""
    endings = set()
    async with open_laboratory() as laboratory:
        for scenario in scenarios(duplicates=0, two_sagas=False):
            endings |= (await Search(laboratory, scenario).run()).endings

    assert endings >= {("done",), ("undone",)}


async def test_one_of_two_sagas_gets_the_seat_or_none_does() -> None:
    """Two payments for one reservation may both fail, and never both succeed."""
    scenario = next(scenario for scenario in CONFLICTS if scenario.name == "two sagas, one seat")
    async with open_laboratory() as laboratory:
        search = await Search(laboratory, scenario).run()

    assert search.violation is None, str(search.violation)
    assert search.endings == {("done", "undone"), ("undone", "done"), ("undone", "undone")}
