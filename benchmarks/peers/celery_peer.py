"""A Celery chain as a contender: `celery_app.py`, a worker for each service's queue."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from benchmarks.contender import AmqpFeed, Ground, Guarantees, Letter, Mark, Order
from benchmarks.peers import amqp
from benchmarks.peers.programs import Programs, versions
from benchmarks.peers.tables import SERVICES, Databases, command

_EXCHANGE = "peer.celery"
_QUEUES = {service: f"{_EXCHANGE}.{service}" for service in SERVICES}
#: Celery's RPC back end sends the last task's result to the queue that the message names in `reply_to`.
_ANSWERS = "peer.celery.answers"
#: Beside quorum queues Celery declares these, queues and exchanges alike, for tasks that are to wait.
_DELAYED = [f"celery_delayed_{level}" for level in range(28)]


class CeleryPeer:
    """A chain of five idempotent tasks: at least once, the next task published before the last one is acked."""

    name = "celery"
    title = "Celery chain"
    guarantees = Guarantees(
        delivery="at least once",
        effect="once: each task is written so",
        undo="-",
        event="none lost: a task cut off is done again, and sends the next again",
    )
    share = 0.1

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._programs = Programs(ground.folder)
        self._databases = Databases(ground, {service: f"peer_celery_{service}" for service in SERVICES})

    @property
    def versions(self) -> Mapping[str, str]:
        """Packages that matter to the figure."""
        return versions("celery", "kombu", "amqp", "psycopg", "psycopg-pool")

    def create(self) -> None:
        """Make the databases and the queue of answers; the workers declare the rest."""
        self.remove()
        self._databases.create()
        amqp.declare(self._ground.amqp_url, _ANSWERS)

    def start(self) -> None:
        """Start a worker for each service, with as many processes as the machine has cores, as is the default."""
        for service in SERVICES:
            self._programs.start(
                service,
                *("celery", "--app=celery_app", "worker", f"--queues={_QUEUES[service]}"),
                *(f"--hostname={service}@%h", "--loglevel=WARNING"),
                *("--without-gossip", "--without-mingle", "--without-heartbeat"),
                settings={
                    "RABBITMQ_URL": self._ground.amqp_url,
                    "DATABASE_URL": self._databases.url(service),
                },
            )
        self._programs.wait(lambda: amqp.consumed(self._ground.amqp_url, list(_QUEUES.values())))

    def pids(self) -> Mapping[str, int]:
        """The workers that run; each has child processes."""
        return self._programs.pids

    def prepare(self, orders: Sequence[Order]) -> None:
        """Fill the databases."""
        self._databases.prepare(orders)

    def feed(self, orders: Sequence[Order]) -> AmqpFeed:
        """The message that the chain's `apply_async` publishes, so that no client of Celery's takes part."""
        return AmqpFeed(letters=[_letter(order) for order in orders], last=Mark(queue=_ANSWERS))

    def settle(self, seconds: float) -> None:
        """Nothing is under way after the last mark."""

    def audit(self, orders: Sequence[Order]) -> list[str]:
        """Count what was done."""
        return self._databases.audit(orders)

    def stop(self) -> None:
        """Stop the workers."""
        self._programs.stop()

    def remove(self) -> None:
        """Remove queues, exchanges and databases."""
        self.stop()
        amqp.remove(
            self._ground.amqp_url,
            queues=[*_QUEUES.values(), _ANSWERS, *_DELAYED],
            exchanges=[_EXCHANGE, *_DELAYED, "celery_delayed_delivery", "celeryev"],
        )
        self._databases.remove()


def _letter(order: Order) -> Letter:
    """A chain in version 2 of Celery's message protocol (docs.celeryq.dev, "Message Protocol")."""
    first, *rest = SERVICES
    ids = {service: f"{service}-{order.number}" for service in SERVICES}
    # The next task is the last of the list. It is given what the one before it returned.
    chain: list[dict[str, object]] = [
        {
            "task": f"peer.{service}",
            "args": [],
            "kwargs": {},
            "options": {"task_id": ids[service], "reply_to": _ANSWERS},
            "subtask_type": None,
            "immutable": False,
        }
        for service in reversed(rest)
    ]
    body = [[command(order)], {}, {"callbacks": None, "errbacks": None, "chain": chain, "chord": None}]
    headers = {"lang": "py", "task": f"peer.{first}", "id": ids[first], "root_id": ids[first]}
    return Letter(
        exchange=_EXCHANGE,
        routing_key=first,
        body=json.dumps(body).encode(),
        answer_id=ids[rest[-1]],
        properties={
            "content_type": "application/json",
            "content_encoding": "utf-8",
            "correlation_id": ids[first],
            "reply_to": _ANSWERS,
            "headers": headers | {"ignore_result": True},
        },
    )
