"""This system as a contender: five services as in production, on PostgreSQL or on SQLite, with any settings."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path

import aio_pika
import asyncpg

from benchmarks import clone, orders
from benchmarks.contender import AmqpFeed, Ground, Guarantees, Letter, Mark, Order
from benchmarks.programs import Programs
from common import saga, topology
from common.settings import Settings
from ops.audit.look import Report, audit
from tools.client import connect

_SECONDS_TO_END = 90
_LOOK_EVERY = 0.05
#: Marks of names: templates, then old sagas before new ones, so that an index finds the new ones.
_TEMPLATE, _OLD = "t", "a"

#: What still moves, by service: the clock does not stop before none of these finds anything.
_UNFINISHED = {
    "payment": (
        "SELECT 1 FROM payment WHERE payment_id >= 'pay-b' AND state = 'PAID' LIMIT 1",
        "SELECT 1 FROM outbox LIMIT 1",
    ),
    "reservation": ("SELECT 1 FROM outbox LIMIT 1",),
    "point": ("SELECT 1 FROM outbox LIMIT 1",),
    "queue": ("SELECT 1 FROM outbox LIMIT 1",),
    "notify": ("SELECT 1 FROM notice WHERE state = 'PENDING' LIMIT 1", "SELECT 1 FROM outbox LIMIT 1"),
}


class Ours:
    """The five services of this project."""

    guarantees = Guarantees(
        delivery="at least once",
        effect="once",
        undo="every earlier step, whatever crashes",
        event="stored with its change",
    )
    share = 1.0

    def __init__(
        self,
        ground: Ground,
        *,
        name: str = "postgres",
        title: str = "this system, PostgreSQL",
        settings: Mapping[str, str] | None = None,
        replicas: int = 1,
        share: float = 1.0,
    ) -> None:
        self.name = name
        self.title = title
        self.share = share
        self._ground = ground
        self._settings = dict(settings or {})
        self._replicas = replicas
        self._programs = Programs(ground.folder)
        self._audited = 0

    @property
    def versions(self) -> Mapping[str, str]:
        """What the services are made of."""
        return {package: version(package) for package in ("aio-pika", "aiormq", "tortoise-orm", "pydantic")}

    @property
    def databases(self) -> dict[str, str]:
        """The URL of each service's database."""
        return {service: self._ground.database(f"bench_{service}") for service in saga.SERVICES}

    def create(self) -> None:
        """Make five empty databases; the services make their tables and the broker's objects."""
        self.remove()
        self._create_databases()

    def _create_databases(self) -> None:
        for service in saga.SERVICES:
            self._query(f"CREATE DATABASE bench_{service}")

    def _drop_databases(self) -> None:
        for service in saga.SERVICES:
            self._query(f"DROP DATABASE IF EXISTS bench_{service} WITH (FORCE)")

    def start(self) -> None:
        """Start the services, and wait until each takes messages."""
        for service in saga.SERVICES:
            for replica in range(1, self._replicas + 1):
                name = service if self._replicas == 1 else f"{service}-{replica}"
                settings = {
                    "RABBITMQ_URL": self._ground.amqp_url,
                    "DATABASE_URL": self.databases[service],
                    **self._settings,
                }
                self._programs.start(name, "-m", f"{service}_svc", settings=settings)
        self._programs.say("taking messages")

    def pids(self) -> Mapping[str, int]:
        """The services, every replica by itself."""
        return self._programs.pids()

    def prepare(self, wanted: Sequence[Order]) -> None:
        """Have one order of each kind prepared by the services, and copy the rows for all others of its kind."""
        kinds: dict[str, list[int]] = defaultdict(list)
        for order in wanted:
            kinds[_kind(order)].append(order.number)
        templates = {kind: orders.order(number, kind, _TEMPLATE) for number, kind in enumerate(kinds)}
        asyncio.run(self._ask(list(templates.values())))
        for kind, template in templates.items():
            self._copy(orders.name(template.number, _TEMPLATE), clone.Numbers("b", kinds[kind]))

    def grow_old(self, count: int) -> None:
        """Fill the databases with so many completed sagas, as the services would have left them."""
        template = orders.order(90_000_000, mark=_TEMPLATE)
        asyncio.run(self._ask([template], pay=True))
        self.settle(_SECONDS_TO_END)
        self._copy(orders.name(template.number, _TEMPLATE), clone.Numbers(_OLD, range(1, count + 1)))
        self._audited += count + 1

    async def _ask(self, templates: Sequence[Order], *, pay: bool = False) -> None:
        told = asyncio.Event()
        async with connect(
            self._ground.amqp_url, lambda event: told.set() if event.key == "notification.sent" else None
        ) as client:
            await client.ask([command for order in templates for command in orders.needs(order)])
            if pay:
                for order in templates:
                    await client.publish(saga.FIRST.on, orders.command(order))
                async with asyncio.timeout(_SECONDS_TO_END):
                    await told.wait()

    def _copy(self, template: str, numbers: clone.Numbers) -> None:
        for service in saga.SERVICES:
            clone.on_postgres(partial(self._query, service=service), template, numbers)

    def feed(self, wanted: Sequence[Order]) -> AmqpFeed:
        """`payment.pay`, and the events that tell of the pivot and of the notice."""
        return AmqpFeed(
            letters=[
                Letter(
                    exchange=topology.EVENTS,
                    routing_key=saga.FIRST.on,
                    body=orders.command(order),
                    answer_id=order.payment_id,
                    properties={"content_type": "application/json"},
                )
                for order in wanted
            ],
            pivot=Mark(topology.EVENTS, saga.PIVOT.emits),
            last=Mark(topology.EVENTS, saga.SAGA[-1].emits),
        )

    def settle(self, seconds: float) -> None:
        """Wait until no payment is provisional, no notice pending and no event unpublished."""
        asyncio.run(self._settled(seconds))

    async def _settled(self, seconds: float) -> None:
        async with contextlib.AsyncExitStack() as stack:
            connections = {}
            for service in saga.SERVICES:
                connection = await asyncpg.connect(self.databases[service])
                stack.push_async_callback(connection.close)
                connections[service] = connection
            deadline = time.monotonic() + seconds
            for service, questions in _UNFINISHED.items():
                for question in questions:
                    while await connections[service].fetchval(question):
                        if time.monotonic() > deadline:
                            raise TimeoutError(f"{service} still moves: {question}")
                        await asyncio.sleep(_LOOK_EVERY)

    def audit(self, wanted: Sequence[Order]) -> list[str]:
        """The operators' audit, once nothing is under way, and whether every order ended as it was to end."""
        address = self._ground.management_url.replace("://", f"://{self._login}@", 1)
        deadline = time.monotonic() + _SECONDS_TO_END
        while True:
            report = asyncio.run(audit(self.databases, rabbitmq_management=address))
            if not report.under_way or time.monotonic() > deadline:
                return self._wrong(report, wanted)
            time.sleep(1)

    def _wrong(self, report: Report, wanted: Sequence[Order]) -> list[str]:
        self._audited += len(wanted)
        found = [str(violation) for violation in report.violations]
        found += [f"{it.saga_id} is still under way" for it in report.under_way]
        completing = self._audited - sum(order.ending != "completed" for order in wanted)
        if report.counts.completed != completing:
            found.append(f"{report.counts.completed} sagas are complete instead of {completing}")
        if report.counts.sagas != self._audited:
            found.append(f"there are {report.counts.sagas} sagas instead of {self._audited}")
        if report.counts.messages_parked:
            found.append(f"{report.counts.messages_parked} messages are parked")
        return found

    @property
    def _login(self) -> str:
        return self._ground.amqp_url.partition("://")[2].rpartition("@")[0]

    def stop(self) -> None:
        """Ask the services to leave."""
        self._programs.stop()

    def remove(self) -> None:
        """Drop the databases and delete the broker's objects."""
        self._drop_databases()
        asyncio.run(self._delete())

    async def _delete(self) -> None:
        objects = topology.derive(Settings().retry_delays)
        async with await aio_pika.connect(self._ground.amqp_url) as connection:
            channel = await connection.channel()
            for queue in objects.queues:
                await channel.queue_delete(queue.name)
            for exchange in objects.exchanges:
                await channel.exchange_delete(exchange)

    def _query(self, statement: str, service: str = "") -> list[tuple[object, ...]]:
        url = self.databases[service] if service else self._ground.postgres_url

        async def run() -> list[tuple[object, ...]]:
            connection = await asyncpg.connect(url)
            try:
                return [tuple(row) for row in await connection.fetch(statement)]
            finally:
                await connection.close()

        return asyncio.run(run())


