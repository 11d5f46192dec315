"""How the saga of a letter stands: the databases tell it, and the history where they cannot be asked."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from common import saga
from common.history import Became, Entry, Record
from ops import where
from ops.letters import standing
from ops.letters.letter import Kind, Letter, Properties, read
from ops.letters.standing import ANSWERED, UNKNOWN, Standing
from ops.output import CannotLookError
from tests.support.bodies import forward, hold, valid
from tests.support.written import OPEN, PRICE, WHOLE, story, write

AT = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
TRACE = f"00-{'a' * 32}-{'b' * 16}-01"


def letter(service: str, type_: str, body: object = None) -> Letter:
    """A parked letter."""
    content = json.dumps(valid(type_) if body is None else body).encode()
    return read(Kind.PARKED, service, content, Properties(), {"x-type": type_})


def of(service: str, payment_id: str) -> Letter:
    """The letter on which a service does its part for a payment."""
    type_ = saga.step_of(service).on
    return letter(service, type_, forward(type_, payment_id))


@pytest.fixture(scope="module")
def databases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the services' own handlers wrote: a payment for each ending, and one that waits for its points."""
    home = tmp_path_factory.mktemp("books")
    urls = {service: f"sqlite://{home / service}.sqlite3" for service in saga.SERVICES}
    asyncio.run(write(urls))
    return urls


async def test_the_databases_tell_the_state_in_the_letters_own_service(databases: dict[str, str]) -> None:
    """What is done in one service may be missing in the next: that is just where the letter lies."""

    async def states(payment_id: str) -> list[str]:
        found = await standing.of_databases([of(service, payment_id) for service in saga.SERVICES], databases)
        assert all(it.source == "databases" for it in found)
        return [it.state for it in found]

    assert await states(WHOLE) == ["done"] * 5
    assert await states("p-point") == ["undone", "undone", "failed", "closed", "closed"]
    assert await states(OPEN) == ["done", "done", "", "", ""]
    assert await states("p-never") == [""] * 5


async def test_the_databases_tell_what_can_no_longer_fail(databases: dict[str, str]) -> None:
    """Wherever the failure lies, it is the pivot that says so."""
    whole, undone, open_ = await standing.of_databases(
        [letter("point", "queue.failed", {"payment_id": it}) for it in (WHOLE, "p-queue", OPEN)], databases
    )
    assert (whole.past_pivot, whole.completed) == (True, True)
    assert (undone.past_pivot, undone.completed) == (False, False)
    assert (open_.past_pivot, open_.completed) == (False, False)


async def test_two_letters_of_one_saga_are_told_apart_by_their_content(databases: dict[str, str]) -> None:
    """The second is a conflict, the first is not; neither may be taken for the other."""
    pay = next(body for body in story() if body.key == WHOLE)
    same = letter("payment", saga.FIRST.on, json.loads(pay.encode()))
    other = letter("payment", saga.FIRST.on, json.loads(pay.encode()) | {"amount": PRICE + 1})
    for letters in ([same, other], [other, same]):
        found = await standing.of_databases(letters, databases)
        assert [it.is_other for it in found] == [it is other for it in letters]
        assert [it.state for it in found] == ["done", "done"]


async def test_a_command_beside_the_saga_is_looked_up_under_its_own_id(databases: dict[str, str]) -> None:
    """A command and a saga may bear the same id, and have nothing to do with one another."""
    held = next(body for body in story() if body.key == "r-whole")
    found = await standing.of_databases(
        [
            letter("reservation", "reservation.hold", json.loads(held.encode())),
            letter("reservation", "reservation.hold", hold("r-whole", seat="other")),
            letter("reservation", "reservation.hold", hold(WHOLE)),
            letter("reservation", "reservation.hold", {}),
        ],
        databases,
    )
    assert found == [
        Standing("databases", ANSWERED),
        Standing("databases", ANSWERED, is_other=True),
        Standing("databases"),
        UNKNOWN,
    ]


async def test_many_letters_are_asked_about_in_several_statements(databases: dict[str, str]) -> None:
    """A database takes no statement of any length."""
    many = [of("payment", f"p-{number}") for number in range(2500)]
    found = await standing.of_databases([*many, of("payment", WHOLE)], databases)
    assert [it.state for it in found] == [""] * 2500 + ["done"]


async def test_a_database_that_is_not_there_is_no_answer(databases: dict[str, str], tmp_path: Path) -> None:
    """Silence is not `has not heard of it`: on that, a letter could be thrown away."""
    with pytest.raises(CannotLookError):
        await standing.of_databases([of("point", OPEN)], databases | {"point": f"sqlite://{tmp_path}/none"})


