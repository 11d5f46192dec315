"""Retries, dead letters and compensation: what fails for good is undone, what can pass is waited for."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import AsyncIterator, Iterator
from datetime import datetime

import pytest

from common import saga
from common.messages import Enter, Pay, TopUp
from tests.support.eventually import eventually
from tests.support.saga import LEVELS, Theatre, Visit, burn_deliveries, depth, soon

pytestmark = pytest.mark.broker

_FAILING = [step.service for step in saga.SAGA if step.refusals]


@contextlib.contextmanager
def trigger(house: Theatre, service: str, on: str, *, when: str) -> Iterator[None]:
    """A fault of the database for some rows only: an SQLite trigger, gone when the context is left."""
    _execute(
        house, service, f"CREATE TRIGGER fault BEFORE {on} WHEN {when} BEGIN SELECT RAISE(ABORT, 'a fault'); END"
    )
    try:
        yield
    finally:
        _execute(house, service, "DROP TRIGGER IF EXISTS fault")


def _execute(house: Theatre, service: str, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(house.stack.database(service), timeout=10)) as connection, connection:
        connection.execute(statement)


@pytest.mark.parametrize("service", _FAILING)
async def test_a_payment_is_undone_when_the_retries_of_a_step_are_spent(
    here: Visit, house: Theatre, service: str
) -> None:
    """A real fault of a database, for one payment: tried through all levels, dead, undone; neighbours done."""
    pay, *neighbours = await here.paying(4)
    before = here.belongings(pay)
    step = saga.step_of(service)
    with trigger(
        house, service, "INSERT ON saga_step", when=f"NEW.saga_id = '{pay.payment_id}' AND NEW.state = 'done'"
    ):
        await here.send(pay, *neighbours)
        await here.undone(pay, at=service, reason="retries_spent")
    await here.completed(*neighbours)
    assert here.belongings(pay) == before
    ways = [copy.key for copy in here.copies if copy.id == pay.payment_id]
    for delay in ("200ms", "400ms"):
        assert ways.count(f"{service}.retry.{delay}") == 1
    assert ways.count(f"{service}.return") == LEVELS
    copy = await here.recovers(pay.payment_id, f"{service}.dead")
    told = {name: copy.headers[name] for name in ("x-type", "x-attempt", "x-reason", "x-failed-in")}
    # A retried command returns among the events, so that a queue full of commands cannot keep it out.
    assert told == {
        "x-type": step.on,
        "x-attempt": LEVELS + 1,
        "x-reason": "retries_spent",
        "x-failed-in": f"{service}.events",
    }
    assert "a fault" in copy.headers["x-detail"]
    assert soon(-60) < datetime.fromisoformat(copy.headers["x-first-failed-at"]) < soon(0)
    failed = here.event(pay.payment_id, step.failed)
    assert failed
    assert failed.body["attempts"] == LEVELS + 1


@pytest.mark.parametrize("service", _FAILING)
async def test_a_fault_that_passes_between_the_attempts_costs_only_time(
    here: Visit, house: Theatre, service: str
) -> None:
    """Fail once, deliver again: the effect is there exactly once."""
    (pay,) = await here.paying()
    with trigger(house, service, "INSERT ON saga_step", when=f"NEW.saga_id = '{pay.payment_id}'"):
        await here.send(pay)
        await here.recovers(pay.payment_id, f"{service}.retry.200ms")
    await here.completed(pay)
    assert here.copy(pay.payment_id, f"{service}.dead") is None


@pytest.fixture(params=[step.service for step in saga.SAGA if step.compensation])
def compensating(request: pytest.FixtureRequest, house: Theatre) -> Iterator[str]:
    """A service that has something to undo, and cannot."""
    service = str(request.param)
    with trigger(house, service, "UPDATE ON saga_step", when="NEW.state = 'undone'"):
        yield service


async def test_a_compensation_that_fails_is_never_given_up(here: Visit, house: Theatre, compensating: str) -> None:
    """Giving up would tear the saga: it goes round the slowest level until the fault is gone."""
    pay = here.pay()
    await here.prepare(pay, token=False)
    before = here.belongings(pay)
    await here.send(pay)
    rounds = LEVELS + 3

    def went_round() -> bool:
        ways = [copy.key for copy in here.copies if copy.id == pay.payment_id]
        return ways.count(f"{compensating}.retry.400ms") >= rounds

    await eventually(went_round)
    assert here.states(pay.payment_id)[compensating] == "done"
    assert here.copy(pay.payment_id, f"{compensating}.dead") is None
    assert here.copy(pay.payment_id, f"{compensating}.parked") is None
    _execute(house, compensating, "DROP TRIGGER fault")
    await here.undone(pay, at="queue", reason="unknown_token")
    assert here.belongings(pay) == before
    assert here.events(pay.payment_id).count(str(saga.step_of(compensating).compensation)) == 1


async def test_what_comes_after_the_pivot_is_never_given_up(here: Visit, house: Theatre) -> None:
    """The token is used up: the payment must become complete, however long its database refuses."""
    (pay,) = await here.paying()
    with trigger(house, "payment", "UPDATE ON payment", when=f"NEW.payment_id = '{pay.payment_id}'"):
        await here.send(pay)

        def went_round() -> bool:
            ways = [copy.key for copy in here.copies if copy.id == pay.payment_id]
            return ways.count("payment.retry.400ms") > LEVELS + 1

        await eventually(went_round)
    await here.completed(pay)


async def test_a_notice_is_written_down_however_often_its_database_refuses(here: Visit, house: Theatre) -> None:
    """The last step may not fail: whoever paid is told, late or not."""
    (pay,) = await here.paying()
    with trigger(house, "notify", "INSERT ON notice", when=f"NEW.saga_id = '{pay.payment_id}'"):
        await here.send(pay)

        def went_round() -> bool:
            ways = [copy.key for copy in here.copies if copy.id == pay.payment_id]
            return ways.count("notify.retry.400ms") > LEVELS + 1

        await eventually(went_round)
    await here.completed(pay)


async def test_a_command_whose_retries_are_spent_is_rejected(here: Visit, house: Theatre) -> None:
    """Whoever waits for an answer gets one, and the next command with the id gets the same."""
    command = TopUp(top_up_id=f"{here.mark}-gift", user_id=f"{here.mark}-user", amount=5)
    with trigger(house, "point", "INSERT ON wallet", when=f"NEW.user_id = '{command.user_id}'"):
        (answer,) = await here.ask(command)
    assert (answer.key, answer.body["reason"]) == ("point.rejected", "retries_spent")
    (again,) = await here.ask(command)
    assert again.raw == answer.raw
    assert house.rows("point", "SELECT * FROM wallet WHERE user_id = ?", command.user_id) == []


async def test_a_message_that_crashes_its_handler_dies_alone(here: Visit, house: Theatre) -> None:
    """A bug that one message meets must not cost its neighbours in the batch anything."""
    pays = await here.paying(30)
    killer = pays[17]
    house.faults("point").make(raises=[f"reservation.confirmed:{killer.payment_id}"])
    try:
        await here.send(*pays)
        await here.undone(killer, at="point", reason="retries_spent")
    finally:
        house.faults("point").mend()
    await here.completed(*[pay for pay in pays if pay is not killer])
    dead = await here.recovers(killer.payment_id, "point.dead")
    assert dead.headers["x-detail"] == "RuntimeError: sabotaged by a test"


async def test_a_dead_letter_of_work_that_was_done_undoes_nothing(here: Visit, house: Theatre) -> None:
    """A message may die after its work was committed, and old dead letters may be replayed: harmless both."""
    pay = here.pay(amount=2_000_000)
    good = here.pay()
    await here.prepare(pay, good)
    await here.send(good)
    await here.completed(good)
    # An operator replays a letter: the copy is made with the service's own user, as `saga replay` would.
    body = good.encode().encode()
    headers = {"x-type": "payment.pay", "x-attempt": 3, "x-reason": "retries_spent", "x-detail": "replayed"}
    await here.publish("payment.dead", body, exchange="saga.recovery", headers=headers, user_id=house.broker.user)
    await eventually(lambda: _empty(house, "payment.dead"))
    await here.completed(good)
    assert "payment.failed" not in here.events(good.payment_id)
    await here.send(pay)
    await here.undone(pay, at="payment", reason="over_limit")


async def _empty(house: Theatre, queue: str) -> bool:
    return await depth(house, queue) == 0


async def test_a_failure_of_a_step_that_cannot_fail_is_parked_and_touches_nothing(
    here: Visit, house: Theatre
) -> None:
    """The table lets no notice fail: who says so breaks the protocol, and a person looks, in every service."""
    (pay,) = await here.paying()
    await here.send(pay)
    await here.completed(pay)
    await here.publish("notify.failed", _failure(pay, "notify"))
    for service in saga.SERVICES:
        parked = await here.recovers(pay.payment_id, f"{service}.parked")
        assert parked.headers["x-reason"] == "protocol_broken"
        assert any(pay.payment_id in letter["payload"] for letter in house.peek(f"{service}.parked"))
    await here.completed(pay)


async def test_a_pivot_that_belongs_to_no_payment_is_parked(here: Visit) -> None:
    """Whoever says that a saga happened which this service never began breaks the protocol."""
    pay = here.pay()
    stray = pay.model_dump(mode="json") | {
        "expires_at": "2099-01-01T00:00:00Z",
        "paid_at": "2026-01-01T00:00:00Z",
        "expired_at": "2026-01-01T00:00:00Z",
    }
    # Bound for payment alone: notify would tell the user.
    headers = {"x-type": "queue.expired", "x-attempt": 1, "x-reason": "error", "x-detail": "stray"}
    user = here.theatre.broker.user
    await here.publish(
        "payment.return", json.dumps(stray).encode(), exchange="saga.recovery", headers=headers, user_id=user
    )
    parked = await here.recovers(pay.payment_id, "payment.parked")
    assert parked.headers["x-reason"] == "protocol_broken"
    assert here.states(pay.payment_id)["payment"] is None


def _failure(pay: Pay, service: str) -> bytes:
    what = {"service": service, "reason": "forged", "detail": "forged", "attempts": 1}
    return json.dumps({"payment_id": pay.payment_id, "user_id": pay.user_id} | what).encode()


@pytest.fixture
async def unguarded(house: Theatre) -> AsyncIterator[None]:
    """Whatever a test of killers left, the point service runs and kills nobody afterwards."""
    yield
    house.faults("point").mend()
    house.start("point", sabotaged=True)


@pytest.mark.usefixtures("unguarded")
async def test_neighbours_of_a_message_that_kills_its_process_are_done(here: Visit, house: Theatre) -> None:
    """A process that dies with innocents gets them again: soon they are handled apart from the killer."""
    pays = await here.paying(20)
    killer, *neighbours = pays
    house.faults("point").make(kills=[f"reservation.confirmed:{killer.payment_id}"])
    await here.send(*pays)

    def all_but_one_done() -> bool:
        if "point" not in house.stack.running:
            house.let_the_grace_pass("point")
            house.start("point", sabotaged=True, ready=False)
        return all(here.states(pay.payment_id)["point"] == "done" for pay in neighbours)

    await eventually(all_but_one_done, seconds=60)
    assert here.states(killer.payment_id)["point"] is None
    house.stack.kill("point")
    house.let_the_grace_pass("point")
    house.faults("point").mend()
    house.start("point", sabotaged=True)
    await here.completed(*pays)


@pytest.mark.usefixtures("unguarded")
async def test_a_message_that_the_crash_guard_killed_is_handled_alone_and_dies_only_then(
    here: Visit, house: Theatre
) -> None:
    """The delivery limit counts innocents too: they come back alone and are done; only the killer dies."""
    pays = await here.paying(4)
    killer, *neighbours = pays
    before = here.belongings(killer)
    assert not house.stack.stop("point")
    await here.send(*pays)
    for pay in pays:
        await here.hears(pay.payment_id, "reservation.confirmed")
    await burn_deliveries(house, "point.events", 51, wanted=len(pays))
    for pay in pays:
        await here.recovers(pay.payment_id, "point.dead")
    house.faults("point").make(kills=[f"reservation.confirmed:{killer.payment_id}"])

    def all_but_one_done() -> bool:
        if "point" not in house.stack.running:
            house.let_the_grace_pass("point")
            house.start("point", sabotaged=True, ready=False)
        return all(here.states(pay.payment_id)["point"] == "done" for pay in neighbours)

    await eventually(all_but_one_done, seconds=60)
    retry = await here.recovers(killer.payment_id, "point.retry.200ms")
    assert retry.headers["x-reason"] == "crash_guard"
    await eventually(lambda: "point" not in house.stack.running)
    assert here.states(killer.payment_id)["point"] is None
    deaths = sum(copy.key == "point.dead" and copy.id == killer.payment_id for copy in here.copies)
    assert deaths == 1
    # It is alone now, and kills again and again: the guard strikes a second time.
    with contextlib.suppress(TimeoutError):
        await burn_deliveries(house, "point.events", 51)
    await eventually(
        lambda: sum(copy.key == "point.dead" and copy.id == killer.payment_id for copy in here.copies) == 2
    )
    house.start("point", sabotaged=True)
    await here.undone(killer, at="point", reason="crashed_alone")
    await here.completed(*neighbours)
    assert here.belongings(killer) == before


async def test_a_dead_letter_says_why_where_when_and_how_often(here: Visit, house: Theatre) -> None:
    """Terminal failures are looked at in the management UI: what is in the queue must explain itself."""
    command = Enter(token=f"{here.mark}-token", user_id=f"{here.mark}-user")
    await here.ask(command)
    await here.ask(command.model_copy(update={"user_id": f"{here.mark}-other"}))
    await here.recovers(command.token, "queue.parked")
    letters = [letter for letter in house.peek("queue.parked") if command.token in letter["payload"]]
    assert letters
    headers = letters[0]["properties"]["headers"]
    assert headers["x-type"] == "queue.enter"
    assert headers["x-attempt"] == 1
    assert headers["x-reason"] == "idempotency_conflict"
    assert "other content" in headers["x-detail"]
    assert headers["x-failed-in"] == "queue.commands"
    assert soon(-60) < datetime.fromisoformat(headers["x-first-failed-at"]) < soon(0)
    assert all(isinstance(value, str | int) for value in headers.values())
