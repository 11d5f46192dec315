"""Every cell of the barrier's table, in every service: by its rows, by what it says and by what it did."""

from __future__ import annotations

from itertools import product

import pytest

from common import saga
from common.outbox import OutboxRow
from common.recovery import DONE, Parked
from notify_svc.models import Notice
from payment_svc import settlement
from payment_svc.models import Payment
from point_svc.models import LedgerEntry, Wallet
from queue_svc.models import Token
from reservation_svc.models import Reservation, Seat
from tests.support import bodies
from tests.support.bench import Bench, Opens, dead, enter, failure, forward, hold, settled, top_up

#: state and message -> state, and what is said: {emits}, {failed}, {undone} or nothing. As in ARCHITECTURE.md.
CELLS = {
    ("none", "forward"): ("done", "emits"),
    ("none", "failure"): ("closed", None),
    ("none", "dead"): ("failed", "failed"),
    ("done", "forward"): ("done", "emits"),
    ("done", "failure"): ("undone", "compensation"),
    ("done", "dead"): ("done", None),
    ("done", "settlement"): ("settled", None),
    ("settled", "forward"): ("settled", "emits"),
    ("settled", "failure"): ("settled", None),
    ("settled", "dead"): ("settled", None),
    ("settled", "settlement"): ("settled", None),
    **{(end, "forward"): (end, "failed") for end in ("failed", "undone", "closed")},
    **{(end, "failure"): (end, None) for end in ("failed", "undone", "closed")},
    **{(end, "dead"): (end, None) for end in ("failed", "undone", "closed")},
    **{(end, "settlement"): (end, "parked") for end in ("none", "failed", "undone", "closed")},
}
PAST_THE_PIVOT = {"queue", "notify"}
#: The first service settles by itself, and hears of it from nobody.
TOLD_OF_SETTLEMENT = {"reservation", "point", "queue"}


async def prepare(service: Bench) -> None:
    """Give the service what the payment needs."""
    match service.service.name:
        case "reservation":
            await service.do(hold())
        case "point":
            await service.do(top_up())
        case "queue":
            await service.do(enter())


async def bring_to(service: Bench, state: str) -> None:
    """Bring the saga's row to a state, by messages alone, in a service that has what the payment needs."""
    await prepare(service)
    name = service.service.name
    match state:
        case "done":
            await service.do(forward(name))
        case "undone":
            await service.do(forward(name))
            await service.do(failure())
        case "failed":
            await service.bury(dead(forward(name)))
        case "closed":
            await service.do(failure())
        case "settled":
            await service.do(forward(name))
            await settle(service)
    assert await service.state() == (None if state == "none" else state)
    await service.events()


async def settle(service: Bench) -> None:
    """Tell the service that the saga is complete; the first one has to complete it, and tells itself."""
    if service.service.name != saga.FIRST.service:
        await service.do(settled())
        return
    await service.do(bodies.message(saga.PIVOT.emits, bodies.forward(saga.PIVOT.emits)))
    await service.unit_of_work.run(lambda now, outbox: settlement.settle(["p-1"], now, outbox))


async def effect(service: Bench) -> object:
    """What the service did for the saga, in short."""
    match service.service.name:
        case "payment":
            return [payment.state for payment in await Payment.all()]
        case "reservation":
            seat = await Seat.get(seat="A-1")
            mine = await Reservation.get(reservation_id="r-1")
            return (seat.reservation_id, mine.state, mine.payment_id)
        case "point":
            entries = await LedgerEntry.all().order_by("id")
            return ((await Wallet.get(user_id="ann")).balance, [entry.amount for entry in entries])
        case "queue":
            token = await Token.get(token="t-1")
            return (token.state, token.payment_id)
    return [(notice.kind, notice.state) for notice in await Notice.all()]


async def parked() -> list[str]:
    """The types of what was put before a person."""
    return [row.type for row in await OutboxRow.exclude(parked_because=None)]


