"""What a batch reads, however many tables it is of: one statement, the right rows, and never a whole table."""

from __future__ import annotations

import pytest
from tortoise import connections

from common import reads, rows
from common.barrier import CommandRecord, SagaStep
from common.reads import Question, Reads
from reservation_svc.models import Reservation, Seat
from tests.support.bench import Bench, forward, hold

#: All that the reservation service asks about a batch: of payments, of holds, and of both.
QUESTIONS = (
    Question(Seat),
    Question(Seat, Reservation, "seat"),
    Question(Reservation),
    Question(Reservation, Seat, "reservation_id"),
    Question(SagaStep),
    Question(CommandRecord),
)


async def test_each_question_gets_its_own_rows(reservation: Bench) -> None:
    """As they are in the table, with times and NULLs, whether asked alone or with others."""
    await reservation.do(hold("r-1", seat="A"), hold("r-2", seat="B"), hold("r-3", seat="C"))
    await reservation.do(forward("reservation", "p-1", reservation_id="r-1"))
    await Seat.create(seat="free", reservation_id=None)
    asked = Reads()
    seats = asked.find(Seat, ["A", "free", "nowhere"])
    named = asked.find_through(Reservation, "seat", Seat, ["r-2", "r-9"])
    nobody = asked.find(Seat, [])
    reservations = asked.find(Reservation, ["r-1", "r-2"])
    holders = asked.find_through(Seat, "reservation_id", Reservation, ["free", "C"])
    steps = asked.find(SagaStep, {"p-1", "p-2"})
    assert seats == named == reservations == [], "nothing is read before it is fetched"
    await asked.fetch()
    assert {seat.seat: seat.reservation_id for seat in seats} == {"A": "r-1", "free": None}
    assert [seat.seat for seat in named] == ["B"]
    assert nobody == []
    assert [holder.reservation_id for holder in holders] == ["r-3"]
    told = {row.reservation_id: (row.state, row.payment_id, row.held_until) for row in reservations}
    found = await rows.find(Reservation, ["r-1", "r-2"])
    assert told == {row.reservation_id: (row.state, row.payment_id, row.held_until) for row in found}
    assert told["r-1"][:2] == ("CONFIRMED", "p-1")
    assert [(step.saga_id, step.state) for step in steps] == [("p-1", "done")]
    await asked.fetch()
    assert len(seats) == 2, "what was fetched is not fetched again"


async def test_one_question_alone_is_asked_as_ever(reservation: Bench) -> None:
    """A batch of failures asks only for its sagas."""
    await reservation.do(hold("r-1", seat="A"))
    asked = Reads()
    seats = asked.find(Seat, ["A"])
    await asked.fetch()
    assert [seat.seat for seat in seats] == ["A"]


@pytest.mark.postgres_only
async def test_no_question_is_answered_by_reading_a_whole_table(reservation: Bench) -> None:
    """The plan is kept, and one made while a table was empty must serve when it holds a million rows."""
    assert await Seat.all().count() == 0
    async with connections.get("default").acquire_connection() as connection:
        await connection.execute("SET plan_cache_mode = force_generic_plan")
        await connection.execute(f"PREPARE asked AS {reads._postgres_select(QUESTIONS)}")
        keys = ", ".join(["ARRAY['x']"] * len(QUESTIONS))
        plan = "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN EXECUTE asked({keys})"))
        await connection.execute("DEALLOCATE asked")
        await connection.execute("RESET plan_cache_mode")
    scans = [line for line in plan.splitlines() if " on " in line or "Cond" in line]
    assert "Seq Scan" not in plan, plan
    assert plan.count("Index Cond") == sum("Index Scan" in line for line in scans), plan
    assert reservation.service.name == "reservation"
