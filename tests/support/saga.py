"""One broker, five real service processes, and somebody who publishes, listens and looks into the databases.

A `Theatre` is a virtual host of a private RabbitMQ with a stack of services on SQLite files; tests that break
nothing share one. A `Visit` is one test's stay in it: ids of its own, an observer of its own, and at the end
`settled()`, which asks the five databases whether all of it happened or none of it did.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import importlib
import importlib.util
import json
import re
import secrets
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractExchange, AbstractIncomingMessage

from common import saga, topology
from common.messages import TYPES, Body, Enter, Hold, Pay, TopUp
from tests.support.eventually import eventually
from tools.broker import Broker, PrivateBroker
from tools.stack import ROOT, Stack

#: Two short levels, so that spent retries take less than a second. They are names of queues: the same in all.
DELAYS = "200ms,400ms"
LEVELS = 2
PRICE = 300
FILLED = 1_000

SABOTAGE = Path(__file__).with_name("sabotage")


@dataclass(frozen=True, slots=True)
class Heard:
    """A message as the observer got it: an event, or a copy on its way through recovery."""

    key: str
    raw: bytes
    headers: Mapping[str, Any]
    message_id: str | None
    correlation_id: str | None
    properties: Mapping[str, Any]

    @property
    def body(self) -> dict[str, Any]:
        """The content of a message that is known to be JSON."""
        content: dict[str, Any] = json.loads(self.raw)
        return content

    @property
    def id(self) -> str:
        """What it is about: a saga, or another command's own id."""
        names = ("payment_id", "reservation_id", "top_up_id", "token", "id")
        with contextlib.suppress(ValueError):
            content = json.loads(self.raw)
            if isinstance(content, dict):
                return next((str(content[name]) for name in names if name in content), "")
        return ""


class Faults:
    """What is wrong with a sabotaged service at this moment; mended by `mend`, without a restart."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def make(self, **faults: Sequence[str]) -> None:
        """Replace all faults: `raises`, `kills`, `never_acks`: ids; `mutes`: anything."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(json.dumps(faults))
        fresh.replace(self._file)

    def mend(self) -> None:
        """Take all faults away."""
        self.make()


