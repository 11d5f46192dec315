"""What is searched with two replicas of a service: small searches that look at one race each, and large ones."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from common import saga
from common.messages import Hold, TopUp
from proof.laboratory import DEADLINE, TOO_LATE
from proof.scenarios import Scenario, owned, pay, scenarios

_LATER = TOO_LATE + timedelta(hours=1)


def _hold(name: str, held_until: datetime = _LATER) -> Hold:
    return Hold(reservation_id=name, user_id="ann", seat="s", price=300, held_until=held_until)


def races() -> tuple[Scenario, ...]:
    """One race each: every message of one service twice, or two sagas that want the same thing of it."""
    one = tuple(
        Scenario(
            f"{service} twice",
            (pay(),),
            owned(),
            1,
            troubled=(service,),
            replicas=(service,),
            slow=2,
            batches=True,
        )
        for service in saga.SERVICES
    )
    undone = tuple(
        replace(scenario, name=f"{scenario.name}, undone", commands=(pay(token="nobody"),), ahead=3)
        for scenario in one[:3]
    )
    return (
        *one,
        *undone,
        Scenario(
            "one wallet",
            (pay("p"), pay("q", reservation_id="r2", token="t2")),
            owned(points=500, reservations=2, tokens=2),
            0,
            deaths=False,
            deadline=False,
            ahead=2,
            replicas=("point",),
            batches=True,
        ),
        Scenario(
            "one seat",
            (pay("p"), pay("q", token="t2")),
            owned(tokens=2),
            0,
            deaths=False,
            deadline=False,
            ahead=1,
            replicas=("reservation",),
            batches=True,
        ),
        Scenario(
            "one token",
            (pay("p"), pay("q", reservation_id="r2")),
            owned(reservations=2),
            0,
            deaths=False,
            deadline=False,
            ahead=3,
            replicas=("queue",),
            batches=True,
        ),
        Scenario(
            "a seat undone by one, taken by another",
            (pay("p", token="nobody"), pay("q")),
            owned(),
            1,
            deaths=False,
            deadline=False,
            ahead=6,
            troubled=("reservation",),
            replicas=("reservation",),
        ),
        Scenario(
            "a seat held while it is paid for",
            (pay(),),
            owned(reservations=0),
            0,
            deaths=False,
            deadline=False,
            beside=(_hold("r"),),
            replicas=("reservation",),
        ),
        Scenario(
            "a seat given away while it is paid for",
            (pay(),),
            (_hold("r", DEADLINE), *owned(reservations=0)),
            1,
            deaths=False,
            ahead=1,
            beside=(_hold("r2"),),
            troubled=("reservation",),
            replicas=("reservation",),
        ),
        Scenario(
            "a wallet opened twice",
            (),
            (),
            1,
            deadline=False,
            beside=tuple(TopUp(top_up_id=name, user_id="ann", amount=300) for name in ("one", "two")),
            replicas=("point",),
            batches=True,
        ),
        Scenario(
            "a seat held twice",
            (),
            (),
            1,
            deadline=False,
            beside=(_hold("r"), _hold("r2")),
            replicas=("reservation",),
            batches=True,
        ),
    )


def replicated() -> tuple[Scenario, ...]:
    """Everything at once: two replicas of every service, and batches of two where they fit in."""
    every = scenarios(duplicates=1, two_sagas=True)
    return tuple(
        replace(
            scenario,
            name=f"{scenario.name}, two replicas",
            replicas=saga.SERVICES,
            duplicates=min(scenario.duplicates, 1),
        )
        for scenario in every
    )
