"""The consumer: takes what has arrived, does it in one transaction, and settles every message in one place.

Handlers see messages and return outcomes. They never see a channel, an ack, a header, an attempt count or
a commit. One bad message never spoils its neighbours: a refusal is a value, and when a transaction fails as
a whole, its messages are done again one at a time.
"""

from __future__ import annotations

import asyncio
import math
import random
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Generic, TypeVar, assert_never

from common import db, messages, recovery, retention, rights, saga, topology
from common.bus import Copy, Inbox, Session, SessionEnded
from common.channel import Delivery
from common.history import REPLICA, Became, Entry, Observers, Record
from common.messages import Failed, Malformed, Message, UnknownType
from common.outbox import Event, Outbox, Relay, message_id
from common.personal import unnamed
from common.recovery import Dead, DeadLetter, Deed, Done, Origin, Outcome, Parked, Retry
from common.settings import Settings
from common.telemetry import alarm, log, trace_facts, valid_traceparent
from common.unit_of_work import Batch, UnitOfWork
from common.wire import UNREADABLE

#: Unanswered deliveries after which a message is suspected to kill its handler and is handled alone.
_SUSPECT_AFTER = 5
#: How often a message that lost a race against another replica is done again at once.
_RACES = 5
#: How long to take care after a lost race: where one was, there are more.
_SECONDS_OF_CARE = 1.0
#: Headers of one message; ours have seven.
MAX_HEADERS = 64

M = TypeVar("M", Message, DeadLetter)
Handle = Callable[[Batch[M]], Awaitable[list[Outcome]]]


@dataclass(frozen=True, slots=True)
class _Opened(Generic[M]):
    """A delivery that was read: either there is content to handle, or it is settled already."""

    delivery: Delivery
    origin: Origin
    content: M | None
    settled: Outcome | None = None
    taken_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def is_suspect(self) -> bool:
        """Whether it may kill its handler, by its history or by how often nobody answered for it."""
        # RabbitMQ passes on a count that a publisher wrote, but it says itself whether it is the first delivery.
        unanswered = self.delivery.headers.get("x-delivery-count", 0) if self.delivery.redelivered else 0
        return self.origin.history.is_suspect or (isinstance(unanswered, int) and unanswered >= _SUSPECT_AFTER)


@dataclass(slots=True)
class _Decided:
    """What becomes of a message, and the events that it caused."""

    outcome: Outcome
    said: Sequence[Event] = ()


@dataclass(frozen=True, slots=True)
class Reading(Generic[M]):
    """How deliveries of one kind become content, and what becomes of content whose handling failed."""

    read: Callable[[Message, Origin], M | Outcome]
    dispose: Callable[[Origin, Exception, datetime], Outcome]


