"""The simulation: with faults at every boundary the promise holds, and a guard that is taken out is missed."""

from __future__ import annotations

import asyncio
import contextvars
import json
import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from common import saga
from proof.broker import SimulatedBroker
from proof.simulator import __main__ as command
from proof.simulator import life, sabotage, shrinking
from proof.simulator.cases import case
from proof.simulator.faults import Act, Moment, Strike
from proof.simulator.simulation import Case, Run, run
from proof.simulator.verdict import judge
from proof.simulator.workload import Curse, Ill, What, Wishes, order

ROOT = Path(__file__).parents[2]
#: Sagas of a run; seeds that are tried until a sabotage is noticed, and how much more than usual goes wrong then.
SAGAS = 100
SABOTAGED, TRIES, INTENSITY = 60, 24, 2.0


def broken(result: Run) -> list[str]:
    """What is wrong with a run, in words."""
    return [str(violation) for violation in judge(result).violations]


@pytest.mark.parametrize("seed", [1, 2])
def test_the_promise_holds_whatever_strikes(seed: int) -> None:
    """The promise itself: conflicting sagas, crashes, lost connections, cursed and poisoned messages."""
    result = run(case(seed, SAGAS))

    assert not broken(result)
    assert result.crashes.total() > 5, "too little went wrong to prove anything"


def test_every_saga_settles_though_queues_lose_messages() -> None:
    """The janitors say again what got lost, and payment settles in the end what is complete."""
    result = run(case(3, SAGAS, INTENSITY, lossy=True))

    assert not broken(result)
    assert sum(strike.act is Act.PURGE for strike in result.strikes) > 1, "too little got lost to prove anything"


@pytest.mark.parametrize("act", sabotage.REPAIR)
def test_the_simulation_notices_when_a_repair_is_taken_out(act: str) -> None:
    """What got lost stays lost then, and the run never comes to rest."""
    with sabotage.REPAIR[act]():
        noticed = any(broken(run(case(seed, SABOTAGED, INTENSITY, lossy=True))) for seed in range(TRIES))

    assert noticed, f"nobody noticed: {act}"


def test_the_promise_holds_for_a_seed_that_nobody_has_tried() -> None:
    """Each run of the tests looks somewhere new; the seed in the message replays it."""
    seed = secrets.randbelow(1_000_000)

    violations = broken(run(case(seed, SAGAS)))

    assert not violations, f"replay with SEED={seed} SAGAS={SAGAS} make simulate: {violations}"


@pytest.mark.parametrize("moment", Moment, ids=lambda moment: moment.value)
def test_the_promise_holds_when_a_service_is_killed(moment: Moment) -> None:
    """A crash at every boundary, in every service that gets there, at an early and at a later time."""
    strikes = [
        Strike(service, moment, number, Act.CRASH, 0.5) for service in saga.SERVICES for number in (1, 2, 5)
    ]
    result = run(_troubled(tuple(strikes)))

    assert not broken(result)
    if moment not in {Moment.DELIVERY, Moment.DEAD_LETTER}:
        assert result.crashes[moment] >= 3, "hardly anybody got there"


def _troubled(strikes: tuple[Strike, ...]) -> Case:
    """A few sagas that succeed, are refused, and are retried, so that every boundary is reached."""
    wishes = [
        Wishes(user=number, seat=number, begins=number * 0.02, thinks=3.0, amount=1 if number % 3 == 1 else None)
        for number in range(9)
    ]
    for number, service in enumerate(saga.SERVICES):
        wishes[number].curses = (Curse(service, f"p{number}", What.FORWARD, Ill.FAILS, 2),)
        wishes[number + 2].curses += (Curse("notify", f"p{number + 2}", What.NOTICE, Ill.FAILS, 99),)
    return Case(
        seed="troubled",
        orders=tuple(order(number, wish) for number, wish in enumerate(wishes)),
        plan=strikes,
        batch_size=5,
    )


def test_the_same_seed_is_the_same_run() -> None:
    """A seed that does not replay is no evidence: not in this process, nor in one that hashes differently."""
    program = (
        "from proof.simulator.cases import case; from proof.simulator.simulation import run;"
        "print(run(case(5, 40)).chronicle.digest())"
    )
    others = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env=os.environ | {"PYTHONHASHSEED": hashes, "PYTHONPATH": "."},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        for hashes in ("1", "2")
    }

    first, again = (run(case(5, 40)).chronicle.digest() for _ in range(2))

    assert {first, again} == others


@pytest.mark.parametrize("act", sabotage.ACTS)
def test_the_simulation_notices_when_a_guard_is_taken_out(act: str) -> None:
    """A simulation that cannot fail proves nothing, so each guard is taken out once."""
    with sabotage.ACTS[act]():
        noticed = any(broken(run(case(seed, SABOTAGED, INTENSITY))) for seed in range(TRIES))

    assert noticed, f"nobody noticed: {act}"


@given(small=shrinking.small_cases())
@settings(
    max_examples=12,
    deadline=None,
    database=None,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)
def test_no_small_case_breaks_the_promise(small: Case) -> None:
    """Few sagas and few faults, chosen for being simple: a failure here is printed already small."""
    assert not broken(run(small)), shrinking.told(small)


def test_a_failing_case_is_made_small_and_told_in_words() -> None:
    """Nobody finds a mistake in a hundred sagas; one saga without a single fault can be read."""
    with sabotage.ACTS["the whole batch is acked though one message failed"]():
        small = shrinking.smallest(shrinking.breaks)
        assert small is not None
        told = shrinking.told(small)

    assert len(small.orders) == 1
    assert not small.plan
    assert "reservation  handled payment.paid: dead" in told
    assert "broken: stuck: p0" in told


def test_the_command_tells_the_figures_and_the_seed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`make simulate` for programs."""
    monkeypatch.setenv("SEED", "7")
    monkeypatch.setenv("SAGAS", "20")

    code = command.main(["--json"])

    figures = json.loads(capsys.readouterr().out)
    assert code == 0
    assert (figures["seed"], figures["sagas"], figures["violations"]) == (7, 20, [])


def test_the_command_tells_what_is_broken_and_how_to_replay_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A violation comes with its seed and with the story of the saga."""
    monkeypatch.setenv("SEED", "7")
    monkeypatch.setenv("SAGAS", "20")
    monkeypatch.setattr(shrinking, "smallest", lambda *_, **__: None)

    with sabotage.ACTS["the whole batch is acked though one message failed"]():
        code = command.main([])

    told = capsys.readouterr().out
    assert code == 1
    assert "replay with SEED=7 SAGAS=20" in told
    assert "handled payment.paid: dead" in told


async def test_a_lost_connection_is_noticed_whoever_was_at_work_when_it_broke() -> None:
    """A delivery breaks it that a service caused which is gone by then: what is done in its name is cancelled."""
    asyncio.get_running_loop().set_task_factory(life.task_factory)
    broker = SimulatedBroker()
    connection = await broker.connect("amqp://payment@broker/?name=payment")
    noticed = asyncio.Event()
    connection.close_callbacks.add(lambda *_: noticed.set())
    gone = life.Incarnation("point", lambda _: None)
    gone.kill()
    context = contextvars.copy_context()
    context.run(life._current.set, gone)
    context.run(broker.kill, "payment")
    async with asyncio.timeout(5):
        await noticed.wait()
