"""What becomes of a message: one closed type, decided by pure functions, settled in `common.consumer`.

A message that fails is copied to a retry level, to the dead queue or to the parked queue, and only then acked.
The copy carries our own flat headers, because RabbitMQ 4 ignores `x-death` on what a client publishes again.
They are believed only where nobody else can have written them; see `provenance`.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import Enum, StrEnum, auto

from common import saga, topology
from common.db import Fault
from common.messages import Malformed, Message, UnknownType, printable
from common.settings import Delay


class Deed(StrEnum):
    """What was done about a message that ended well; for those who look on, no decision depends on it."""

    DID = "did"
    """The service's part, for the first time."""
    REPEATED = "repeated"
    """Said the answer again, to a message that came again."""
    UNDID = "undid"
    """Compensated."""
    CLOSED = "closed"
    """Remembered never to do it."""
    FAILED = "failed"
    """A dead letter ended the saga here."""
    ANSWERED = "answered"
    """A command beside the saga has its answer."""
    SENT = "sent"
    """A notice was delivered."""
    IGNORED = "ignored"
    """There was nothing to do."""


@dataclass(frozen=True, slots=True)
class Done:
    """Handled, or rightly ignored. The original is acked."""

    deed: Deed = field(default=Deed.DID, compare=False)
    since: datetime | None = field(default=None, compare=False)
    """When the saga began that ends here; for those who look on, too."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Not now: again after the delay of a level (an index). `persistent`: this will never be given up."""

    level: int
    reason: str
    detail: str
    attempt: int
    persistent: bool = False


@dataclass(frozen=True, slots=True)
class Dead:
    """Terminal: refused, or its retries are spent. The dead-letter handler decides what that means."""

    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Parked:
    """Only a person can decide: malformed, in conflict, or against the protocol."""

    reason: str
    detail: str


Outcome = Done | Retry | Dead | Parked
DONE = Done()

#: The reason of a message that the broker gave up on; such a message is handled alone when it comes back.
CRASH_GUARD = "crash_guard"
#: A dead letter that cannot be decided goes round at the slowest level for ever, whatever its type.
DEAD_LETTER_FAILED = "dead_letter_failed"
#: The crash guard struck again although the message was alone: it is the killer.
CRASHED_ALONE = "crashed_alone"


class Promise(Enum):
    """How long a message is tried."""

    UNTIL_SPENT = auto()
    """Through the retry levels, then dead: a forward message or a command."""
    FOR_EVER = auto()
    """A compensation, or anything after the pivot: giving up would tear the saga."""


def promise(type_: str) -> Promise:
    """How long a message of this type is tried."""
    if type_.endswith(".failed") or type_ in {saga.PIVOT.emits, saga.SETTLED}:
        return Promise.FOR_EVER
    return Promise.UNTIL_SPENT


@dataclass(frozen=True, slots=True)
class History:
    """What a message has been through before this attempt."""

    attempts: int = 0
    reason: str = ""
    detail: str = ""
    first_failed_at: datetime | None = None

    @property
    def is_suspect(self) -> bool:
        """Whether it may kill its handler, so that it must be handled alone."""
        return self.reason == CRASH_GUARD


def disposition(
    type_: str,
    error: Exception,
    fault: Fault,
    history: History,
    *,
    levels: int,
    now: datetime,
    unknown_for: timedelta,
) -> Outcome:
    """What becomes of a message of `type_` whose handling raised `error`, which the database calls `fault`.

    Not for `Fault.AWAY`: a lost database is no attempt.

    >>> disposition(
    ...     "payment.paid",
    ...     RuntimeError("boom"),
    ...     Fault.OTHER,
    ...     History(attempts=1),
    ...     levels=4,
    ...     now=datetime.now(UTC),
    ...     unknown_for=timedelta(hours=1),
    ... )
    Retry(level=1, reason='error', detail='RuntimeError: boom', attempt=2, persistent=False)
    """
    match error:
        case Malformed():
            return Parked(error.reason, error.detail)
        case UnknownType():
            since = history.first_failed_at or now
            if now - since >= unknown_for:
                return Parked("unknown_type", printable(str(error)))
            return Retry(levels - 1, "unknown_type", printable(str(error)), history.attempts + 1)
    attempt = history.attempts + 1
    detail = printable(f"{type(error).__name__}: {error}")
    for_ever = promise(type_) is Promise.FOR_EVER
    if fault is Fault.DATA and not for_ever:
        return Dead(saga.DATA_ERROR, detail)
    if attempt > levels and not for_ever:
        return Dead(saga.RETRIES_SPENT, detail)
    return Retry(min(attempt, levels) - 1, "error", detail, attempt, persistent=for_ever)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A terminal failure as a service's dead-letter handler sees it."""

    message: Message
    reason: str
    detail: str
    attempts: int