class Consumer(Generic[M]):
    """Works inboxes of one session: the first before all others, which take turns."""

    def __init__(
        self,
        session: Session,
        settings: Settings,
        unit_of_work: UnitOfWork,
        relay: Relay,
        reading: Reading[M],
        handle: Handle[M],
        observers: Observers,
    ) -> None:
        self._session = session
        self._settings = settings
        self._retention = timedelta(hours=settings.retention_hours)
        self._unit_of_work = unit_of_work
        self._relay = relay
        self._reading: Reading[M] = reading
        self._handle: Handle[M] = handle
        self._observers = observers
        self._asks_who = rights.are_checked(session.service, session.user, settings.publishers)
        self._inboxes: list[Inbox] = []
        self._arrived = asyncio.Event()
        self._stopped = False
        self._careful_until = -math.inf

    async def listen(
        self, queue: str, *, gather: float = 0, pace: float = 0, prefetch: int | None = None
    ) -> Inbox:
        """Start to consume a queue; `gather` and `pace`: how messages wait there for company, see `Inbox`."""
        inbox = await self._session.consume(
            queue,
            prefetch or self._settings.prefetch,
            self._arrived,
            gather=gather,
            pace=pace,
            batch=self._settings.batch_size,
        )
        self._inboxes.append(inbox)
        return inbox

    def stop(self) -> None:
        """Leave after the batch in hand; what was not begun is delivered to somebody else."""
        self._stopped = True
        self._arrived.set()

    async def run(self) -> None:
        """Work until stopped. What goes wrong here ends the session, and never the process."""
        try:
            while not self._stopped:
                inbox = next((inbox for inbox in self._inboxes if inbox), None)
                if inbox is None:
                    self._arrived.clear()
                    await self._arrived.wait()
                elif await self._relay.has_room(seconds=1):
                    await self._work(inbox, inbox.take(self._settings.batch_size))
                    if inbox is not self._inboxes[0]:
                        # To the end: a queue that is always full keeps no other waiting for more than a batch.
                        self._inboxes.remove(inbox)
                        self._inboxes.append(inbox)
        except SessionEnded as error:
            self._session.end(str(error))
        except Exception as error:  # noqa: BLE001 - whatever it was, the next session starts from nothing
            if not self._session.is_over and not self._stopped:
                log.exception("the consumer stumbled; opening a new session")
            self._session.end(f"the consumer stumbled: {error}")

    async def _work(self, inbox: Inbox, deliveries: list[Delivery]) -> None:
        opened = [self._open(delivery) for delivery in deliveries]
        suspects = [message for message in opened if message.is_suspect]
        trusted = [message for message in opened if not message.is_suspect]
        if trusted:
            await self._do(inbox, trusted, all_before=not suspects)
        # In random order and settled one by one: if one of them kills this process, it takes fewer along.
        random.shuffle(suspects)
        for suspect in suspects:
            await self._do(inbox, [suspect], all_before=False)

    async def _do(self, inbox: Inbox, opened: Sequence[_Opened[M]], *, all_before: bool) -> None:
        began = time.perf_counter()
        decided = await self._decide(opened)
        await self._settle(inbox, opened, decided, all_before=all_before)
        took_ms = 1000 * (time.perf_counter() - began)
        self._observers.tell(lambda: self._record(opened, decided, took_ms=took_ms))

    def _open(self, delivery: Delivery) -> _Opened[M]:
        origin = recovery.provenance(
            self._session.service,
            self._session.user,
            routing_key=delivery.routing_key,
            user_id=delivery.user_id,
            headers=delivery.headers,
        )
        if self._asks_who and not _may(origin):
            # Before anything else: a copy of ours would lend it our name.
            detail = f"{origin.publisher or 'nobody'} signed it, who may not say {origin.type}"
            return _Opened(delivery, origin, None, Parked(rights.NOT_ITS_OWNER, messages.printable(detail)))
        try:
            content = self._reading.read(_decode(self._session.service, delivery, origin), origin)
        except (Malformed, UnknownType) as error:
            return _Opened(delivery, origin, None, disposition(self._settings)(origin, error, _now()))
        if isinstance(content, Outcome):
            return _Opened(delivery, origin, None, content)
        late = retention.too_old(
            self._session.service, _message(content).body, retention=self._retention, now=_now()
        )
        return _Opened(delivery, origin, content, late)

    async def _decide(self, opened: Sequence[_Opened[M]]) -> list[_Decided]:
        readable = [message for message in opened if message.settled is None]
        decided = iter(await self._attempt(readable) if readable else ())
        return [_Decided(message.settled) if message.settled else next(decided) for message in opened]

    async def _attempt(
        self, opened: Sequence[_Opened[M]], races: int = _RACES, *, careful: bool = False
    ) -> list[_Decided]:
        careful = careful or time.monotonic() < self._careful_until
        contents = [message.content for message in opened if message.content is not None]

        async def unit(now: datetime, outbox: Outbox) -> list[_Decided]:
            outcomes = await self._handle(Batch(contents, now, outbox, careful))
            if len(outcomes) != len(contents):
                raise RuntimeError(f"{len(outcomes)} outcomes for {len(contents)} messages")
            said: dict[tuple[str, str], list[Event]] = {}
            for event in outbox.events:
                said.setdefault((event.key, event.cause), []).append(event)
            causes = [_message(content) for content in contents]
            return [
                _Decided(outcome, said.get((cause.key, cause.type), ()))
                for outcome, cause in zip(outcomes, causes, strict=True)
            ]

        try:
            return await self._unit_of_work.run(unit)
        except Exception as error:
            fault = db.classify(error)
            if fault is db.Fault.AWAY:
                raise
            if fault is db.Fault.RACE:
                self._careful_until = time.monotonic() + _SECONDS_OF_CARE
                if not careful:
                    return await self._attempt(opened, races, careful=True)
            if len(opened) > 1:
                told = _unnamed(str(error), contents)[:200]
                log.info("a batch failed; doing it one at a time", size=len(opened), error=told)
                return [decided for message in opened for decided in await self._attempt([message])]
            if fault is db.Fault.RACE and races:
                return await self._attempt(opened, races - 1, careful=True)
            outcome = self._reading.dispose(opened[0].origin, error, _now())
            # A database names the values that it stumbles over, and this goes into headers, logs and the history.
            return [_Decided(outcome if isinstance(outcome, Done) else _without_names(outcome, contents))]

    async def _settle(
        self, inbox: Inbox, opened: Sequence[_Opened[M]], decided: Sequence[_Decided], *, all_before: bool
    ) -> None:
        """Copy what did not end well to where it belongs, and only then ack the originals."""
        copies = []
        for message, decision in zip(opened, decided, strict=True):
            outcome = decision.outcome
            _tell(message, outcome)
            match outcome:
                case Done():
                    pass
                case Retry():
                    expires_in = self._session.retry_expiration(self._settings.retry_delays[outcome.level])
                    copies.append(self._copy(message, outcome, outcome.attempt, expires_in))
                case Dead() | Parked():
                    copies.append(self._copy(message, outcome, message.origin.history.attempts + 1, None))
                case _:
                    assert_never(outcome)
        if copies:
            await self._session.publish_copies(copies)
        await inbox.ack([message.delivery for message in opened], all_before=all_before)

    def _copy(
        self, message: _Opened[M], outcome: Retry | Dead | Parked, attempt: int, expires_in: int | None
    ) -> Copy:
        return Copy(
            delivery=message.delivery,
            routing_key=recovery.destination(self._session.service, outcome, self._settings.retry_delays),
            headers=recovery.copy_headers(
                message.delivery.headers,
                message.origin,
                reason=outcome.reason,
                detail=outcome.detail,
                attempt=attempt,
                failed_in=message.delivery.queue,
                now=_now(),
                left_out=message.delivery.left_out,
            ),
            expires_in=expires_in,
        )

    def _record(self, opened: Sequence[_Opened[M]], decided: Sequence[_Decided], *, took_ms: float) -> Record:
        """What those who look on are told of a batch."""
        return Record(
            service=self._session.service,
            replica=REPLICA,
            at=_now(),
            took_ms=took_ms,
            entries=[self._entry(*pair) for pair in zip(opened, decided, strict=True)],
        )

    def _entry(self, message: _Opened[M], decided: _Decided) -> Entry:
        origin, delivery = message.origin, message.delivery
        entry = Entry(
            saga=_key(message) or delivery.correlation_id or "",
            type=origin.type,
            # A dead letter is no attempt: what it counts are the attempts before it.
            attempt=max(1, origin.history.attempts + (not isinstance(message.content, DeadLetter))),
            waited_ms=_waited_ms(delivery.headers.get("cloudEvents_time"), message.taken_at),
            said=[(event.type, event.traceparent) for event in decided.said],
            trace=valid_traceparent(delivery.headers.get("traceparent")) or "",
        )
        match decided.outcome:
            case Done(deed=deed, since=since):
                entry.deed = deed
                if since is not None:
                    entry.lasted_ms = max(1, round(1000 * (message.taken_at - since).total_seconds()))
                _give_reason(entry, message.content)
                if deed is Deed.IGNORED:
                    # It came in one batch with the message that caused it.
                    entry.said = ()
            case Retry(level=level, reason=reason, detail=detail):
                entry.became, entry.reason, entry.detail = Became.RETRY, reason, detail
                entry.delay_ms = self._settings.retry_delays[level].milliseconds
            case Dead(reason=reason, detail=detail):
                entry.became, entry.reason, entry.detail = Became.DEAD, reason, detail
            case Parked(reason=reason, detail=detail):
                entry.became, entry.reason, entry.detail = Became.PARKED, reason, detail
        return entry


