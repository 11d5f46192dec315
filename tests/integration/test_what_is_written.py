"""What a batch leaves in the tables, and in which order it writes them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from tortoise import connections

from common.barrier import SagaStep
from payment_svc.models import Payment
from point_svc.models import LedgerEntry
from tests.support.bench import Bench, dead, enter, failure, forward, hold, top_up

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


async def in_order(table: str, key: str) -> list[str]:
    """The keys of a SQLite table in the order in which its rows were written."""
    rows = await connections.get("default").execute_query_dict(f'SELECT "{key}" FROM "{table}" ORDER BY rowid')
    return [row[key] for row in rows]


@pytest.mark.sqlite_only
async def test_sagas_are_written_in_the_order_of_their_keys(payment: Bench) -> None:
    """Two replicas that write the same sagas from two batches meet at the first, and never wait crosswise."""
    await payment.do(forward("payment", "p-2"), failure("p-3"), forward("payment", "p-1"))
    assert await in_order("saga_step", "saga_id") == ["p-1", "p-2", "p-3"]


@pytest.mark.sqlite_only
async def test_commands_are_written_in_the_order_of_their_keys(queue: Bench) -> None:
    """As above, for what is no saga."""
    await queue.do(enter("t-2"), enter("t-3"), enter("t-1"))
    assert await in_order("command_record", "command_id") == ["t-1", "t-2", "t-3"]
    assert await in_order("token", "token") == ["t-1", "t-2", "t-3"]


@pytest.mark.sqlite_only
async def test_seats_are_written_in_the_order_of_their_names(reservation: Bench) -> None:
    """As above: of two batches that hold the same seats, the second waits, and is done again."""
    holds = (hold("r-1", seat="B"), hold("r-2", seat="C"), hold("r-0", seat="A"))
    await reservation.do(*holds)
    assert await in_order("seat", "seat") == ["A", "B", "C"]
    assert await in_order("reservation", "reservation_id") == ["r-0", "r-1", "r-2"]


@pytest.mark.sqlite_only
async def test_wallets_are_written_in_the_order_of_their_owners(point: Bench) -> None:
    """As above, for the first top-ups of several users."""
    await point.do(*(top_up(f"u-{user}", user_id=user) for user in ("bob", "eve", "ann")))
    assert await in_order("wallet", "user_id") == ["ann", "bob", "eve"]


async def test_a_sagas_row_tells_when_it_began_and_when_it_ended(payment: Bench) -> None:
    """Which sagas are stuck is told by these times alone."""
    await payment.do(forward("payment"))
    row = await SagaStep.get(saga_id="p-1")
    assert row.created_at == row.changed_at
    await SagaStep.all().update(created_at=LONG_AGO, changed_at=LONG_AGO)
    before = datetime.now(UTC)
    await payment.do(failure())
    row = await SagaStep.get(saga_id="p-1")
    assert row.created_at == LONG_AGO
    assert before - timedelta(seconds=1) < row.changed_at <= datetime.now(UTC)


async def test_a_service_that_says_nothing_keeps_no_answer(notify: Bench) -> None:
    """A notice is no answer: whoever repeats a message to this service is told nothing, now or later."""
    await notify.do(forward("notify"), failure("p-2"))
    rows = {row.saga_id: row for row in await SagaStep.all()}
    assert (rows["p-1"].state, rows["p-1"].answer_type, rows["p-1"].answer) == ("done", "", "")
    assert (rows["p-2"].state, rows["p-2"].answer_type) == ("closed", "")


async def test_a_payments_row_tells_all_that_its_command_did(payment: Bench) -> None:
    """It is kept for ever, when all messages are long gone."""
    await payment.do(forward("payment", user_id="eve", reservation_id="r-7", token="t-7", amount=7))
    row = await Payment.get(payment_id="p-1")
    assert (row.user_id, row.reservation_id, row.token, row.amount) == ("eve", "r-7", "t-7", 7)
    assert row.settled_at is None
    ((_, said),) = await payment.events()
    assert datetime.fromisoformat(said["paid_at"]) == row.paid_at
    assert datetime.fromisoformat(said["expires_at"]) == row.expires_at == row.paid_at + timedelta(minutes=10)


@pytest.mark.parametrize(("end", "word"), [("completed", "completed_at"), ("cancelled", "cancelled_at")])
async def test_a_settled_payment_tells_when(payment: Bench, end: str, word: str) -> None:
    """In its row and in its event alike."""
    await payment.do(forward("payment", user_id="eve", amount=7))
    await payment.events()
    await payment.do(forward("notify") if end == "completed" else failure())
    row = await Payment.get(payment_id="p-1")
    assert row.settled_at is not None
    ((type_, said),) = await payment.events()
    assert (type_, said["user_id"], said["amount"]) == (f"payment.{end}", "eve", 7)
    assert datetime.fromisoformat(said[word]) == row.settled_at


async def test_the_ledger_tells_what_each_entry_was_for(point: Bench) -> None:
    """A balance that somebody doubts is explained by its entries."""
    await point.do(top_up(amount=50), forward("point", amount=20), failure())
    entries = await LedgerEntry.all().order_by("id")
    told = [(entry.kind, entry.saga_id, entry.user_id, entry.amount) for entry in entries]
    assert told == [
        ("top_up", "u-1", "ann", 50),
        ("deduction", "p-1", "ann", -20),
        ("restoration", "p-1", "ann", 20),
    ]
    assert len({entry.created_at for entry in entries}) == 1


async def test_an_answer_tells_what_was_asked_for(reservation: Bench) -> None:
    """Whoever sent several commands tells their answers apart by their content."""
    await reservation.do(hold("r-5", user_id="eve", seat="Z-9", price=11))
    ((type_, held),) = await reservation.events()
    assert (type_, held["reservation_id"], held["user_id"], held["seat"], held["price"]) == (
        "reservation.held",
        *("r-5", "eve", "Z-9", 11),
    )
    await reservation.bury(dead(hold("r-6")))
    ((type_, rejected),) = await reservation.events()
    assert (type_, rejected["id"], rejected["reason"]) == ("reservation.rejected", "r-6", "retries_spent")
    assert rejected["detail"] == "it did not work"