@dataclass(slots=True)
class Theatre:
    """A virtual host with its five services."""

    node: PrivateBroker
    vhost: str
    stack: Stack
    home: Path

    @property
    def broker(self) -> Broker:
        """Where the services meet: the node, in this theatre's own virtual host."""
        broker = self.node.broker
        return replace(broker, amqp_url=broker.amqp_url.rstrip("/") + "/" + quote(self.vhost, safe=""))

    @property
    def url(self) -> str:
        """The address of the virtual host."""
        return self.broker.amqp_url

    def faults(self, service: str) -> Faults:
        """The faults of one service, for when it is started with `sabotaged`."""
        return Faults(self.home / f"{service}.faults")

    def start(self, *names: str, sabotaged: bool = False, ready: bool = True, **settings: str) -> None:
        """Start services, all or these; sabotaged ones obey `faults`."""
        for name in names or saga.SERVICES:
            trap = {}
            if sabotaged:
                trap = {
                    "PYTHONPATH": f"{SABOTAGE}:{ROOT}",
                    "SABOTAGE": f"{name}={self.home / name}.faults",
                }
            self.stack.start(name, self.url, **trap, **settings)
        if ready:
            self.stack.wait_ready(*(names or saga.SERVICES))

    def api(self, method: str, path: str, content: object = None) -> Any:  # noqa: ANN401 - JSON
        """Ask the management API; `{v}` in the path is the virtual host. AssertionError for a refusal."""
        status, answer = management(
            self.node.broker, method, path.replace("{v}", quote(self.vhost, safe="")), content
        )
        assert status < 300, f"{method} {path}: {status} {answer}"
        return answer

    def peek(self, queue: str, count: int = 1000) -> list[dict[str, Any]]:
        """Look at the messages of a queue as a person does in the management UI, and leave them there."""
        wish = {"count": count, "ackmode": "ack_requeue_true", "encoding": "auto"}
        found: list[dict[str, Any]] = self.api("POST", f"/api/queues/{{v}}/{queue}/get", wish)
        return found

    def rows(self, service: str, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Read a service's database as somebody who cannot write; AssertionError while it is not there."""
        try:
            with contextlib.closing(self.stack.read_only(service)) as connection:
                return connection.execute(query, values).fetchall()
        except sqlite3.OperationalError as error:
            # A service that has just been started for the first time has no tables yet.
            raise AssertionError(f"{service}: {error}") from error

    def let_the_grace_pass(self, service: str) -> None:
        """Make the rows in the outbox of a service that is dead overdue now, as ten seconds would."""
        with (
            contextlib.closing(sqlite3.connect(self.stack.database(service), timeout=10)) as connection,
            connection,
        ):
            connection.execute("UPDATE outbox SET due_at = '2020-01-01 00:00:00+00:00'")

    def close(self) -> None:
        """Stop the services and take the virtual host away."""
        stubborn = self.stack.down()
        if self.node.alive:
            self.api("DELETE", "/api/vhosts/{v}")
        assert not stubborn, f"did not leave within its time: {stubborn}"


def management(broker: Broker, method: str, path: str, content: object = None) -> tuple[int, Any]:
    """Ask a broker's management API: status and content."""
    address = urlsplit(broker.management_url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=30)
    key = base64.b64encode(f"{broker.user}:{broker.password}".encode()).decode()
    with contextlib.closing(connection):
        connection.request(
            method,
            path,
            body=None if content is None else json.dumps(content),
            headers={"Authorization": f"Basic {key}", "Content-Type": "application/json"},
        )
        answer = connection.getresponse()
        text = answer.read()
    try:
        return answer.status, json.loads(text) if text else None
    except ValueError:
        return answer.status, text.decode(errors="replace")


def open_theatre(node: PrivateBroker, home: Path, **environment: str) -> Theatre:
    """Make a virtual host and a stack in it; nothing is started yet."""
    settings = {"RETRY_DELAYS": DELAYS, "SWEEP_SECONDS": "0.5", "LOG_LEVEL": "INFO"} | environment
    vhost = f"test-{secrets.token_hex(4)}"
    theatre = Theatre(node, vhost, Stack(home, environment=settings), home)
    theatre.api("PUT", "/api/vhosts/{v}")
    grant = {"configure": ".*", "write": ".*", "read": ".*"}
    theatre.api("PUT", f"/api/permissions/{{v}}/{node.broker.user}", grant)
    return theatre


@contextlib.contextmanager
def theatre(node: PrivateBroker, home: Path, **environment: str) -> Iterator[Theatre]:
    """A theatre for as long as the context is open, with nothing started yet."""
    opened = open_theatre(node, home, **environment)
    try:
        yield opened
    finally:
        opened.close()


@dataclass(slots=True)
class Visit:
    """One test's stay: it publishes, hears all that is said, and knows which ids are its own."""

    theatre: Theatre
    mark: str
    _channel: AbstractChannel
    _exchange: AbstractExchange
    heard: list[Heard] = field(default_factory=list)
    copies: list[Heard] = field(default_factory=list)
    commands: list[Pay] = field(default_factory=list)
    _count: int = 0

    def pay(self, **fields: object) -> Pay:
        """The command of a new payment, by a new user for a new seat unless told otherwise."""
        self._count += 1
        name = f"{self.mark}-{self._count:03}"
        standard = {
            "payment_id": f"{name}-pay",
            "user_id": f"{name}-user",
            "reservation_id": f"{name}-hold",
            "token": f"{name}-token",
            "amount": PRICE,
        }
        command = Pay.model_validate(standard | fields)
        self.commands.append(command)
        return command

    async def ask(self, *commands: Body, seconds: float = 30) -> list[Heard]:
        """Publish commands beside the saga and return the answers, in the same order."""
        begin = len(self.heard)
        await asyncio.gather(*(self.publish(key_of(command), command) for command in commands))
        wanted = [command.key for command in commands]

        def answered() -> list[Heard]:
            answers = {event.id: event for event in self.heard[begin:] if event.key in _ANSWERS}
            missing = [key for key in wanted if key not in answers]
            assert not missing, f"no answer to {missing[:5]}"
            return [answers[key] for key in wanted]

        return await eventually(answered, seconds=seconds)

    async def prepare(
        self, *pays: Pay, hold: bool = True, wallet: int | None = FILLED, token: bool = True, **held: object
    ) -> None:
        """Give each payment what it needs: a held seat, points, a token."""
        commands: dict[str, Body] = {}
        for pay in pays:
            if hold:
                commands[pay.reservation_id] = self.hold_of(pay, **held)
            if wallet is not None:
                gift = f"{pay.user_id}-gift"
                commands[gift] = TopUp(top_up_id=gift, user_id=pay.user_id, amount=wallet)
            if token:
                commands[pay.token] = Enter(token=pay.token, user_id=pay.user_id)
        for answer in await self.ask(*commands.values()):
            assert not answer.key.endswith(".rejected"), answer

    @staticmethod
    def hold_of(pay: Pay, **fields: object) -> Hold:
        """The hold that a payment needs."""
        standard = {
            "reservation_id": pay.reservation_id,
            "user_id": pay.user_id,
            "seat": pay.reservation_id,
            "price": pay.amount,
        }
        return Hold.model_validate(standard | fields)

    async def paying(self, count: int = 1) -> list[Pay]:
        """Payments with all they need, not yet published."""
        pays = [self.pay() for _ in range(count)]
        await self.prepare(*pays)
        return pays

    async def send(self, *pays: Pay) -> None:
        """Publish payments."""
        await asyncio.gather(*(self.publish(saga.FIRST.on, pay) for pay in pays))

    async def publish(
        self,
        key: str,
        body: Body | bytes,
        *,
        exchange: str | None = None,
        headers: Mapping[str, Any] | None = None,
        **properties: Any,  # noqa: ANN401 - what aio-pika's Message takes
    ) -> None:
        """Publish what may be anything, confirmed and mandatory."""
        content = body if isinstance(body, bytes) else body.encode().encode()
        standard: dict[str, Any] = {
            "content_type": "application/json",
            "delivery_mode": aio_pika.DeliveryMode.PERSISTENT,
        }
        message = aio_pika.Message(content, headers=dict(headers or {}), **(standard | properties))
        target = self._exchange if exchange is None else await self._channel.get_exchange(exchange)
        await target.publish(message, key, mandatory=True, timeout=30)

    def events(self, id_: str) -> list[str]:
        """Routing keys of all that was said about a payment, in order."""
        return [event.key for event in self.heard if event.id == id_]

    def event(self, id_: str, key: str) -> Heard | None:
        """The first time something was said about a payment."""
        return next((event for event in self.heard if event.id == id_ and event.key == key), None)

    async def hears(self, id_: str, key: str, *, times: int = 1, seconds: float = 30) -> Heard:
        """Wait until something was said so often; the first time it was."""

        def check() -> Heard:
            said = self.events(id_)
            assert said.count(key) >= times, f"{key} for {id_} {times} times, heard only {said}"
            found = self.event(id_, key)
            assert found
            return found

        return await eventually(check, seconds=seconds)

    def copy(self, id_: str, key: str) -> Heard | None:
        """The first copy of a message that took this way through recovery."""
        return next((copy for copy in self.copies if copy.key == key and copy.id == id_), None)

    async def recovers(self, id_: str, key: str, *, seconds: float = 30) -> Heard:
        """Wait until a message takes this way through recovery."""

        def check() -> Heard:
            found = self.copy(id_, key)
            assert found, f"no copy of {id_} to {key}, only {[c.key for c in self.copies if c.id == id_]}"
            return found

        return await eventually(check, seconds=seconds)

    def states(self, payment_id: str) -> dict[str, str | None]:
        """What each service has written down about a saga."""
        found: dict[str, str | None] = {}
        for service in saga.SERVICES:
            rows = self.theatre.rows(service, "SELECT state FROM saga_step WHERE saga_id = ?", payment_id)
            # A settled row is one that is done, and can never change again.
            found[service] = "done" if rows == [("settled",)] else rows[0][0] if rows else None
        return found

    def belongings(self, pay: Pay) -> dict[str, list[tuple[Any, ...]]]:
        """All that a payment could take: its seat, its wallet and its token."""
        rows = self.theatre.rows
        return {
            "reservation": rows(
                "reservation",
                "SELECT r.*, s.reservation_id FROM reservation r JOIN seat s USING (seat)"
                " WHERE r.reservation_id = ?",
                pay.reservation_id,
            ),
            "wallet": rows("point", "SELECT * FROM wallet WHERE user_id = ?", pay.user_id),
            "token": rows("queue", "SELECT * FROM token WHERE token = ?", pay.token),
        }

    async def completed(self, *pays: Pay, seconds: float = 30) -> None:
        """Wait until all of it happened, in all five databases."""
        await eventually(lambda: self._assert_completed(pays), seconds=seconds)

    def _assert_completed(self, pays: Iterable[Pay]) -> None:
        for pay in pays:
            assert self.states(pay.payment_id) == ALL_DONE, (pay.payment_id, self.states(pay.payment_id))
            # An event is heard a moment after the row that it tells of.
            assert "payment.completed" in self.events(pay.payment_id), self.events(pay.payment_id)
        self._assert_ends(pays)

    async def undone(self, pay: Pay, *, at: str, reason: str, seconds: float = 30) -> None:
        """Wait until none of it is left, because of this reason of this service."""

        def check() -> None:
            assert self.states(pay.payment_id) == undone_at(at), self.states(pay.payment_id)
            failed = self.event(pay.payment_id, saga.failed(at))
            assert failed, self.events(pay.payment_id)
            assert (failed.body["service"], failed.body["reason"]) == (at, reason), failed.body
            before = saga.SAGA[: saga.SERVICES.index(at)]
            assert {step.compensation for step in before} <= set(self.events(pay.payment_id))
            self._assert_ends([pay])

        await eventually(check, seconds=seconds)

    def _assert_ends(self, pays: Iterable[Pay]) -> None:
        for pay in pays:
            against = self.violations(pay)
            assert not against, against
            assert "notification.sent" in self.events(pay.payment_id), self.events(pay.payment_id)

    def violations(self, pay: Pay) -> list[str]:
        """What speaks against: all of it happened, or none of it did, and the user was told which."""
        rows, key = self.theatre.rows, pay.payment_id
        states = self.states(key)
        taken = {
            "payment": [
                state for (state,) in rows("payment", "SELECT state FROM payment WHERE payment_id = ?", key)
            ],
            "reservation": rows(
                "reservation", "SELECT reservation_id, state FROM reservation WHERE payment_id = ?", key
            ),
            "ledger": Counter(
                rows("point", "SELECT kind, user_id, amount FROM ledger_entry WHERE saga_id = ?", key)
            ),
            "token": rows("queue", "SELECT token, state FROM token WHERE payment_id = ?", key),
            "notice": rows("notify", "SELECT kind, state FROM notice WHERE saga_id = ?", key),
        }
        deducted = ("deduction", pay.user_id, -pay.amount)
        if states == ALL_DONE:
            wanted: dict[str, object] = {
                "payment": ["COMPLETED"],
                "reservation": [(pay.reservation_id, "CONFIRMED")],
                "ledger": {deducted: 1},
                "token": [(pay.token, "EXPIRED")],
                "notice": [("completed", "SENT")],
            }
        elif at := next((service for service in saga.SERVICES if states == undone_at(service)), None):
            both = {deducted: 1, ("restoration", pay.user_id, pay.amount): 1}
            wanted = {
                "payment": [] if at == "payment" else ["CANCELLED"],
                "reservation": [],
                "ledger": both if at == "queue" else {},
                "token": [],
                "notice": [("failed", "SENT")],
            }
        else:
            return [f"{key} is neither whole nor undone: {states}"]
        return [
            f"{key}: {name} is {taken[name]}, not {wanted[name]}" for name in wanted if taken[name] != wanted[name]
        ]

    async def settled(self, *, seconds: float = 30) -> None:
        """Wait until every payment of this test is whole or undone and the books are right."""

        def check() -> None:
            against = [line for pay in self.commands if any(self.states(pay.payment_id).values())
                       for line in self.violations(pay)]  # fmt: skip
            against += book_errors(self.theatre)
            assert not against, against[:5]

        await eventually(check, seconds=seconds)
        # What another test of this theatre broke is that test's to tell.
        others = re.compile(rf"\b(?!{self.mark})[0-9a-f]{{6}}-")
        violations = [line for line in await audited(self.theatre.stack) if not others.search(line)]
        assert not violations, violations


ALL_DONE: Mapping[str, str | None] = dict.fromkeys(saga.SERVICES, "done")
_ANSWERS = {command.answer for command in saga.COMMANDS} | {saga.rejected(s) for s in saga.SERVICES}


def undone_at(at: str) -> dict[str, str | None]:
    """What the five barriers say of a saga that failed there."""
    place = saga.SERVICES.index(at)
    return {
        service: "undone" if index < place else "failed" if index == place else "closed"
        for index, service in enumerate(saga.SERVICES)
    }


def key_of(command: Body) -> str:
    """The routing key of a command."""
    return next(key for key, kind in TYPES.items() if kind is type(command))


def book_errors(theatre: Theatre) -> list[str]:
    """What speaks against the whole of the five databases, whoever's payments are in them."""
    wrong = [
        f"wallet {user} holds {balance}, its ledger says {total}"
        for user, balance, total in theatre.rows(
            "point",
            "SELECT w.user_id, w.balance, coalesce(sum(l.amount), 0) FROM wallet w"
            " LEFT JOIN ledger_entry l USING (user_id) GROUP BY w.user_id",
        )
        if balance != total or balance < 0
    ]
    wrong += [
        f"seat {seat} names {reservation}, which is {state}"
        for seat, reservation, state in theatre.rows(
            "reservation",
            "SELECT s.seat, s.reservation_id, r.state FROM seat s JOIN reservation r USING (reservation_id)",
        )
        if state == "RELEASED"
    ]
    wrong += [
        f"{reservation} is CONFIRMED without its seat"
        for (reservation,) in theatre.rows(
            "reservation",
            "SELECT r.reservation_id FROM reservation r LEFT JOIN seat s USING (reservation_id)"
            " WHERE r.state = 'CONFIRMED' AND s.seat IS NULL",
        )
    ]
    for service in saga.SERVICES:
        left = theatre.rows(service, "SELECT type, key FROM outbox")
        wrong += [f"{service} has not published {left[:3]}"] if left else []
    return wrong


async def audited(stack: Stack) -> list[str]:
    """What the operators' own audit says, where it is there."""
    if importlib.util.find_spec("ops") is None or importlib.util.find_spec("ops.audit.look") is None:
        return []
    report = await importlib.import_module("ops.audit.look").audit(stack.database_urls())
    return [str(violation) for violation in report.violations]


@contextlib.asynccontextmanager
async def visit(theatre: Theatre, *, deaf_to: Iterable[str] = ()) -> AsyncIterator[Visit]:
    """Connect an observer that hears every event and every copy from now on, but for those it is deaf to."""
    connection = await aio_pika.connect(theatre.url, client_properties={"connection_name": "observer"})
    async with connection:
        publishing = await connection.channel(publisher_confirms=True, on_return_raises=True)
        exchange = await publishing.get_exchange(topology.EVENTS)
        here = Visit(theatre, secrets.token_hex(3), publishing, exchange)
        hearing = await connection.channel()
        for source, keys, ear in (
            (topology.EVENTS, _said(deaf_to), here.heard),
            # All but what the services tell the history.
            (topology.RECOVERY, ["*.retry.*", "*.dead", "*.parked", "*.return", "operator.history"], here.copies),
        ):
            queue = await hearing.declare_queue(exclusive=True)
            for key in keys:
                await queue.bind(source, key)
            await queue.consume(_listener(ear), no_ack=True)
        yield here


def _said(deaf_to: Iterable[str]) -> list[str]:
    return [key for service in saga.SERVICES for key in saga.emitted_keys(service) if key not in set(deaf_to)]


def _listener(ear: list[Heard]) -> Callable[[AbstractIncomingMessage], Any]:
    async def listen(message: AbstractIncomingMessage) -> None:
        ear.append(
            Heard(
                key=message.routing_key or "",
                raw=message.body,
                headers=dict(message.headers),
                message_id=message.message_id,
                correlation_id=message.correlation_id,
                properties={
                    "delivery_mode": message.delivery_mode,
                    "content_type": message.content_type,
                    "type": message.type,
                    "app_id": message.app_id,
                    "user_id": message.user_id,
                    "timestamp": message.timestamp,
                },
            )
        )

    return listen


async def burn_deliveries(theatre: Theatre, queue: str, times: int, *, wanted: int = 1) -> None:
    """Take what waits in a queue and lose the connection, so often: each time counts as a delivery."""
    for _ in range(times):
        connection = await aio_pika.connect(theatre.url, client_properties={"connection_name": "burner"})
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=100)
        taken = asyncio.Semaphore(0)

        async def take(_: AbstractIncomingMessage, taken: asyncio.Semaphore = taken) -> None:
            taken.release()

        await (await channel.get_queue(queue)).consume(take)
        try:
            async with asyncio.timeout(5):
                for _ in range(wanted):
                    await taken.acquire()
        finally:
            await connection.close()