def after_death(type_: str, history: History, *, levels: int, killed_by_broker: bool) -> Outcome | None:
    """What becomes of a dead letter before the service is asked; None: the service decides.

    A message that the broker killed may be an innocent neighbour of the real killer, so it goes back to be
    handled alone. What may never be given up goes to the slowest level, with an alarm.
    """
    if killed_by_broker and not history.is_suspect:
        detail = "the broker gave up on it after too many unanswered deliveries; it is handled alone now"
        return Retry(0, CRASH_GUARD, detail, history.attempts + 1)
    if promise(type_) is Promise.FOR_EVER:
        reason = history.reason or "error"
        return Retry(levels - 1, reason, history.detail or "died", history.attempts + 1, persistent=True)
    return None


TYPE = "x-type"
ATTEMPT = "x-attempt"
REASON = "x-reason"
DETAIL = "x-detail"
FIRST_FAILED_AT = "x-first-failed-at"
FAILED_IN = "x-failed-in"
#: The broker user who published the original: a copy is the service's own, what it says need not be.
PUBLISHER = "x-published-by"
#: Bytes that a copy lacks of a body that was too large to be kept whole.
LEFT_OUT = "x-left-out"

#: What a copy keeps of the original's headers. All are flat scalars, as streams demand.
KEPT_HEADERS = ("traceparent", "tracestate")
_MAX_HEADER = 512


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a delivery comes from, as far as it can be believed.

    `publisher` is the broker user who first published it; None if nobody signed it. `aborted`: its publisher gave
    it to the service as a dead letter.
    """

    type: str
    history: History
    killed_by_broker: bool = False
    publisher: str | None = None
    aborted: bool = False


def provenance(
    service: str,
    own_user: str,
    *,
    routing_key: str,
    user_id: str | None,
    headers: Mapping[str, object],
) -> Origin:
    """The type, history and publisher of a delivery.

    Our own headers are believed only on the service's own recovery keys and from its own broker user; the
    broker vouches for `user_id`. Anywhere else the routing key alone decides the type. A death by the broker
    tells the original routing key in the newest entry of `x-death`. RabbitMQ 3.10 keeps that key if a publisher
    forged the entry, so it is believed only if the queue is bound for it.
    """
    stranger = Origin(routing_key, History(), publisher=user_id)
    if not routing_key.startswith(f"{service}."):
        # Nearly all that comes: an event of another service. Every key of our own recovery begins with our name.
        return stranger
    ours = _believed(headers) if user_id == own_user else None
    deaths = headers.get("x-death")
    if routing_key == topology.return_key(service):
        return ours or stranger
    if routing_key == topology.dead_queue(service):
        return _dead(service, deaths, ours, stranger)
    if routing_key == topology.replay_key(service):
        # Its newest death is that an operator rejected it. It begins anew; only a suspect stays one.
        before = _dead(service, deaths[1:] if isinstance(deaths, list) else None, ours, stranger)
        suspect = before.killed_by_broker or before.history.is_suspect
        return replace(before, history=History(reason=CRASH_GUARD if suspect else ""), killed_by_broker=False)
    if routing_key == topology.abort_key(service) and user_id is not None:
        past = replace(_believed(headers).history, reason=saga.ABORTED)
        return replace(stranger, type=saga.step_of(service).on, history=past, aborted=True)
    return stranger


def _dead(service: str, deaths: object, ours: Origin | None, stranger: Origin) -> Origin:
    """Where a dead letter comes from: a copy of ours, or an original that the broker gave up on."""
    killed = _killed_under(service, deaths)
    if killed is None:
        return ours or stranger
    if killed == topology.return_key(service) and ours:
        return replace(ours, killed_by_broker=True)
    return replace(stranger, type=killed, killed_by_broker=True)


def _killed_under(service: str, deaths: object) -> str | None:
    """The routing key under which the broker gave up on a message; None if we sent it here ourselves.

    Expiry is a death too: a publisher may have set one on its own command.
    """
    if not isinstance(deaths, list) or not deaths or not isinstance(deaths[0], Mapping):
        return None
    keys = deaths[0].get("routing-keys")
    if deaths[0].get("reason") not in ("delivery_limit", "expired") or not isinstance(keys, list) or not keys:
        return None
    key = str(keys[0])
    bound: tuple[str, ...] = ()
    if topology.holds_commands(str(deaths[0].get("queue")), service):
        bound = saga.command_keys(service)
    elif deaths[0].get("queue") == topology.events_queue(service):
        bound = (*saga.event_keys(service), topology.return_key(service))
    return key if saga.binding_of(key) in bound else None


def _believed(headers: Mapping[str, object]) -> Origin:
    type_ = headers.get(TYPE)
    attempt = headers.get(ATTEMPT)
    first = headers.get(FIRST_FAILED_AT)
    history = History(
        attempts=attempt if isinstance(attempt, int) and attempt >= 0 else 0,
        reason=_text(headers.get(REASON)),
        detail=_text(headers.get(DETAIL)),
        first_failed_at=_time(first),
    )
    return Origin(_text(type_), history, publisher=_text(headers.get(PUBLISHER)) or None)


def _text(value: object) -> str:
    return value[:_MAX_HEADER] if isinstance(value, str) else ""


def _time(value: object) -> datetime | None:
    try:
        return datetime.fromisoformat(value).astimezone(UTC) if isinstance(value, str) else None
    except (ValueError, OverflowError):
        return None


def copy_headers(
    headers: Mapping[str, object],
    origin: Origin,
    *,
    reason: str,
    detail: str,
    attempt: int,
    failed_in: str,
    now: datetime,
    left_out: int = 0,
) -> dict[str, str | int]:
    """The headers of a copy: an allow-list of the original's; why, where, when, after how many attempts.

    `left_out`: bytes of the body that the delivery itself did not keep.
    """
    kept: dict[str, str | int] = {
        name: value
        for name in KEPT_HEADERS
        if isinstance(value := headers.get(name), str) and len(value) <= _MAX_HEADER
    }
    if origin.publisher:
        kept[PUBLISHER] = origin.publisher[:255]
    if missing := left_out or left_out_before(headers):
        kept[LEFT_OUT] = missing
    first = origin.history.first_failed_at or now
    return kept | {
        # What an operator wrote is only ever a letter: replayed, it must not come back as what it is a letter of.
        TYPE: topology.abort_key(_on(origin.type)) if origin.aborted else origin.type[:255],
        ATTEMPT: attempt,
        REASON: reason,
        DETAIL: printable(detail),
        FIRST_FAILED_AT: first.isoformat(),
        FAILED_IN: failed_in,
    }


def left_out_before(headers: Mapping[str, object]) -> int:
    """Bytes that this copy lacks, as its headers say; whoever else writes so has their message set aside."""
    missing = headers.get(LEFT_OUT)
    return missing if isinstance(missing, int) and missing > 0 else 0


def _on(type_: str) -> str:
    """The service that does its part on messages of this type."""
    return next(step.service for step in saga.SAGA if step.on == type_)


def expiration(delay: Delay, chance: random.Random) -> int:
    """Milliseconds until a retry: 0.8 to 1.0 of its level, so that what failed together comes back apart."""
    return max(1, round(delay.milliseconds * chance.uniform(0.8, 1.0)))


def destination(service: str, outcome: Retry | Dead | Parked, delays: Sequence[Delay]) -> str:
    """The routing key on the recovery exchange under which the copy is published."""
    match outcome:
        case Retry(level=level):
            return topology.retry_queue(service, delays[level])
        case Dead():
            return topology.dead_queue(service)
        case Parked():
            return topology.parked_queue(service)