def _message(content: Message | DeadLetter) -> Message:
    return content.message if isinstance(content, DeadLetter) else content


def _without_names(outcome: Retry | Dead | Parked, contents: Iterable[Message | DeadLetter]) -> Outcome:
    return replace(outcome, detail=_unnamed(outcome.detail, contents))


def _unnamed(text: str, contents: Iterable[Message | DeadLetter]) -> str:
    """What is said of an error, without what these messages tell of persons."""
    return unnamed(text, *(_message(content).body.model_dump() for content in contents))


def _give_reason(entry: Entry, content: Message | DeadLetter | None) -> None:
    """Why the saga ended: of what died here, and of what failed elsewhere."""
    match content:
        case DeadLetter(reason=reason, detail=detail):
            entry.reason, entry.detail = reason, detail
        case Message(body=Failed(reason=reason, detail=detail)):
            entry.reason, entry.detail = reason, detail


def _waited_ms(published_at: object, taken_at: datetime) -> int:
    """How long a message was on its way, as its publisher's clock and ours tell; 0 if nobody knows."""
    try:
        waited = taken_at - datetime.fromisoformat(str(published_at))
    except (ValueError, TypeError, OverflowError):
        return 0
    return max(0, round(1000 * waited.total_seconds()))


def reading_messages(settings: Settings) -> Reading[Message]:
    """How events and commands are read: as they are."""
    return Reading(read=lambda message, _: message, dispose=disposition(settings))


