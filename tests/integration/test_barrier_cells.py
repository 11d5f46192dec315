"""Every cell of the barrier's table, in every service: by its rows, by what it says and by what it did."""

from __future__ import annotations

from itertools import product

import pytest

from common import saga
from common.recovery import DONE, Parked
from notify_svc.models import Notice
from payment_svc.models import Payment
from point_svc.models import LedgerEntry, Wallet
from queue_svc.models import Token
from reservation_svc.models import Reservation, Seat
from tests.support.bench import Bench, Opens, dead, enter, failure, forward, hold, top_up

#: state and message -> state, and what is said: {emits}, {failed}, {undone} or nothing. As in ARCHITECTURE.md.
CELLS = {
    ("none", "forward"): ("done", "emits"),
    ("none", "failure"): ("closed", None),
    ("none", "dead"): ("failed", "failed"),
    ("done", "forward"): ("done", "emits"),
    ("done", "failure"): ("undone", "compensation"),
    ("done", "dead"): ("done", None),
    **{(end, "forward"): (end, "failed") for end in ("failed", "undone", "closed")},
    **{(end, "failure"): (end, None) for end in ("failed", "undone", "closed")},
    **{(end, "dead"): (end, None) for end in ("failed", "undone", "closed")},
}
PAST_THE_PIVOT = {"queue", "notify"}


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
    assert await service.state() == (None if state == "none" else state)
    await service.events()


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
    if name in PAST_THE_PIVOT and (state, kind) == ("done", "failure"):
        after, word = "done", None
    step = saga.step_of(name)
    says = {"emits": step.emits, "failed": step.failed, "compensation": step.compensation, None: None}[word]
    if name == "notify":
        says = None
    async with opened(name) as service:
        await bring_to(service, state)
        for _ in ("once", "and again in the state it led to, if that is the same"):
            if kind == "dead":
                outcomes = await service.bury(dead(forward(name)))
            else:
                outcomes = await service.do(forward(name) if kind == "forward" else failure())
            if (name, state, kind) == ("queue", "done", "failure"):
                assert [type(outcome) for outcome in outcomes] == [Parked]
            else:
                assert outcomes == outcome
            assert await service.said() == ([says] if says else [])
            assert await service.state() == after
            assert await effect(service) == EFFECTS[name].get(after, EFFECTS[name]["none"])
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
