"""One run: the five services over the simulated broker and their databases, from the first command to rest."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from unittest import mock

import aio_pika
import aiosqlite

from common import consumer, runner, saga, topology
from common.bus import Session
from common.outbox import Confirmation, Confirmed, Event, Unroutable
from common.recovery import DeadLetter, Done, Outcome
from common.settings import Settings
from notify_svc import domain, sender
from notify_svc.__main__ import NotifySettings
from notify_svc.__main__ import service as notify_service
from payment_svc.__main__ import PaymentSettings
from payment_svc.__main__ import service as payment_service
from point_svc.__main__ import service as point_service
from proof.broker import SimulatedBroker
from proof.broker.message import Message as Stored
from proof.quiet import quiet
from proof.simulator import life
from proof.simulator.chances import chance, seeded
from proof.simulator.chronicle import Chronicle
from proof.simulator.client import Client
from proof.simulator.clock import StandstillError, VirtualLoop
from proof.simulator.curses import Curses
from proof.simulator.database import Connects, Database
from proof.simulator.faults import Act, Chance, Moment, Plan, Strike
from proof.simulator.life import Incarnation
from proof.simulator.wires import Wires, cuts
from proof.simulator.workload import LIMIT, Order, Told, by_time
from queue_svc.__main__ import service as queue_service
from reservation_svc.__main__ import ReservationSettings
from reservation_svc.__main__ import service as reservation_service

#: Virtual seconds after which a run that has not come to rest never will.
_FOR_EVER = 1800.0
#: Waits between attempts to deliver a notice: as many as in earnest, but shorter, as told below.
_WAITS = tuple(timedelta(seconds=seconds) for seconds in (1, 2, 4, 8, 16))
_GLANCE = 5.0
#: What the janitors bring back. A command that is lost is brought back by who gave it, and a notice by nobody.
_MAY_BE_LOST = frozenset(key for service in saga.SERVICES for key in saga.emitted_keys(service))
#: Virtual seconds that a saga may stay open before its event is said again.
_JANITOR_SECONDS = 40.0
_NEVER = 1_000_000.0
#: RabbitMQ's three minutes would say nothing more.
_DEAD_LETTER_RETRY = 15.0
_PATIENCE = 9.0
#: How long faults go on after the last command.
_AFTERMATH = 20.0


@dataclass(frozen=True, slots=True)
class Case:
    """All that a run depends on. Without a plan, faults strike by chance."""

    seed: int | str
    orders: tuple[Order, ...]
    poison: tuple[Told, ...] = ()
    plan: tuple[Strike, ...] | None = None
    replicas: tuple[str, ...] = ()
    batch_size: int = 200
    outbox_limit: int = 20_000
    #: How many more faults than usual there are, where they strike by chance.
    intensity: float = 1.0
    #: Queues lose messages, too, and the janitors bring them back. Elsewhere there are none: they would also bring
    #: back what a mistake loses.
    lossy: bool = False


@dataclass(slots=True)
class Run:
    """What a run left behind."""

    case: Case
    databases: dict[str, Database]
    chronicle: Chronicle
    accepted: list[Told] = field(default_factory=list)
    parked: dict[str, list[Stored]] = field(default_factory=dict)
    confirmed: set[tuple[str, str, str]] = field(default_factory=set)
    sent: Counter[tuple[str, str]] = field(default_factory=Counter)
    strikes: list[Strike] = field(default_factory=list)
    reached: Counter[tuple[str, Moment]] = field(default_factory=Counter)
    broker: Counter[str] = field(default_factory=Counter)
    unexpected: list[str] = field(default_factory=list)
    virtual_seconds: float = 0.0
    rested: bool = False
    left: str = ""

    @property
    def crashes(self) -> Counter[Moment]:
        """How often services were killed at each moment."""
        return Counter(strike.moment for strike in self.strikes if strike.act is Act.CRASH)


def run(case: Case) -> Run:
    """Run a case to its end, in one thread and virtual time."""
    loop = VirtualLoop()
    loop.set_task_factory(life.task_factory)
    with quiet(), seeded(case.seed), loop.rules_the_clocks(), _no_garbage():
        world = _World(case, loop)
        try:
            loop.run_until_complete(world.whole())
        except StandstillError as error:
            world.result.left = str(error)
        finally:
            world.result.virtual_seconds = loop.time()
            loop.close()
    return world.result


@contextlib.contextmanager
def _no_garbage() -> Iterator[None]:
    """Collecting costs a fifth of the time here, and would call finalizers at times that no seed knows."""
    gc.freeze()
    gc.disable()
    try:
        with warnings.catch_warnings():
            # A task that is killed before its first step leaves its coroutine behind.
            warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
            yield
            gc.collect()
    finally:
        gc.enable()
        gc.unfreeze()


class _World:
    """Everything there is in one run."""

    def __init__(self, case: Case, loop: VirtualLoop) -> None:
        self._case = case
        self._loop = loop
        self._fate: Chance | Plan = (
            Chance(chance(case.seed, "faults"), case.intensity, lossy=case.lossy)
            if case.plan is None
            else Plan(case.plan)
        )
        chronicle = Chronicle(loop.time)
        databases = {
            service: Database(service, self._fate, chance(case.seed, f"commits of {service}"))
            for service in saga.SERVICES
        }
        self.result = Run(case, databases, chronicle)
        self._living: dict[str, Incarnation] = {}
        self._closing = False
        curses = [curse for order in case.orders for curse in order.curses]
        self._curses = Curses(curses, self._fate, chronicle.tell)
        loop.set_exception_handler(self._stumbled)

    async def whole(self) -> None:
        """From the first start to rest."""
        wires = Wires(self._fate, self.result.chronicle, self._living, self._restart, self._unbind, self._purge)
        self._broker = SimulatedBroker(faults=wires, dead_letter_retry=_DEAD_LETTER_RETRY)
        client = Client(self._broker, self.result.chronicle)
        connects = Connects(self.result.databases)
        told = by_time([*(one for order in self._case.orders for one in order.told), *self._case.poison])
        with (
            mock.patch.object(aio_pika, "connect", self._connect),
            mock.patch.object(aiosqlite, "connect", connects),
            mock.patch.object(domain, "WAITS", _WAITS),
            mock.patch.object(sender, "_IDLE_SECONDS", 1.0),
            _witness(self.result),
        ):
            keepers = [
                asyncio.create_task(self._keep_running(name))
                for name in (*saga.SERVICES, *(f"{service}.2" for service in self._case.replicas))
            ]
            await client.tell(told)
            await asyncio.sleep(_AFTERMATH)
            self._fate.over = True
            self._broker.start()
            await self._rest()
            self._closing = True
            for incarnation in list(self._living.values()):
                incarnation.kill()
            await asyncio.gather(*keepers)
            await _end_all()
        self._sum_up(client)

    async def _connect(self, url: Any, **options: Any) -> Any:  # noqa: ANN401 - it stands in for aio_pika.connect
        incarnation = life.current()
        assert incarnation is not None
        incarnation.must_live()
        incarnation.works = True
        connection = await self._broker.connect(url, **options)
        incarnation.must_live()
        return connection

    async def _keep_running(self, name: str) -> None:
        """Start a service, and again whenever it is gone: what systemd or Docker does."""
        while not self._closing:
            incarnation = self._living[name] = Incarnation(name, self._struck)
            incarnation.wires.append(cuts(self._broker, incarnation))
            main = incarnation.start(self._live(incarnation))
            leaving = asyncio.create_task(self._hurry(incarnation))
            await incarnation.over.wait()
            leaving.cancel()
            await incarnation.buried()
            error = None if main.cancelled() else main.exception()
            if error is not None:
                self.result.unexpected.append(f"{name} ended with {type(error).__name__}: {error}")
            if not self._closing:
                self.result.chronicle.tell(name, f"is gone; is started again in {incarnation.restart_after:.3g} s")
                await asyncio.sleep(incarnation.restart_after)

    async def _live(self, incarnation: Incarnation) -> None:
        service, settings = _service(incarnation, self._case)
        self.result.chronicle.tell(incarnation.name, "starts")
        try:
            await runner.run(self._curses.upon(service, incarnation), settings, incarnation.life)
        finally:
            incarnation.gone = True
            incarnation.over.set()

    async def _hurry(self, incarnation: Incarnation) -> None:
        """A service that was asked to leave is killed when it takes too long."""
        await incarnation.life.stopping()
        await asyncio.sleep(_PATIENCE)
        incarnation.kill()

    def _restart(self, seconds: float) -> None:
        def stop() -> None:
            self._broker.stop()
            self._loop.call_later(seconds, self._broker.start)

        # In a later turn: the broker is in the middle of something.
        self._loop.call_soon(stop)

    def _unbind(self, number: int, seconds: float) -> None:
        """Take away the one binding that a step waits on; somebody mends it after a while."""
        steps = [step for step in saga.SAGA if step.service not in {saga.FIRST.service, saga.SERVICES[-1]}]
        step = steps[number % len(steps)]
        queue = topology.events_queue(step.service)
        self._broker.core.unbind(queue, topology.EVENTS, step.on)
        self.result.chronicle.tell("broker", f"forgets for {seconds:.3g} s that {queue} is bound to {step.on}")

        def mend() -> None:
            if queue in self._broker.core.queues:
                self._broker.core.bind(queue, topology.EVENTS, step.on)

        self._loop.call_later(seconds, mend)

    def _purge(self, number: int) -> None:
        """Let a queue lose the events that wait in it: whatever follows the first step, but for notices."""
        services = [service for service in saga.SERVICES if saga.awaits_settlement(service)]
        queue = self._broker.core.queues.get(topology.events_queue(services[number % len(services)]))
        if queue is not None:
            lost = queue.purge(lambda message: message.keys[0] in _MAY_BE_LOST)
            self.result.chronicle.tell("broker", f"loses {lost} messages of {queue.name}")

    def _struck(self, strike: Strike) -> None:
        self.result.chronicle.tell(strike.service, str(strike))

    def _stumbled(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        incarnation = life.current()
        if incarnation is None or not incarnation.gone:
            self.result.unexpected.append(f"{context.get('message')}: {context.get('exception')!r}")

    async def _rest(self) -> None:
        """Wait until nothing is on its way any more."""
        while self._loop.time() < _FOR_EVER:
            self.result.left = self._unfinished()
            if not self.result.left:
                self.result.rested = True
                return
            await asyncio.sleep(_GLANCE)

    def _unfinished(self) -> str:
        """What is still on its way; empty at rest."""
        for queue in self._broker.core.queues.values():
            count = queue.out + len(queue.leaving) + (0 if queue.name.endswith(".parked") else len(queue))
            if count:
                return f"{count} messages in {queue.name}"
        for service, database in self.result.databases.items():
            if not database.is_free:
                return f"a transaction of {service}"
            ((count,),) = database.raw.execute('SELECT COUNT(*) FROM "outbox"').fetchall()
            if count:
                return f"{count} events in the outbox of {service}"
        for service in filter(saga.awaits_settlement, saga.SERVICES if self._case.lossy else ()):
            open_ = "SELECT COUNT(*) FROM saga_step WHERE state = 'done'"
            ((count,),) = self.result.databases[service].raw.execute(open_).fetchall()
            if count:
                return f"{count} sagas open in {service}"
        notices = "SELECT COUNT(*) FROM notice WHERE state = 'PENDING'"
        ((count,),) = self.result.databases["notify"].raw.execute(notices).fetchall()
        return f"{count} notices" if count else ""

    def _sum_up(self, client: Client) -> None:
        result = self.result
        result.accepted = client.accepted
        result.sent = self._curses.sent
        result.strikes = self._fate.strikes
        result.reached = self._fate.reached
        result.broker = self._broker.core.counts
        result.parked = {
            service: list(self._broker.core.contents().get(topology.parked_queue(service), ()))
            for service in saga.SERVICES
        }


async def _end_all() -> None:
    """End what the world itself still does, such as reading a client's channel."""
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


_KINDS: Mapping[str, tuple[type[Settings], Callable[[Any], runner.Service]]] = {
    "payment": (PaymentSettings, payment_service),
    "reservation": (ReservationSettings, reservation_service),
    "point": (Settings, point_service),
    "queue": (Settings, queue_service),
    "notify": (NotifySettings, notify_service),
}


def _service(incarnation: Incarnation, case: Case) -> tuple[runner.Service, Settings]:
    """A service as its `__main__` makes it, anew for each of its lives, and its settings."""
    kind, make = _KINDS[incarnation.service]
    told: dict[str, Any] = {"payment_limit": LIMIT} if kind is PaymentSettings else {}
    with mock.patch.dict(os.environ, clear=True):
        settings = kind(
            rabbitmq_url=f"amqp://{incarnation.service}@broker/?name={incarnation.name}",
            batch_size=case.batch_size,
            outbox_limit=case.outbox_limit,
            # One deploys for all; the others only look. Each session that declares costs hundreds of calls.
            declare_topology=incarnation.service == saga.FIRST.service,
            # Shorter than in earnest: waiting is free, but whoever polls meanwhile costs real time.
            retry_delays="1s,5s,20s",
            unknown_type_hours=0.01,
            janitor_seconds=_JANITOR_SECONDS if case.lossy else _NEVER,
            **told,
        )
    settings = settings.model_copy(update={"database_url": "sqlite://:memory:"})
    return make(settings), settings


@contextlib.contextmanager
def _witness(result: Run) -> Iterator[None]:
    """Note down what services did and said, and what the broker confirmed; change nothing."""
    tell = consumer._tell  # noqa: SLF001 - where every outcome passes
    publish = Session.publish_events
    chronicle = result.chronicle

    def told(message: Any, outcome: Outcome) -> None:  # noqa: ANN401 - of two kinds
        incarnation = life.current()
        assert incarnation is not None
        what = f"dead {message.origin.type}" if isinstance(message.content, DeadLetter) else message.origin.type
        became = "done" if isinstance(outcome, Done) else f"{type(outcome).__name__.lower()}, {outcome.reason}"
        key = consumer._key(message) or message.delivery.correlation_id or ""  # noqa: SLF001 - as above
        chronicle.tell(incarnation.name, f"handled {what}: {became}", key)
        tell(message, outcome)

    async def published(self: Session, events: Sequence[Event]) -> list[Confirmation]:
        confirmations = await publish(self, events)
        for event, confirmation in zip(events, confirmations, strict=True):
            match confirmation:
                case Confirmed():
                    result.confirmed.add((self.service, event.type, event.key))
                    chronicle.tell(self.service, f"said {event.type}", event.key)
                case Unroutable():
                    chronicle.tell(self.service, f"could not say {event.type}: nobody listens", event.key)
                case _:
                    chronicle.tell(self.service, f"could not say {event.type}: not confirmed", event.key)
        return confirmations

    with (
        mock.patch.object(consumer, "_tell", told),
        mock.patch.object(Session, "publish_events", published),
    ):
        yield