def reading_dead_letters(settings: Settings) -> Reading[DeadLetter]:
    """How terminal failures are read, whether our own consumer or the broker gave up on them."""
    levels = len(settings.retry_delays)

    def read(message: Message, origin: Origin) -> DeadLetter | Outcome:
        killed = origin.killed_by_broker
        outcome = recovery.after_death(origin.type, origin.history, levels=levels, killed_by_broker=killed)
        return outcome or _letter(message, origin)

    def dispose(origin: Origin, error: Exception, _: datetime) -> Outcome:
        # A dead letter that cannot be decided now goes round again; nothing can be lost by that.
        detail = messages.printable(f"{type(error).__name__}: {error}")
        # A letter that an operator wrote must not come back as the message that it is a letter of.
        if origin.aborted or db.classify(error) is db.Fault.DATA:
            return Parked(recovery.DEAD_LETTER_FAILED, detail)
        attempt = origin.history.attempts + 1
        return Retry(levels - 1, recovery.DEAD_LETTER_FAILED, detail, attempt, persistent=True)

    return Reading(read, dispose)


def disposition(settings: Settings) -> Callable[[Origin, Exception, datetime], Outcome]:
    """What becomes of a message whose handling failed, under these settings."""
    levels = len(settings.retry_delays)
    unknown_for = timedelta(hours=settings.unknown_type_hours)

    def dispose(origin: Origin, error: Exception, now: datetime) -> Outcome:
        fault = db.classify(error)
        return recovery.disposition(
            origin.type, error, fault, origin.history, levels=levels, now=now, unknown_for=unknown_for
        )

    return dispose


def _may(origin: Origin) -> bool:
    return rights.may_abort(origin.publisher) if origin.aborted else rights.may_say(origin.publisher, origin.type)


def _decode(service: str, delivery: Delivery, origin: Origin) -> Message:
    if UNREADABLE in delivery.headers:
        why = delivery.headers[UNREADABLE]
        told = why if isinstance(why, str) else "the headers break the rules of AMQP and cannot be read"
        raise Malformed("bad_headers", messages.printable(told))
    if origin.type in {of(service) for of in (topology.dead_queue, topology.replay_key, topology.abort_key)}:
        raise Malformed("unknown_origin", "neither this service nor the broker says how it came here")
    # Before its type is known or not: what is too large goes round no retry level.
    if left_out := delivery.left_out or recovery.left_out_before(delivery.headers):
        kept = len(delivery.body)
        detail = f"{kept + left_out} bytes; the limit is {messages.MAX_BODY}; the first {kept} are kept"
        raise Malformed("too_large", detail)
    if origin.type in messages.TYPES and not saga.takes(service, origin.type):
        # By a wrong binding or a CC header: doing somebody else's step would fail somebody else's saga.
        raise Malformed("not_ours", f"the {service} service does not take {origin.type}")
    if len(delivery.headers) > MAX_HEADERS:
        raise Malformed("bad_headers", f"{len(delivery.headers)} headers; the limit is {MAX_HEADERS}")
    for name in ("cloudEvents_type", "cloudEvents:type"):
        told = delivery.headers.get(name, origin.type)
        if told != origin.type:
            raise Malformed("bad_headers", f"{name} contradicts the routing key {origin.type!r:.100}")
    for name in ("cloudEvents_specversion", "cloudEvents:specversion"):
        if delivery.headers.get(name, "1.0") != "1.0":
            raise Malformed("bad_headers", f"{name} must be 1.0")
    body = messages.decode(
        origin.type,
        delivery.body,
        content_type=delivery.content_type,
        content_encoding=delivery.content_encoding,
    )
    return Message(origin.type, body, valid_traceparent(delivery.headers.get("traceparent")))


def _letter(message: Message, origin: Origin) -> DeadLetter:
    reason = recovery.CRASHED_ALONE if origin.killed_by_broker else origin.history.reason
    return DeadLetter(
        message=message,
        reason=reason if re.fullmatch(r"[a-z0-9_]{1,64}", reason) else "died",
        detail=messages.printable(origin.history.detail),
        attempts=origin.history.attempts,
    )


def _tell(message: _Opened[M], outcome: Outcome) -> None:
    """One line for whatever is of interest; none for what went well."""
    if isinstance(outcome, Done):
        return
    key = _key(message) or message.delivery.correlation_id
    facts = {
        "type": message.origin.type,
        "saga": key,
        # What the original was called: a copy on its way through recovery has a name of its own.
        "message": message_id(key, message.origin.type) if key else None,
        "reason": outcome.reason,
        "detail": outcome.detail,
        "attempt": message.origin.history.attempts + 1,
        **trace_facts(valid_traceparent(message.delivery.headers.get("traceparent"))),
    }
    match outcome:
        case Retry(persistent=True) | Parked():
            alarm(
                "parked for a person" if isinstance(outcome, Parked) else "still not done; never given up",
                **facts,
            )
        case Retry():
            log.warning("will be tried again", **facts)
        case Dead():
            log.info("dead letter", **facts)


def _key(message: _Opened[M]) -> str | None:
    return _message(message.content).key if message.content is not None else None


def _now() -> datetime:
    return datetime.now(UTC)