def test_the_databases_of_another_broker_are_not_asked() -> None:
    """What a demonstration left on this machine knows another `p-1` than the broker that is named."""
    named = {f"DATABASE_URL_{service.upper()}": f"sqlite:///{service}" for service in saga.SERVICES}
    assert set(where.databases_of_the_broker({})) == set(saga.SERVICES)
    assert where.databases_of_the_broker(named | {"RABBITMQ_URL": "amqp://far"})["point"] == "sqlite:///point"
    for known in ({}, {name: url for name, url in named.items() if "POINT" not in name}):
        with pytest.raises(CannotLookError, match="RABBITMQ_URL"):
            where.databases_of_the_broker(known | {"RABBITMQ_URL": "amqp://far"})


def entry(saga: str, type_: str, deed: str = "", **facts: Any) -> Entry:  # noqa: ANN401 - an entry's other fields
    """What a service told."""
    return Entry(saga=saga, type=type_, deed=deed, **facts)


def told(*entries: tuple[str, Entry]) -> list[Record]:
    """A history."""
    return [Record(service=service, replica="r", at=AT, took_ms=1, entries=[entry]) for service, entry in entries]


def known(it: Letter, *entries: tuple[str, Entry]) -> Standing:
    """What the history says of a letter's saga."""
    (found,) = standing.of_history([it], told(*entries))
    return found


PAID = letter("reservation", "payment.paid")
DID = ("reservation", entry("p-1", "payment.paid", "did"))
ELSEWHERE = ("payment", entry("p-1", "payment.pay", "did"))


def test_the_history_tells_how_a_saga_stands_in_a_service() -> None:
    """Where no database can be asked, it is what an operator has."""
    assert known(PAID) is UNKNOWN
    assert known(PAID, ("payment", entry("p-2", "payment.pay", "did"))) is UNKNOWN
    stands = {
        "": known(PAID, ELSEWHERE),
        "done": known(PAID, ELSEWHERE, DID),
        "undone": known(PAID, DID, ("reservation", entry("p-1", "point.failed", "undid"))),
        "closed": known(PAID, ("reservation", entry("p-1", "payment.failed", "closed"))),
        "failed": known(PAID, ("reservation", entry("p-1", "payment.paid", "failed"))),
    }
    assert {state: it.state for state, it in stands.items()} == {state: state for state in stands}


def test_the_order_in_which_two_replicas_tell_does_not_matter() -> None:
    """The history is not in order; a row only ever goes from done to its end."""
    undid = ("reservation", entry("p-1", "point.failed", "undid"))
    assert known(PAID, undid, DID) == known(PAID, DID, undid) == Standing("history", "undone")


def test_a_repeated_answer_tells_what_it_was() -> None:
    """Where the first entry is lost, the repetition shows whether the part was done, or the saga over."""
    done = entry("p-1", "payment.paid", "repeated", said=(("reservation.confirmed", TRACE),))
    over = entry("p-1", "payment.paid", "repeated", said=(("reservation.failed", TRACE),))
    assert known(PAID, ("reservation", done)) == Standing("history", "done")
    assert known(PAID, ("reservation", over)) == Standing("history", "closed")


def test_the_history_tells_that_the_pivot_is_past_and_the_payment_completed() -> None:
    """Whoever replays a failure then would tear a saga, wherever the letter lies."""
    it = letter("point", "queue.failed")
    pivot = ("queue", entry("p-1", "point.deducted", "did", said=(("queue.expired", TRACE),)))
    completed = ("payment", entry("p-1", "queue.expired", "did", said=(("payment.completed", TRACE),)))
    assert known(it, pivot) == Standing("history", past_pivot=True)
    assert known(it, completed) == Standing("history", past_pivot=True, completed=True)


def test_a_conflict_in_the_history_says_that_there_was_a_first_one() -> None:
    """Only content that differs from what was done before is a conflict."""
    conflict = entry("p-1", "payment.pay", became=Became.PARKED, reason="idempotency_conflict")
    assert known(of("payment", "p-1"), ("payment", conflict)) == Standing("history", "done")


def test_a_retry_is_no_deed() -> None:
    """What was tried and failed is not done."""
    tried = entry("p-1", "payment.paid", became=Became.RETRY, reason="error")
    assert known(PAID, ("reservation", tried)) == Standing("history")


def test_a_command_beside_the_saga_is_answered_once() -> None:
    """Its id is a key of its own: a saga of the same name says nothing about it."""
    it = letter("reservation", "reservation.hold", hold("p-1"))
    assert known(it, DID) is UNKNOWN
    tried = entry("p-1", "reservation.hold", became=Became.RETRY, reason="error")
    assert known(it, ("reservation", tried)) == Standing("history")
    answered = ("reservation", entry("p-1", "reservation.hold", "answered"))
    assert known(it, answered) == Standing("history", ANSWERED)
    assert known(PAID, answered) is UNKNOWN


def test_what_others_write_into_the_history_is_no_deed() -> None:
    """An operator's act is told there, too, and so is whatever a stranger writes."""
    assert known(PAID, ("operator", entry("p-1", "payment.paid", "did"))) is UNKNOWN
    assert known(PAID, ("nobody", entry("p-1", "payment.paid", "did"))) is UNKNOWN