class OursOnSqlite(Ours):
    """The same on one SQLite file a service."""

    @property
    def databases(self) -> dict[str, str]:
        """The URL of each service's file."""
        return {service: f"sqlite://{self._ground.folder / service}.sqlite3" for service in saga.SERVICES}

    def _create_databases(self) -> None:
        """The services make their files themselves."""

    def _drop_databases(self) -> None:
        for file in self._ground.folder.glob("*.sqlite3*"):
            file.unlink()

    def _copy(self, template: str, numbers: clone.Numbers) -> None:
        for service in saga.SERVICES:
            clone.on_sqlite(str(self._file(service)), template, numbers)

    async def _settled(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        for service, questions in _UNFINISHED.items():
            with contextlib.closing(sqlite3.connect(f"file:{self._file(service)}?mode=ro", uri=True)) as file:
                for question in questions:
                    while file.execute(question).fetchone():
                        if time.monotonic() > deadline:
                            raise TimeoutError(f"{service} still moves: {question}")
                        await asyncio.sleep(_LOOK_EVERY)

    def _file(self, service: str) -> Path:
        return self._ground.folder / f"{service}.sqlite3"


def _kind(order: Order) -> str:
    """Of which kind an order is as far as it must be prepared; other failures are in the command's own words."""
    return order.ending if order.ending in {"no_wallet", "balance_too_low", "not_your_token"} else "completed"
