"""What the world asks of the system: commands, well and badly meant, and messages that are cursed to fail."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

from common import saga, topology
from proof.simulator.clock import BEGINNING

#: One payment takes at most so much; more is refused.
LIMIT = 1_000
_PER_SECOND = 400
_PRICES = (100, 200, 300)
#: Which of an order's commands pays.
_PAY = 2


@dataclass(frozen=True, slots=True)
class Told:
    """One message that a client publishes: when, what, and about whom. `parked`: why it must end with a person."""

    at: float
    key: str
    body: bytes
    id: str
    parked: str = ""
    exchange: str = topology.EVENTS
    content_type: str | None = None

    def __str__(self) -> str:
        poison = f" (to be parked: {self.parked})" if self.parked else ""
        return (
            f"{self.at:9.3f} s  a client publishes {self.key} {self.body[:160].decode(errors='replace')}{poison}"
        )


class Ill(StrEnum):
    """What is wrong with handling a cursed message."""

    FAILS = "fails"
    FAILS_LATE = "fails after the work"
    FAILS_AGAIN = "fails when it is repeated"
    BAD_CONTENT = "cannot be stored"
    RACES = "loses a race"
    KILLS = "kills the service"
    IS_SLOW = "takes long"


class What(StrEnum):
    """Which message of a saga or command is cursed."""

    FORWARD = "its step, or command"
    FAILURE = "its compensation"
    DEAD = "its dead letter"
    NOTICE = "its notice"


@dataclass(frozen=True, slots=True, order=True)
class Curse:
    """Handling one message goes wrong in one service, so many times."""

    service: str
    id: str
    what: What
    ill: Ill
    times: int

    def __str__(self) -> str:
        return f"in {self.service}, {self.what} for {self.id} {self.ill}, {self.times} times"


@dataclass(frozen=True, slots=True)
class Order:
    """One saga, and what belongs to it."""

    id: str
    told: tuple[Told, ...]
    curses: tuple[Curse, ...] = ()


@dataclass(slots=True)
class Wishes:
    """The shape of one order; what is drawn by chance or by Hypothesis."""

    user: int = 0
    seat: int = 0
    price: int = 200
    points: int = 200
    reservation: str = ""
    token: str = ""
    payer: int | None = None
    amount: int | None = None
    begins: float = 0.0
    thinks: float = 1.0
    held_for: float | None = None
    expires_in: float | None = None
    without: tuple[str, ...] = ()
    repeated: tuple[tuple[int, float], ...] = ()
    contradicted: int | None = None
    curses: tuple[Curse, ...] = field(default=())


def order(number: int, wishes: Wishes) -> Order:
    """The commands of one saga."""
    w = wishes
    ann = f"u{w.user}"
    payer = ann if w.payer is None else f"u{w.payer}"
    hold: dict[str, object] = {"reservation_id": f"r{number}", "user_id": ann, "seat": f"s{w.seat}"}
    hold["price"] = w.price
    if w.held_for is not None:
        hold["held_until"] = _moment(w.begins + w.held_for)
    pay: dict[str, object] = {
        "payment_id": f"p{number}",
        "user_id": payer,
        "reservation_id": w.reservation or f"r{number}",
        "token": w.token or f"t{number}",
        "amount": w.price if w.amount is None else w.amount,
    }
    paid_at = max(0.0, w.begins + w.thinks)
    if w.expires_in is not None:
        pay["expires_at"] = _moment(paid_at + w.expires_in)
    commands: list[tuple[float, str, str, dict[str, object]]] = [
        (w.begins, "reservation.hold", f"r{number}", hold),
        (w.begins, "queue.enter", f"t{number}", {"token": f"t{number}", "user_id": ann}),
        (paid_at, saga.FIRST.on, f"p{number}", pay),
    ]
    if w.points:
        top_up = {"top_up_id": f"up{number}", "user_id": ann, "amount": w.points}
        commands.append((w.begins, "point.top_up", f"up{number}", top_up))
    commands = [command for command in commands if command[1] not in w.without]
    told = [Told(at, key, _json(body), id_) for at, key, id_, body in commands]
    told += [
        Told(told[which % len(told)].at + later, first.key, first.body, first.id)
        for which, later in w.repeated
        for first in [told[which % len(told)]]
    ]
    if w.contradicted is not None:
        at, key, id_, body = commands[w.contradicted % len(commands)]
        told.append(Told(at + 2.0, key, _json(body | _other(key)), id_, saga.IDEMPOTENCY_CONFLICT))
    return Order(f"p{number}", tuple(told), w.curses)


def _other(key: str) -> dict[str, object]:
    """What contradicts the first command under the same id."""
    if key == "reservation.hold":
        return {"price": 777}
    return {"user_id": "somebody-else"} if key == "queue.enter" else {"amount": 7}


def _json(body: dict[str, object]) -> bytes:
    return json.dumps(body).encode()


def _moment(seconds: float) -> str:
    return (BEGINNING + timedelta(seconds=round(seconds, 3))).isoformat()


def orders(count: int, chance: random.Random) -> list[Order]:
    """So many sagas with conflicting wallets, seats and tokens, spread over as long as a busy sale takes."""
    return list(_orders(count, chance))


def _orders(count: int, chance: random.Random) -> Iterator[Order]:
    users = max(2, count // 4)
    seats = max(2, count)
    prices = [chance.choice(_PRICES) for _ in range(seats)]
    for number in range(count):
        w = Wishes(user=chance.randrange(users), begins=round(chance.uniform(0, count / _PER_SECOND), 3))
        w.seat = chance.randrange(max(1, number)) if chance.random() < 0.08 else number % seats
        w.price = prices[w.seat]
        w.points = chance.choice((0, 100, 200, 300, 400, 500))
        # Some pay before their seat is held; most wait until the rush is over.
        w.thinks = chance.choice((-0.2, 0.0, 0.2, 1.0, 4.0)) if chance.random() < 0.15 else 25.0
        _oddities(w, number, users, chance)
        repeats = any(which == _PAY for which, _ in w.repeated)
        w.curses = tuple(_curses(number, chance, repeats=repeats))
        yield order(number, w)


def _oddities(w: Wishes, number: int, users: int, chance: random.Random) -> None:
    """What makes some of them unlike the others: each is refused, repeated or contradicted for its own reason."""
    if number and chance.random() < 0.03:
        w.reservation = f"r{chance.randrange(number)}"
    if number and chance.random() < 0.04:
        w.token = f"t{chance.randrange(number)}"
    if chance.random() < 0.02:
        w.payer = chance.randrange(users)
    if chance.random() < 0.04:
        w.amount = chance.choice((1, LIMIT + 1, w.price + 1))
    if chance.random() < 0.05:
        w.held_for = round(chance.uniform(0.1, 40), 3)
    if chance.random() < 0.06:
        w.expires_in = round(chance.uniform(0.0, 8), 3)
    if chance.random() < 0.03:
        w.without = (chance.choice(("reservation.hold", "queue.enter", "point.top_up")),)
    if chance.random() < 0.15:
        w.repeated = tuple((chance.randrange(4), round(chance.uniform(0, 30), 3)) for _ in range(2))
    if chance.random() < 0.03:
        w.contradicted = chance.randrange(4)


def _curses(number: int, chance: random.Random, *, repeats: bool) -> Iterator[Curse]:
    if chance.random() < 0.04:
        service = chance.choice(saga.SERVICES)
        ill = chance.choice((Ill.FAILS, Ill.FAILS, Ill.FAILS_LATE, Ill.BAD_CONTENT, Ill.RACES, Ill.IS_SLOW))
        # A notice's saga is past its pivot, or over: it is tried for ever, so what is wrong must end.
        times = chance.choice((1, 1, 2, 3, 5, 8, 99)) if service != saga.SERVICES[-1] else chance.choice((1, 4))
        yield Curse(service, f"p{number}", What.FORWARD, ill, times)
    if repeats and chance.random() < 0.5:
        yield Curse(saga.FIRST.service, f"p{number}", What.FORWARD, Ill.FAILS_AGAIN, 99)
    if chance.random() < 0.01:
        yield Curse(chance.choice(saga.SERVICES), f"p{number}", What.FORWARD, Ill.KILLS, chance.choice((1, 2, 4)))
    if chance.random() < 0.03:
        ill = chance.choice((Ill.FAILS, Ill.FAILS_LATE, Ill.RACES))
        times = chance.choice((1, 2, 3, 6))
        yield Curse(chance.choice(saga.SERVICES), f"p{number}", What.FAILURE, ill, times)
    if chance.random() < 0.02:
        service = chance.choice(saga.SERVICES[:-1])
        yield Curse(service, f"p{number}", What.DEAD, Ill.FAILS, chance.choice((1, 2)))
    if chance.random() < 0.02:
        service, id_ = chance.choice((("reservation", "r"), ("point", "up"), ("queue", "t")))
        yield Curse(service, f"{id_}{number}", What.FORWARD, Ill.FAILS, chance.choice((1, 3, 99)))
    if chance.random() < 0.03:
        yield Curse("notify", f"p{number}", What.NOTICE, Ill.FAILS, chance.choice((1, 2, 3, 99)))


def poison(count: int, chance: random.Random) -> list[Told]:
    """Messages that nobody can read, each to be parked whole, and for its own reason."""
    pay = {"payment_id": "x", "user_id": "u0", "reservation_id": "r0", "token": "t0", "amount": 1}
    kinds: tuple[tuple[str, bytes, str | None], ...] = (
        ("not_json", b"{", None),
        ("not_an_object", b"[]", None),
        ("not_utf8", b"\xff\xfe", None),
        ("invalid_fields", _json({"payment_id": "x"}), None),
        ("invalid_fields", _json(pay | {"tip": 5}), None),
        ("invalid_fields", _json(pay | {"amount": "1"}), None),
        ("duplicate_field", b'{"payment_id": "x", "payment_id": "y"}', None),
        ("wrong_content_type", _json(pay), "text/plain"),
        ("not_its_owner", _json(pay), None),
    )
    told = []
    for number in range(count):
        reason, body, content_type = chance.choice(kinds)
        key = chance.choice((saga.FIRST.on, "reservation.hold", "point.top_up", "queue.enter"))
        exchange = topology.EVENTS
        if reason == "not_its_owner":
            key, exchange = topology.return_key(chance.choice(saga.SERVICES)), topology.RECOVERY
        # Blanks make each one different, and change nothing for whoever reads JSON.
        body += b" " * number
        at = round(chance.uniform(0, 20), 3)
        told.append(Told(at, key, body, f"poison{number}", reason, exchange, content_type))
    return told


def services_of(key: str) -> str:
    """The service that a command goes to."""
    return key.partition(".")[0]


def by_time(told: Iterable[Told]) -> list[Told]:
    """In the order in which they are published."""
    return sorted(told, key=lambda one: (one.at, one.id, one.key))