#: What is settled is what was done, but for the payment, which is complete.
SETTLED_AS = {"payment": ["COMPLETED"]}
EFFECTS: dict[str, dict[str, object]] = {
    "payment": {"none": [], "done": ["PAID"], "undone": ["CANCELLED"]},
    "reservation": {
        "none": ("r-1", "HELD", None),
        "done": ("r-1", "CONFIRMED", "p-1"),
    },
    "point": {"none": (100, [100]), "done": (70, [100, -30]), "undone": (100, [100, -30, 30])},
    "queue": {"none": ("ACTIVE", None), "done": ("EXPIRED", "p-1")},
    "notify": {"none": [], "done": [("completed", "PENDING")], "closed": [("failed", "PENDING")]},
}


def reachable(service: str, state: str, kind: str) -> bool:
    """Whether the cell exists: nothing is undone from the pivot on, and no notice is ever given up."""
    if state == "undone" and service in PAST_THE_PIVOT:
        return False
    if kind == "settlement" and service not in TOLD_OF_SETTLEMENT:
        return False
    if state == "settled" and service == "notify":
        return False
    return service != "notify" or (state != "failed" and kind != "dead")


@pytest.mark.parametrize(
    ("name", "state", "kind"),
    [
        (service, *cell)
        for service, cell in product(saga.SERVICES, CELLS)
        if reachable(service, *cell)
    ],
)  # fmt: skip
async def test_every_cell_of_the_barrier_does_what_the_table_says(
    opened: Opens, name: str, state: str, kind: str
) -> None:
    """The table is the whole protocol of a service: by its row, by its effect, by its words, and once more."""
    after, word = CELLS[state, kind]
    outcome = [DONE]
    breaks = (name, state, kind) == ("queue", "done", "failure") or (state, kind) == ("settled", "failure")
    if name in PAST_THE_PIVOT and (state, kind) == ("done", "failure"):
        after, word = "done", None
    step = saga.step_of(name)
    says = {"emits": step.emits, "failed": step.failed, "compensation": step.compensation}.get(word or "")
    if name == "notify":
        says = None
    async with opened(name) as service:
        await bring_to(service, state)
        for _ in ("once", "and again in the state it led to, if that is the same"):
            if kind == "dead":
                outcomes = await service.bury(dead(forward(name)))
            else:
                message = {"forward": forward(name), "failure": failure(), "settlement": settled()}[kind]
                outcomes = await service.do(message)
            if breaks:
                assert [type(outcome) for outcome in outcomes] == [Parked]
            else:
                assert outcomes == outcome
            assert await parked() == ([saga.SETTLED] if word == "parked" else [])
            assert await service.said() == ([says] if says else [])
            assert await service.state() == (None if after == "none" else after)
            like = "done" if after == "settled" else after
            expected = EFFECTS[name].get(like, EFFECTS[name]["none"])
            assert await effect(service) == (SETTLED_AS.get(name, expected) if after == "settled" else expected)
            if after != state:
                break


@pytest.mark.parametrize(
    ("name", "end"),
    [
        (service, end)
        for service in ("payment", "reservation", "point", "queue")
        for end in ("failed", "undone", "closed")
        if reachable(service, end, "forward")
    ],
)
async def test_whoever_asks_a_saga_that_is_over_learns_the_true_cause(opened: Opens, name: str, end: str) -> None:
    """The reason travels with the answer, whichever service gives it."""
    async with opened(name) as service:
        await bring_to(service, end)
        await service.do(forward(name))
        ((type_, body),) = await service.events()
        assert type_ == f"{name}.failed"
        told = (body["service"], body["reason"], body["attempts"], body["payment_id"], body["user_id"])
        own = (name, "retries_spent", 5, "p-1", "ann")
        assert told == (own if end == "failed" else ("queue", "unknown_token", 1, "p-1", "ann"))


@pytest.mark.parametrize("name", ["payment", "reservation", "point", "queue"])
async def test_a_repeated_message_is_given_the_same_answer_word_by_word(opened: Opens, name: str) -> None:
    """What a service said once it must be able to say for as long as the saga may be repeated."""
    async with opened(name) as service:
        await bring_to(service, "none")
        await service.do(forward(name, expires_at="2099-01-01T00:00:00Z"))
        first = await service.events()
        await service.do(forward(name, expires_at="2099-01-01T00:00:00Z"))
        assert await service.events() == first
        assert len(first) == 1
