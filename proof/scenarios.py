"""What is searched: what the services own at first, the commands on their way, and what may go wrong."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

from common import saga
from common.messages import Enter, Hold, Pay, TopUp
from proof.laboratory import DEADLINE, TOO_LATE


@dataclass(frozen=True, slots=True)
class Scenario:
    """Where a search begins, and what may happen on the way.

    `ahead`: so many messages of the first payment are handled before the search begins. `beside`: other commands
    that are on their way together with the payments. `troubled`: the services whose messages may be repeated and
    may die. `replicas`: the services that have two of them; `slow`: how many transactions may stand still at a
    time; `batches`: whether two messages may be done in one transaction. `repair`: whether payment settles and the
    janitors offer again what is open; then `losses` messages may get lost, and every saga must still settle.
    """

    name: str
    commands: tuple[Pay, ...]
    setup: tuple[Hold | TopUp | Enter, ...]
    duplicates: int
    deaths: bool = True
    deadline: bool = True
    may_park: bool = False
    ahead: int = 0
    beside: tuple[Hold | TopUp | Enter, ...] = ()
    troubled: tuple[str, ...] = saga.SERVICES
    replicas: tuple[str, ...] = ()
    slow: int = 1
    batches: bool = False
    repair: bool = False
    losses: int = 0


def pay(name: str = "p", **changed: object) -> Pay:
    """A payment by ann for the reservation `r` with the token `t`, but for what is changed."""
    fields: dict[str, object] = {
        "payment_id": name,
        "user_id": "ann",
        "reservation_id": "r",
        "token": "t",
        "amount": 300,
        "expires_at": DEADLINE,
    }
    return Pay.model_validate(fields | changed)


def owned(*, points: int = 1000, reservations: int = 1, tokens: int = 1) -> tuple[Hold | TopUp | Enter, ...]:
    """Seats held, points and tokens for ann: `r`, `r2` ... and `t`, `t2` ..."""
    names = ["", *(str(number) for number in range(2, 10))]
    until = TOO_LATE + timedelta(hours=1)
    return (
        *(
            Hold(reservation_id=f"r{n}", user_id="ann", seat=f"s{n}", price=300, held_until=until)
            for n in names[:reservations]
        ),
        TopUp(top_up_id="top", user_id="ann", amount=points),
        *(Enter(token=f"t{n}", user_id="ann") for n in names[:tokens]),
    )


def scenarios(*, duplicates: int, two_sagas: bool) -> tuple[Scenario, ...]:
    """What `make explore` searches: one saga refused nowhere or at each step, then two that want the same."""
    one = (
        Scenario("nothing in the way", (pay(),), owned(), duplicates),
        Scenario("refused by payment", (pay(amount=2000),), owned(), duplicates),
        Scenario("refused by reservation", (pay(amount=299),), owned(), duplicates),
        Scenario("refused by point", (pay(),), owned(points=299), duplicates),
        Scenario("refused by queue", (pay(token="nobody"),), owned(), duplicates),
        Scenario(
            "the same id with other content",
            (pay(), pay(amount=299)),
            owned(),
            max(0, duplicates - 1),
            may_park=True,
        ),
    )
    if not two_sagas:
        return one
    return (
        *one,
        Scenario(
            "two sagas, one wallet",
            (pay("p"), pay("q", reservation_id="r2", token="t2")),
            owned(points=500, reservations=2, tokens=2),
            0,
            deadline=False,
        ),
        Scenario("two sagas, one seat", (pay("p"), pay("q", token="t2")), owned(tokens=2), 0, deadline=False),
        Scenario(
            "two sagas, one token",
            (pay("p"), pay("q", reservation_id="r2")),
            owned(reservations=2),
            0,
            deadline=False,
        ),
    )


def repaired(*, duplicates: int, losses: int) -> tuple[Scenario, ...]:
    """One saga, with messages that get lost, and with settlement and janitors to mend it."""
    return tuple(
        replace(scenario, name=f"{scenario.name}, repaired", repair=True, losses=losses)
        for scenario in scenarios(duplicates=duplicates, two_sagas=False)
    )