async def depth(theatre: Theatre, queue: str) -> int:
    """How many messages wait in a queue that is there."""
    async with await aio_pika.connect(theatre.url) as connection:
        channel = await connection.channel()
        found = await channel.declare_queue(queue, passive=True)
        return found.declaration_result.message_count or 0


def soon(seconds: float) -> datetime:
    """So many seconds from now."""
    return datetime.now(UTC) + timedelta(seconds=seconds)


async def passed(moment: datetime) -> None:
    """Wait until a moment is over."""
    await eventually(lambda: datetime.now(UTC) > moment + timedelta(milliseconds=20))


def rabbitmqctl(node: PrivateBroker, *words: str) -> str:
    """Run `rabbitmqctl` against a private node, as the user that it runs as."""
    owner = node.runtime.owner()
    done = subprocess.run(
        ["/usr/lib/rabbitmq/bin/rabbitmqctl", "--node", node._node.name, *words],
        env=node._environment(),
        cwd="/",
        user=owner,
        group=node.runtime.group(),
        extra_groups=[],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run_alone(service: str, home: Path, *, seconds: float = 20, **environment: str) -> tuple[int, str]:
    """Run a service in the foreground until it ends by itself: exit code and what it said."""
    done = subprocess.run(
        [sys.executable, "-m", f"{service}_svc"],
        env={"PATH": "/usr/bin:/bin", "PYTHONUNBUFFERED": "1", "DATABASE_URL": f"sqlite://{home}/alone.sqlite3"}
        | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr
