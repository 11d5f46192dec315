"""Runs one service: database, broker session, consumers, relay, sweeper; for ever, or until it is asked to leave.

Broker and database may come, go and come back in any order. Every session with the broker is built from nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

import aiormq
from pamqp.exceptions import PAMQPException

from common import bus, db, health, telemetry, tls, topology, tracing
from common.consumer import Consumer, Handle, reading_dead_letters, reading_messages
from common.history import Observers
from common.janitor import Janitor
from common.life import Life, patiently
from common.messages import Message
from common.metrics import Metrics, Vitals
from common.outbox import Relay
from common.recovery import DeadLetter
from common.retention import Forget, nothing_else
from common.saga import FIRST, command_keys
from common.setting_files import FileError
from common.settings import Settings, addresses
from common.telemetry import alarm, log
from common.unit_of_work import UnitOfWork

#: Seconds from SIGTERM until the process is ended even if a batch hangs. Nothing is lost: it is delivered again.
_PATIENCE = 9.0
_SECONDS_TO_FINISH = 4.0
_SECONDS_TO_FLUSH = 2.0
_OBJECTS_BETWEEN_COLLECTIONS = 50_000
#: How long a message that nobody waits for may wait for company. A batch costs nearly the same whatever is in it.
_SECONDS_TO_GATHER = 0.05
#: From one batch of commands to the next, at least. Sagas that set out together go round together, and every batch
#: of theirs costs one, in all five services. A saga that comes alone does not wait.
_SECONDS_BETWEEN_COMMANDS = 0.03
#: A session that lived this long was a good one: the next is tried at once.
_GOOD_SESSION = 10.0
_FIRST_WAIT = 0.1
_LONGEST_WAIT = 5.0

#: `background(life, unit_of_work, observers)` works beside the messages until the service is to stop.
Background = Callable[[Life, UnitOfWork, Observers], Coroutine[Any, Any, None]]

_BROKER_IS_AWAY = (
    aiormq.exceptions.AMQPError,
    aiormq.exceptions.ChannelInvalidStateError,
    PAMQPException,
    OSError,
    TimeoutError,
)


@dataclass(frozen=True, slots=True)
class Service:
    """What makes a service: its name, what it does with messages and dead letters, and what else it works on.

    `also_forget` is asked what else goes when the rows of sagas that are long over are deleted.

    Its tables are in `<name>_svc.models`, their migrations in `<name>_svc.migrations`.
    """

    name: str
    handle: Handle[Message]
    dead_letter: Handle[DeadLetter]
    background: Sequence[Background] = ()
    also_forget: Forget = nothing_else

    @property
    def modules(self) -> tuple[str, ...]:
        """Where this service's tables are defined."""
        return db.tables(self.name)

    @property
    def migrations(self) -> str:
        """The package of this service's migrations."""
        return f"{self.name}_svc.migrations"


def main(service: Service, settings: Settings) -> None:
    """Run a service in this process until SIGTERM or SIGINT."""
    telemetry.configure(service.name, settings.log_level, settings.log_format)
    for user in {bus.user_of(address) for address in addresses(settings.broker())}:
        if settings.publishers == "owners" and user != service.name:
            raise SystemExit(f"wrong setting: PUBLISHERS=owners needs the broker user {service.name}, not {user}")
    # A batch makes thousands of objects, and all of them go with it, without the collector: it need not look so
    # often. What was loaded until here stays for ever, and need not be looked at.
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS, 10, 10)
    gc.freeze()
    asyncio.run(_until_signalled(service, settings))


async def _until_signalled(service: Service, settings: Settings) -> None:
    life = Life(service.name)
    # A thread, so that it comes also when the loop is stuck or gone.
    patience = threading.Timer(_PATIENCE, _leave_at_once)
    patience.daemon = True

    def leave() -> None:
        if not life.is_stopping():
            patience.start()
        life.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, leave)
    await run(service, settings, life)
    if life.is_stopping():
        # All is finished and closed. A notice's channel may still block a thread, and Python would wait for it.
        _leave(0)


def _leave_at_once() -> None:
    log.error("could not finish in time; what was in hand will be delivered again")
    _leave(1)


def _leave(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


async def run(service: Service, settings: Settings, life: Life) -> None:
    """Run a service until `life` is asked to stop."""
    relay = Relay(settings.outbox_limit, life)
    metrics = Metrics(
        service.name,
        slowest_ms=settings.retry_delays[-1].milliseconds,
        vitals=lambda: _vitals(life.health, relay, settings),
    )
    unit_of_work = UnitOfWork(life, relay, metrics.transacted)
    observers = Observers()
    url = settings.database_url or f"sqlite://var/data/{service.name}.sqlite3"
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(
            health.serve(
                life.health,
                metrics.page,
                settings.health_host,
                settings.health_port,
                token=lambda: _health_token(settings),
            )
        )
        if settings.health_port:
            stack.enter_context(observers.joined_by(metrics.observe))
        await stack.enter_async_context(tracing.traced(service.name, observers))
        try:
            await patiently(
                life,
                lambda: stack.enter_async_context(db.open_database(url, service.modules, service.migrations)),
            )
        except Exception:
            if life.is_stopping():
                return
            raise
        log.info("started")
        janitor = Janitor(service.name, settings, life, relay, service.also_forget)
        chores = [janitor.run(unit_of_work), *(work(life, unit_of_work, observers) for work in service.background)]
        background = [asyncio.create_task(chore) for chore in chores]
        wait = _FIRST_WAIT
        while not life.is_stopping():
            opened_at = time.monotonic()
            try:
                async with bus.open_session(settings.broker(), service.name) as session:
                    await _see_to_topology(session, settings)
                    tells = observers.joined_by(session.tell) if settings.history else contextlib.nullcontext()
                    with tells:
                        await _serve(service, settings, session, unit_of_work, relay, life, observers)
            except (Exception, asyncio.CancelledError) as error:
                # A connection that dies while it is opened raises nearly anything, a bare Exception and even
                # CancelledError included; only our own cancellation is one.
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
                life.health.broker = (tls.why(error, settings.rabbitmq_url) or f"{type(error).__name__}: {error}")[
                    :200
                ]
                if isinstance(error, aiormq.exceptions.ChannelPreconditionFailed):
                    # Arguments of a queue cannot change: an older version, or other settings, declared it.
                    alarm("the broker has an object of that name with other arguments", error=life.health.broker)
                else:
                    log.warning("the broker is away; trying again", error=life.health.broker)
            wait = _FIRST_WAIT if time.monotonic() - opened_at > _GOOD_SESSION else min(2 * wait, _LONGEST_WAIT)
            await life.pause(wait)
        for chore in background:
            await chore
        log.info("stopped")


def _health_token(settings: Settings) -> str:
    try:
        return settings.bearer()
    except FileError as error:
        # Nobody gets in by a file that is gone; and nobody knows what is not asked for.
        log.warning("nobody may read the metrics", error=str(error))
        return secrets.token_urlsafe()


def _vitals(known: health.Health, relay: Relay, settings: Settings) -> Vitals:
    return Vitals(
        is_broker_there=known.broker == "ok",
        is_database_there=known.database == "ok",
        outbox_depth=relay.depth,
        outbox_limit=settings.outbox_limit,
        outbox_oldest=relay.oldest,
        sessions=known.sessions,
        database_waits=known.database_waits,
        offered_again=known.offered_again,
        forgotten=known.forgotten,
        notices=known.notices,
        open_sagas=known.open_sagas,
        oldest_open_saga=known.oldest_open_saga,
    )


async def _see_to_topology(session: bus.Session, settings: Settings) -> None:
    """Declare the broker's objects, or look whether they are there. Without the history the sagas go on."""
    see_to = session.declare if settings.declare_topology else session.check
    needed, history = topology.parts(settings.retry_delays, settings.lanes)
    await see_to(needed)
    if settings.history:
        try:
            await see_to(history)
        except aiormq.exceptions.ChannelClosed as error:
            log.warning("the history is not as it should be; the sagas go on without", error=str(error)[:200])


async def _serve(
    service: Service,
    settings: Settings,
    session: bus.Session,
    unit_of_work: UnitOfWork,
    relay: Relay,
    life: Life,
    observers: Observers,
) -> None:
    """Work in this session until it ends or the service is to stop; then finish what is in hand."""
    consumer = Consumer(
        session, settings, unit_of_work, relay, reading_messages(settings), service.handle, observers
    )
    undertaker = Consumer(
        session, settings, unit_of_work, relay, reading_dead_letters(settings), service.dead_letter, observers
    )
    # No step waits for what the first service does about events: it completes payments, or undoes them.
    gather = _SECONDS_TO_GATHER if service.name == FIRST.service else 0
    inboxes = [await consumer.listen(topology.events_queue(service.name), gather=gather)]
    if command_keys(service.name):
        lanes = [topology.lane_queue(service.name, lane) for lane in settings.lanes]
        inboxes += [
            await consumer.listen(queue, pace=_SECONDS_BETWEEN_COMMANDS, prefetch=settings.prefetch_of_a_lane)
            for queue in (topology.commands_queue(service.name), *lanes)
        ]
    inboxes.append(await undertaker.listen(topology.dead_queue(service.name), gather=_SECONDS_TO_GATHER))
    life.health.broker = "ok"
    life.health.sessions += 1
    log.info("taking messages")

    work = [asyncio.create_task(consumer.run()), asyncio.create_task(undertaker.run())]
    chores = [
        asyncio.create_task(_ends_session(session, relay.run(session))),
        asyncio.create_task(_ends_session(session, _sweep(settings, relay, life))),
    ]
    await _first(session.ended(), life.stopping())
    if not session.is_over:
        with contextlib.suppress(*_BROKER_IS_AWAY):
            await session.stop_consuming(inboxes)
    consumer.stop()
    undertaker.stop()
    _, unfinished = await asyncio.wait(work, timeout=_SECONDS_TO_FINISH if life.is_stopping() else None)
    if unfinished:
        # A blocked broker or a locked row: what is in hand is undone with its transaction and delivered again.
        session.end("stopped before the batch was finished")
    if not session.is_over:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SECONDS_TO_FLUSH):
                await relay.flushed()
    if not session.is_over:
        with contextlib.suppress(*_BROKER_IS_AWAY):
            async with asyncio.timeout(_SECONDS_TO_FLUSH):
                await session.finish(inboxes)
    # Neither holds a transaction, so both may be cancelled.
    for chore in chores:
        chore.cancel()
    await asyncio.wait(chores)
    if session.is_over and not life.is_stopping():
        why = await session.ended()
        life.health.broker = why
        log.warning("the session with the broker ended; opening a new one", why=why)


async def _sweep(settings: Settings, relay: Relay, life: Life) -> None:
    while True:
        await patiently(life, relay.sweep)
        life.health.outbox = relay.depth
        await asyncio.sleep(settings.sweep_seconds)


async def _ends_session(session: bus.Session, chore: Coroutine[Any, Any, None]) -> None:
    """Run a chore of the session; if it fails, the session is over."""
    try:
        await chore
    except bus.SessionEnded:
        pass
    except Exception as error:  # noqa: BLE001 - whatever it was, the next session starts from nothing
        log.exception("a chore of the session failed")
        session.end(f"a chore failed: {error}")


async def _first(*conditions: Coroutine[Any, Any, object]) -> None:
    tasks = [asyncio.create_task(condition) for condition in conditions]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
