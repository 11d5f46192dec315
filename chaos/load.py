"""Payments that never stop, good and bad, each command confirmed; and a note of every one of them.

A customer first gets a seat, points and a token, all over the exchange. Who has them pays at his moment, whatever
the system does meanwhile. Commands that cannot be published wait in the client until they are confirmed.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from enum import StrEnum

import aio_pika
import aiormq
from aio_pika.exceptions import PublishError

from chaos.commands import unrecorded
from common import topology
from common.messages import Body, Enter, Hold, Pay, TopUp
from containers.patience import eventually
from containers.system import KEYS, System

PRICE = 1_000
_TOO_MUCH = 1_000_001  # one more than PAYMENT_LIMIT allows
_USERS = 50
_PAUSE = 0.1
_AT_ONCE = 200
#: Seconds of payments for which seats, points and tokens are kept ready: more than a fault lasts.
_AHEAD = 30
_TWICE = 0.05
_PATIENCE = 30.0
_AWAY = (
    aiormq.exceptions.AMQPError,
    aiormq.exceptions.ChannelInvalidStateError,
    PublishError,
    OSError,
    TimeoutError,
)


class Kind(StrEnum):
    """What speaks for or against a payment, and so where it must end."""

    GOOD = "good"
    TOO_MUCH = "payment"
    WRONG_PRICE = "reservation"
    NO_POINTS = "point"
    NO_TOKEN = "queue"  # noqa: S105 - no password


_MIX = {Kind.GOOD: 86, Kind.TOO_MUCH: 2, Kind.WRONG_PRICE: 4, Kind.NO_POINTS: 4, Kind.NO_TOKEN: 4}


@dataclass(slots=True)
class Customer:
    """One payment, what has to be there before, and when it was confirmed to be published."""

    pay: Pay
    kind: Kind
    needs: list[Body]
    confirmed_at: float = 0
    """By time.monotonic(); 0: not yet."""


@dataclass(slots=True)
class Load:
    """So many payments a second, from now on until it is stopped."""

    system: System
    rate: float
    mark: str
    chance: random.Random
    customers: dict[str, Customer] = field(default_factory=dict)
    """All whose payment was sent off, by its id."""
    confirmed: Counter[str] = field(default_factory=Counter)
    """Commands that the broker has confirmed, repetitions included, by routing key."""
    repeated: int = 0
    """Payments that a client sent once more, because he had no answer."""
    prepared: list[Body] = field(default_factory=list)
    """Commands for seats, points and tokens that the broker has confirmed."""
    _going: list[tuple[Body, Customer | None]] = field(default_factory=list)
    _ready: deque[Customer] = field(default_factory=deque)
    _preparing: dict[str, Customer] = field(default_factory=dict)
    _number: int = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Publish from now on; at the end wait until the last command is confirmed."""
        publishing = asyncio.create_task(self._publish())
        chores = [asyncio.create_task(chore) for chore in (self._prepare(), self._sell())]
        try:
            yield
            await _ended(chores)
            await eventually(lambda: not self._going or publishing.done(), seconds=120)
        finally:
            await _ended([*chores, publishing])

    @property
    def is_ready(self) -> bool:
        """Whether enough customers have all they need for a fault to begin."""
        return len(self._ready) > self.rate * _AHEAD / 2

    def sent(self) -> int:
        """How many payments the broker has confirmed."""
        return sum(1 for customer in self.customers.values() if customer.confirmed_at)

    def until(self, moment: float, since: float = 0) -> list[Customer]:
        """Those whose payment was confirmed in a span of time."""
        return [who for who in self.customers.values() if who.confirmed_at and since <= who.confirmed_at < moment]

    def repeat(self, payment_ids: Iterable[str]) -> None:
        """Send these payments once more, as a client does who has waited in vain for an answer."""
        for payment_id in payment_ids:
            self.repeated += 1
            self._going.append((self.customers[payment_id].pay, None))

    def prepare_again(self) -> None:
        """Ask again for seats, points and tokens that are still not there: what asked for them may be lost."""
        self._going += [(body, None) for who in self._preparing.values() for body in who.needs]

    @property
    def unsent(self) -> int:
        """How many commands wait in the client, because they are not confirmed yet."""
        return len(self._going)

    @property
    def is_up_to_date(self) -> bool:
        """Whether no more waits in the client than is published at once."""
        return self.unsent <= _AT_ONCE

    def _customer(self) -> Customer:
        self._number += 1
        mine = f"{self.mark}-{self._number}"
        (kind,) = self.chance.choices(list(_MIX), list(_MIX.values()))
        # Some pay with a wallet of their own, some share one; a poor one has none.
        shares = kind is not Kind.NO_POINTS and self.chance.random() < 0.5
        user = f"{self.mark}-user{self.chance.randrange(_USERS)}" if shares else f"{mine}-user"
        amount = {Kind.TOO_MUCH: _TOO_MUCH, Kind.WRONG_PRICE: PRICE - 1}.get(kind, PRICE)
        pay = Pay(
            payment_id=f"{mine}-pay",
            user_id=user,
            reservation_id=f"{mine}-hold",
            token=f"{mine}-token",
            amount=amount,
        )
        needs: list[Body] = [
            Hold(reservation_id=pay.reservation_id, user_id=user, seat=f"{mine}-seat", price=PRICE)
        ]
        if kind is not Kind.NO_POINTS:
            needs.append(TopUp(top_up_id=f"{mine}-gift", user_id=user, amount=PRICE))
        if kind is not Kind.NO_TOKEN:
            needs.append(Enter(token=pay.token, user_id=user))
        return Customer(pay, kind, needs)

    async def _prepare(self) -> None:
        """Keep customers ready: send what they need, and see in the databases that it is there."""
        while True:
            missing = int(self.rate * _AHEAD) - len(self._ready) - len(self._preparing)
            for _ in range(max(0, missing)):
                customer = self._customer()
                self._preparing[customer.pay.payment_id] = customer
                self._going += [(body, None) for body in customer.needs]
            with contextlib.suppress(AssertionError):
                await self._see_what_is_there()
            await asyncio.sleep(10 * _PAUSE)

    async def _see_what_is_there(self) -> None:
        waiting = list(self._preparing.values())
        gone = set(await unrecorded(self.system, (body for who in waiting for body in who.needs)))
        for who in waiting:
            names = {who.pay.reservation_id, who.pay.token, f"{who.pay.payment_id.removesuffix('-pay')}-gift"}
            if not names & gone:
                del self._preparing[who.pay.payment_id]
                self._ready.append(who)

    async def _sell(self) -> None:
        """Send off payments at their moments; one that is late for want of customers is left out."""
        due = 0.0
        again: list[tuple[float, Customer]] = []
        while True:
            due += self.rate * _PAUSE
            for _ in range(int(due)):
                if self._ready:
                    who = self._ready.popleft()
                    self.customers[who.pay.payment_id] = who
                    self._going.append((who.pay, who))
                    if self.chance.random() < _TWICE:
                        again.append((time.monotonic() + self.chance.uniform(0, 5), who))
            due -= int(due)
            now = time.monotonic()
            self._going += [(who.pay, None) for moment, who in again if moment <= now]
            again = [(moment, who) for moment, who in again if moment > now]
            await asyncio.sleep(_PAUSE)

    async def _publish(self) -> None:
        while True:
            with contextlib.suppress(*_AWAY):
                async with asyncio.timeout(_PATIENCE):
                    connection = await self.system.connect()
                async with connection:
                    channel = await connection.channel(on_return_raises=True)
                    exchange = await channel.get_exchange(topology.EVENTS)
                    while True:
                        await self._publish_some(exchange)
            await asyncio.sleep(2 * _PAUSE)

    async def _publish_some(self, exchange: aio_pika.abc.AbstractExchange) -> None:
        """Publish what is going; what is not confirmed stays. Raises what the first that failed raised."""
        batch = self._going[:_AT_ONCE]
        if not batch:
            await asyncio.sleep(_PAUSE / 2)
            return
        outcomes = await asyncio.gather(*(_published(exchange, body) for body, _ in batch), return_exceptions=True)
        now = time.monotonic()
        failed = []
        for (body, who), outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, BaseException):
                failed.append((body, who))
                continue
            self.confirmed[KEYS[type(body)]] += 1
            if who:
                who.confirmed_at = now
            if not isinstance(body, Pay):
                self.prepared.append(body)
        self._going[: len(batch)] = failed
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome


async def _published(exchange: aio_pika.abc.AbstractExchange, body: Body) -> None:
    message = aio_pika.Message(body.encode().encode(), delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
    async with asyncio.timeout(_PATIENCE):
        await exchange.publish(message, KEYS[type(body)], mandatory=True)


async def _ended(chores: Iterable[asyncio.Task[None]]) -> None:
    for chore in chores:
        chore.cancel()
    for outcome in await asyncio.gather(*chores, return_exceptions=True):
        if isinstance(outcome, Exception):
            raise outcome
