"""FastStream with Tortoise as a contender: `faststream_app.py`, five processes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from benchmarks.contender import AmqpFeed, Ground, Guarantees, Letter, Mark, Order
from benchmarks.peers import amqp
from benchmarks.peers.programs import Programs, versions
from benchmarks.peers.tables import SERVICES, Databases, command

_EXCHANGE = "peer.faststream"
_QUEUES = [f"{_EXCHANGE}.{service}" for service in SERVICES]
#: The module's names of the five applications; `queue` is taken there.
_APPLICATIONS = {service: service for service in SERVICES} | {"queue": "waiting_room"}


class FastStreamPeer:
    """FastStream with Tortoise: a subscriber for each service, idempotent handlers, no outbox."""

    name = "faststream"
    title = "FastStream + Tortoise"
    guarantees = Guarantees(
        delivery="at least once",
        effect="once: each handler is written so",
        undo="-",
        event="none lost: a message cut off is handled again, its event sent again",
    )
    share = 0.15

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._programs = Programs(ground.folder)
        self._databases = Databases(ground, {service: f"peer_faststream_{service}" for service in SERVICES})

    @property
    def versions(self) -> Mapping[str, str]:
        """Packages that matter to the figure."""
        return versions("faststream", "aio-pika", "tortoise-orm", "asyncpg", "pydantic")

    def create(self) -> None:
        """Make the databases; the services declare their queues."""
        self.remove()
        self._databases.create()

    def start(self) -> None:
        """Start the five services."""
        for service in SERVICES:
            self._programs.start(
                service,
                *("faststream", "run", f"faststream_app:{_APPLICATIONS[service]}"),
                settings={
                    "RABBITMQ_URL": self._ground.amqp_url,
                    "DATABASE_URL": self._databases.url(service),
                },
            )
        self._programs.wait(lambda: amqp.consumed(self._ground.amqp_url, _QUEUES))

    def pids(self) -> Mapping[str, int]:
        """The services that run."""
        return self._programs.pids

    def prepare(self, orders: Sequence[Order]) -> None:
        """Fill the databases."""
        self._databases.prepare(orders)

    def feed(self, orders: Sequence[Order]) -> AmqpFeed:
        """The command `payment.pay`; a correlation id is handed on by FastStream from message to message."""
        return AmqpFeed(
            letters=[
                Letter(
                    exchange=_EXCHANGE,
                    routing_key="payment.pay",
                    body=json.dumps(command(order)).encode(),
                    answer_id=order.payment_id,
                    properties={"content_type": "application/json", "correlation_id": order.payment_id},
                )
                for order in orders
            ],
            pivot=Mark(exchange=_EXCHANGE, routing_key="queue.expired"),
            last=Mark(exchange=_EXCHANGE, routing_key="notification.sent"),
        )

    def settle(self, seconds: float) -> None:
        """Nothing is under way after the last mark."""

    def audit(self, orders: Sequence[Order]) -> list[str]:
        """Count what was done."""
        return self._databases.audit(orders)

    def stop(self) -> None:
        """Stop the services."""
        self._programs.stop()

    def remove(self) -> None:
        """Remove queues, exchange and databases."""
        self._programs.stop()
        amqp.remove(self._ground.amqp_url, queues=_QUEUES, exchanges=[_EXCHANGE])
        self._databases.remove()
