"""Rows by the batch, on either vendor: one statement finds them, one writes whatever a unit of work notes down."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from common import db, rows
from common.barrier import SagaStep
from common.db import Fault, LostRaceError
from common.outbox import OutboxRow
from common.rows import Writes
from point_svc.models import LedgerEntry, Wallet

NOW = datetime(2026, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)

pytestmark = pytest.mark.usefixtures("point")


@dataclass
class Step:
    """A saga's row as the barrier writes it; `was` is what the database said."""

    saga_id: str
    state: str = "done"
    fingerprint: str | None = None
    answer_type: str = "point.deducted"
    answer: str = '{"a": "\\u2028 한 ¥ \\n"}'
    created_at: datetime = NOW
    changed_at: datetime = NOW
    was: str | None = None


async def written(writes: Writes) -> None:
    """Write in a unit of its own."""
    async with db.unit():
        await writes.flush()


async def steps(*states: tuple[str, str]) -> None:
    """Put these sagas into the table."""
    writes = Writes()
    writes.insert(SagaStep, [Step(saga_id, state) for saga_id, state in states])
    await written(writes)


async def test_what_is_inserted_is_found_again_as_it_was() -> None:
    """Texts of any script, nothing, and a time to the microsecond."""
    (row,) = [Step("p-1", fingerprint=None)]
    writes = Writes()
    writes.insert(SagaStep, [row])
    await written(writes)
    (found,) = await rows.find(SagaStep, ["p-1", "p-2"])
    for name in ("saga_id", "state", "fingerprint", "answer_type", "answer", "created_at", "changed_at"):
        assert getattr(found, name) == getattr(row, name), name


async def test_rows_are_found_in_the_order_of_their_key_whatever_was_asked() -> None:
    """Locks are taken in that order, so two batches never wait for each other in a ring."""
    await steps(*((f"p-{number:04}", "done") for number in range(1500)))
    wanted = [f"p-{number:04}" for number in range(2000)]
    found = await rows.find(SagaStep, [*reversed(wanted), "p-0001", "P-0001", "p-0001 "])
    assert [row.saga_id for row in found] == wanted[:1500]
    async with db.transaction():
        assert [row.saga_id for row in await rows.find(SagaStep, {"p-0002", "p-0001"}, lock=True)] == [
            "p-0001",
            "p-0002",
        ]


async def test_nothing_is_asked_and_nothing_is_written_for_nothing() -> None:
    """A batch of refusals touches no table."""
    writes = Writes()
    writes.insert(SagaStep, [])
    writes.update(SagaStep, [], "state")
    writes.delete(OutboxRow, [])
    await writes.flush()
    assert await rows.find(SagaStep, []) == []


async def test_one_unit_inserts_updates_and_deletes_in_several_tables_at_once() -> None:
    """Business, barrier and outbox: all of it or nothing."""
    await steps(("p-1", "done"), ("p-2", "done"))
    await Wallet.create(user_id="ann", balance=5)
    gone = await OutboxRow.create(
        id=uuid.uuid4(), key="p-1", type="t", body="{}", traceparent="x", staged_at=NOW, due_at=NOW
    )
    writes = Writes()
    writes.insert(SagaStep, [Step("p-3")])
    writes.insert(Wallet, [rows.new(Wallet, user_id="bob", balance=7)])
    writes.insert(SagaStep, [Step("p-4")])
    writes.update(Wallet, [rows.new(Wallet, user_id="ann", balance=6)], "balance")
    writes.update(SagaStep, [Step("p-1", "undone", was="done")], "state", "answer", only_if="was")
    writes.delete(OutboxRow, [gone.id, uuid.uuid4()])
    entry = rows.new(LedgerEntry, saga_id="p-1", kind="deduction", user_id="ann", amount=-1, created_at=NOW)
    writes.insert(LedgerEntry, [entry])
    await written(writes)
    assert {(row.saga_id, row.state) for row in await SagaStep.all()} == {
        ("p-1", "undone"),
        ("p-2", "done"),
        ("p-3", "done"),
        ("p-4", "done"),
    }
    assert {(wallet.user_id, wallet.balance) for wallet in await Wallet.all()} == {("ann", 6), ("bob", 7)}
    assert await OutboxRow.all().count() == 0
    assert await LedgerEntry.all().count() == 1
    await writes.flush()  # what was written is not written again
    assert await LedgerEntry.all().count() == 1


@pytest.mark.parametrize("row", [Step("p-1", "undone", was="closed"), Step("p-9", "undone", was="done")])
async def test_a_row_that_is_no_longer_so_or_no_longer_there_undoes_the_unit(row: Step) -> None:
    """Compare and set: somebody else was first, and nothing of this unit may stay."""
    await steps(("p-1", "done"), ("p-2", "done"))
    writes = Writes()
    writes.insert(SagaStep, [Step("p-3")])
    writes.update(SagaStep, [Step("p-2", "undone", was="done"), row], "state", only_if="was")
    with pytest.raises(LostRaceError, match="saga_step"):
        await written(writes)
    assert {row.state for row in await SagaStep.all()} == {"done"}
    assert await SagaStep.all().count() == 2


async def test_a_row_that_exists_already_is_a_lost_race() -> None:
    """Of two replicas that insert the same saga only one can win."""
    await steps(("p-1", "done"))
    writes = Writes()
    writes.insert(SagaStep, [Step("p-0"), Step("p-1", "closed")])
    with pytest.raises(Exception) as caught:  # noqa: PT011 - each vendor in its own words
        await written(writes)
    assert db.classify(caught.value) is Fault.RACE
    assert await SagaStep.all().count() == 1


async def test_a_text_too_long_for_its_column_is_refused_and_never_cut() -> None:
    """A cast to a shorter type would cut it without a word."""
    writes = Writes()
    writes.insert(SagaStep, [Step("p" * 65)])
    with pytest.raises(Exception) as caught:  # noqa: PT011 - each vendor in its own words
        await written(writes)
    assert db.classify(caught.value) is Fault.DATA
    assert await SagaStep.all().count() == 0


@pytest.mark.postgres_only
async def test_a_batch_of_any_size_is_the_same_statement() -> None:
    """So PostgreSQL parses and plans it once, and not for each size of a batch."""
    texts = set()
    for size in (1, 2, 50):
        writes = Writes()
        writes.insert(SagaStep, [Step(f"p-{size}-{number}") for number in range(size)])
        async with db.transaction() as transaction:
            await writes.flush()
            told = await transaction.execute_query_dict(
                "SELECT statement FROM pg_prepared_statements WHERE statement LIKE 'WITH w0 %'"
            )
            texts |= {row["statement"] for row in told}
    assert len(texts) == 1


@pytest.mark.postgres_only
async def test_a_large_table_is_never_read_as_a_whole() -> None:
    """Not even with a plan that was made while it was empty."""
    for _ in range(8):
        await rows.find(SagaStep, ["p-1"])
    async with db.transaction() as connection:
        told = await connection.execute_query_dict(
            'EXPLAIN SELECT * FROM "saga_step" WHERE "saga_id" = ANY($1::text[])', [["p-1"]]
        )
    assert "Seq Scan" not in " ".join(row["QUERY PLAN"] for row in told)
