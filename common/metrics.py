"""Metrics of one service for Prometheus: what became of its messages, how long it took, and how it feels.

What is counted is counted once a batch, into plain numbers of this process; they become lines for Prometheus only
when somebody asks for `/metrics`. A label never takes a value that a stranger can choose.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from common import saga
from common.exposition import Histogram, counter, gauge, gauges, histograms
from common.history import NOTICE, REPLICA, Became, Entry, Record
from common.recovery import DEAD_LETTER_FAILED, Deed, Promise, promise

CONTENT_TYPE = CONTENT_TYPE_LATEST

#: In place of a type or a reason that is not of this version's language.
OTHER = "other"

_TYPES = frozenset((*saga.vocabulary(), NOTICE))
_REFUSALS = frozenset(
    reason
    for refusals in (*(step.refusals for step in saga.SAGA), *(command.refusals for command in saga.COMMANDS))
    for reason in refusals
)
#: Reasons are codes of our own, but old versions and forgers have theirs: more than this many are `other`.
_MOST_REASONS = 100

_TROUBLES: Mapping[str, str] = {Became.RETRY: "retried", Became.DEAD: "dead", Became.PARKED: "parked"}

_OUTCOMES = ("completed", "cancelled", "refused")
#: By what the first service sees a saga end.
_ENDS: Mapping[tuple[str, str], str] = {
    (saga.PIVOT.emits, Deed.DID): "completed",
    (saga.FIRST.on, Deed.FAILED): "refused",
    **{(saga.failed(service), Deed.UNDID): "cancelled" for service in saga.SERVICES},
}

_SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_SHORT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_LONG = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 600, 1800, 3600)
#: Longer than any saga or outage lasts; what a stranger's clock says beyond it would spoil every mean.
_LONGEST = 7 * 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Vitals:
    """How a service feels at the moment of a scrape."""

    is_broker_there: bool
    is_database_there: bool
    outbox_depth: int
    outbox_limit: int
    outbox_oldest: datetime | None = None
    """When the oldest event was staged that is not published; None if all are."""
    sessions: int = 0
    """Sessions opened with the broker since this process began."""
    database_waits: int = 0
    """How often the database was away."""
    offered_again: int = 0
    """Sagas that stayed open too long, so that their event was said again."""
    forgotten: int = 0
    """Sagas whose rows were deleted, since they were over long ago."""
    notices: Mapping[str, int] | None = None
    """Notices by state; None where there are none to send."""
    open_sagas: int | None = None
    """Payments neither completed nor cancelled; None where that is not known."""
    oldest_open_saga: datetime | None = None


class Metrics(Collector):
    """The metrics of this process. `observe` is given every settled batch, `page` every scrape.

    `slowest_ms` is the delay of the last retry level. `vitals` is asked at each scrape; it must not wait.
    """

    def __init__(self, service: str, *, slowest_ms: int, vitals: Callable[[], Vitals]) -> None:
        self._service = service
        self._slowest_ms = slowest_ms
        self._vitals = vitals
        self._is_first = service == saga.FIRST.service
        self._messages: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._reasons: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._slowest: defaultdict[str, int] = defaultdict(int)
        self._known_reasons = set(_REFUSALS)
        self._sizes = Histogram(_SIZES)
        self._batches = Histogram(_SHORT)
        self._transactions = Histogram(_SHORT)
        self._lag = Histogram(_LONG)
        self._durations = {outcome: Histogram(_LONG) for outcome in _OUTCOMES if outcome != "refused"}
        # An alert asks for an increase, and a line that appears with its first event never shows that one.
        for type_ in (*(type_ for type_ in saga.vocabulary() if saga.takes(service, type_)), OTHER):
            self._messages[type_, "parked"] = 0
            self._slowest[type_] = 0
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def observe(self, record: Record) -> None:
        """Count a settled batch: well under a microsecond a message."""
        entries = record.entries
        if entries and entries[0].type != NOTICE:
            self._batches.observe(record.took_ms / 1000)
            self._sizes.observe(len(entries))
        messages = self._messages
        for entry in entries:
            type_ = entry.type if entry.type in _TYPES else OTHER
            if entry.waited_ms:
                self._lag.observe(min(entry.waited_ms / 1000, _LONGEST))
            if entry.became == Became.DONE:
                messages[type_, entry.deed] += 1
                if self._is_first:
                    self._note_end(type_, entry)
            else:
                self._note_trouble(type_, entry)

    def transacted(self, seconds: float) -> None:
        """Count a transaction that was committed."""
        self._transactions.observe(seconds)

    def page(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self._registry)

    def _note_end(self, type_: str, entry: Entry) -> None:
        lasted_ms = entry.lasted_ms
        if lasted_ms and (duration := self._durations.get(_ENDS.get((type_, entry.deed), ""))):
            duration.observe(min(lasted_ms / 1000, _LONGEST))

    def _note_trouble(self, type_: str, entry: Entry) -> None:
        became = _TROUBLES[entry.became]
        if became == "dead" and entry.reason in _REFUSALS:
            became = "refused"
        self._messages[type_, became] += 1
        self._reasons[became, self._code(entry.reason)] += 1
        is_slowest = entry.delay_ms >= self._slowest_ms and became == "retried"
        if is_slowest and (promise(type_) is Promise.FOR_EVER or entry.reason == DEAD_LETTER_FAILED):
            self._slowest[type_] += 1

    def _code(self, reason: str) -> str:
        """A reason as a label: one of ours, or among the first so many others."""
        if reason not in self._known_reasons:
            if len(self._known_reasons) >= _MOST_REASONS or not re.fullmatch(r"[a-z0-9_]{1,64}", reason):
                return OTHER
            self._known_reasons.add(reason)
        return reason

    def collect(self) -> Iterator[Metric]:
        """Every metric as it is now."""
        names = {(self._service, REPLICA): 1}
        yield gauges("saga_service_info", "Which service and replica this is.", ("service", "replica"), names)
        yield from self._of_messages()
        if self._is_first:
            yield from self._of_sagas()
        yield from self._of_times()
        yield from _of_vitals(self._vitals(), datetime.now(UTC))

    def _of_messages(self) -> Iterator[Metric]:
        yield counter(
            "saga_messages_total",
            "Messages by type and by what became of them.",
            ("type", "became"),
            self._messages.items(),
        )
        yield counter(
            "saga_reasons_total",
            "Why messages were refused, retried, given up or parked.",
            ("became", "reason"),
            self._reasons.items(),
        )
        yield counter(
            "saga_slowest_retries_total",
            "Retries at the slowest level of what is never given up: somebody must mend the cause.",
            ("type",),
            (((type_,), count) for type_, count in self._slowest.items()),
        )

    def _of_sagas(self) -> Iterator[Metric]:
        """Only the first service sees sagas begin and end."""
        began = self._messages.get((saga.FIRST.on, "did"), 0)
        yield counter("saga_started_total", "Sagas whose payment was recorded.", (), [((), began)])
        ended = Counter({(outcome,): 0 for outcome in _OUTCOMES})
        for key, count in self._messages.items():
            if key in _ENDS:
                ended[_ENDS[key],] += count
        yield counter(
            "saga_ended_total",
            "Sagas by how they ended: completed, cancelled later, or refused before anything was done.",
            ("outcome",),
            ended.items(),
        )
        yield histograms(
            "saga_duration_seconds",
            "From the recorded payment to its completion or cancellation.",
            ("outcome",),
            {(outcome,): histogram for outcome, histogram in self._durations.items()},
        )

    def _of_times(self) -> Iterator[Metric]:
        for name, about, histogram in (
            ("saga_batch_messages", "Messages done in one batch.", self._sizes),
            ("saga_batch_seconds", "From taking a batch to its acknowledgement.", self._batches),
            ("saga_transaction_seconds", "From the beginning of a transaction to its commit.", self._transactions),
            ("saga_lag_seconds", "From an event's birth in its sender until it is taken here.", self._lag),
        ):
            yield histograms(name, about, (), {(): histogram})


def _of_vitals(vitals: Vitals, now: datetime) -> Iterator[Metric]:
    yield gauge("saga_broker_up", "1: there is a session with the broker.", vitals.is_broker_there)
    yield gauge("saga_database_up", "1: the database answers.", vitals.is_database_there)
    yield counter("saga_sessions_total", "Sessions opened with the broker.", (), [((), vitals.sessions)])
    waits = [((), vitals.database_waits)]
    yield counter("saga_database_waits_total", "How often the database was found away.", (), waits)
    again = [((), vitals.offered_again)]
    yield counter("saga_offered_again_total", "Sagas open for too long, whose event was said again.", (), again)
    yield counter(
        "saga_forgotten_total", "Sagas over long ago, whose rows were deleted.", (), [((), vitals.forgotten)]
    )
    yield gauge("saga_outbox_events", "Events that wait for the broker's confirm.", vitals.outbox_depth)
    yield gauge("saga_outbox_limit", "Events from which on no messages are taken.", vitals.outbox_limit)
    oldest = _age(vitals.outbox_oldest, now)
    yield gauge("saga_outbox_oldest_seconds", "How long the oldest of them has waited.", oldest)
    if vitals.notices is not None:
        states = {(state,): count for state, count in vitals.notices.items()}
        yield gauges("saga_notices", "Notices that are not sent, by state.", ("state",), states)
    if vitals.open_sagas is not None:
        yield gauge("saga_open", "Payments neither completed nor cancelled.", vitals.open_sagas)
        oldest = _age(vitals.oldest_open_saga, now)
        yield gauge("saga_open_oldest_seconds", "How long ago the oldest of them was recorded.", oldest)


def _age(since: datetime | None, now: datetime) -> float:
    return max(0.0, (now - since).total_seconds()) if since else 0.0
