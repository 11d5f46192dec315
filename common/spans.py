"""Spans of what a service did, made after a batch is settled, with the times and the ids that it had.

One trace a saga: a message's span has the traceparent it came with as its parent, and its own id is the one in the
traceparent of the event that it caused, so the next service's span hangs below it. That id was given to the event
when it was staged, long before there was a span, so the spans are told their ids (`_GivenIds`).

A batch is a span in a trace of its own, with a link to each of its messages. A compensation has a link to the
failure that it answers. Whoever began a trace decided whether it is sampled, and nobody decides it again.
Attributes follow OpenTelemetry's conventions for messaging; `saga.*` tells what they lack.
"""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.metadata import entry_points

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, StatusCode, TraceFlags

from common import saga, topology
from common.history import NOTICE, REPLICA, Became, Entry, Record
from common.messages import printable
from common.recovery import Deed
from common.telemetry import log

#: As many as a batch may have messages; OpenTelemetry's own limit is smaller.
_MOST_LINKS = 1000
#: The lowest bit of a traceparent's flags says sampled: those that end with one of these are not.
_NOT_SAMPLED = tuple("02468ace")
#: Few names of spans, whatever strangers call their messages.
_TYPES = frozenset(saga.vocabulary())
_CAUSE = {"saga.link": "compensates what failed here"}
_SENT = {"messaging.system": "rabbitmq", "messaging.operation.name": "send", "messaging.operation.type": "send"}
_PROTOCOLS = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}


class _GivenIds(IdGenerator):
    """Gives out the ids that the next span is to have, and random ones where it does not matter."""

    def __init__(self) -> None:
        self.trace = self.span = 0

    def generate_trace_id(self) -> int:
        given, self.trace = self.trace, 0
        return given or random.getrandbits(128) or 1

    def generate_span_id(self) -> int:
        given, self.span = self.span, 0
        return given or random.getrandbits(64) or 1


class Spans:
    """Makes spans of settled batches and gives them to `processor`, which must not wait."""

    def __init__(self, service: str, processor: SpanProcessor) -> None:
        self._service = service
        self._queues = {key: topology.commands_queue(service) for key in saga.command_keys(service)}
        self._events_queue = topology.events_queue(service)
        self._ids = _GivenIds()
        about = {"service.namespace": "concert-saga", "service.instance.id": REPLICA}
        if not os.environ.get("OTEL_SERVICE_NAME"):
            about["service.name"] = service
        links = None if os.environ.get("OTEL_SPAN_LINK_COUNT_LIMIT") else _MOST_LINKS
        self._provider = TracerProvider(
            resource=Resource.create(about),
            # It would wait for the collector when the interpreter ends.
            shutdown_on_exit=False,
            id_generator=self._ids,
            span_limits=SpanLimits(max_links=links),
        )
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("concert-saga")

    def is_sampled(self, trace_id: str) -> bool:
        """Whether a trace that begins here is sampled, as OTEL_TRACES_SAMPLER says."""
        result = self._provider.sampler.should_sample(Context(), int(trace_id, 16), "saga")
        return result.decision is Decision.RECORD_AND_SAMPLE

    def observe(self, record: Record) -> None:
        """Make the spans of a batch."""
        ends = _nanoseconds(record.at)
        begins = ends - round(record.took_ms * 1_000_000)
        given: set[str] = set()
        handled = [
            self._message(entry, begins, ends, given)
            for entry in record.entries
            if not entry.trace.endswith(_NOT_SAMPLED)
        ]
        sampled = [Link(context) for context in handled if context.trace_flags.sampled]
        if len(sampled) > 1:
            self._span(
                f"batch {self._service}",
                SpanKind.INTERNAL,
                begins,
                ends,
                attributes={"messaging.system": "rabbitmq", "messaging.batch.message_count": len(record.entries)},
                links=sampled,
            )

    def close(self) -> None:
        """Send the last spans; blocks for as long as that takes."""
        self._provider.shutdown()

    def _message(self, entry: Entry, begins: int, ends: int, given: set[str]) -> SpanContext:
        """The span of one message, and one below it for each event but the first that it caused."""
        parent = _context(entry.trace) if entry.trace else None
        # One event can answer two equal messages of a batch: it hangs below the first.
        said = [(type_, traceparent) for type_, traceparent in entry.said if traceparent not in given]
        given.update(traceparent for _, traceparent in said)
        own = self._span(
            _name(entry),
            SpanKind.CLIENT if entry.type == NOTICE else SpanKind.CONSUMER,
            begins,
            ends,
            parent=parent,
            wanted=_context(said[0][1]) if said else None,
            attributes=self._attributes(entry),
            links=[Link(parent, _CAUSE)] if parent and entry.deed == Deed.UNDID else (),
            trouble=_text(f"{entry.reason}: {entry.detail}") if entry.became != Became.DONE else "",
        )
        for type_, traceparent in said[1:]:
            self._span(
                f"send {type_}",
                SpanKind.PRODUCER,
                ends,
                ends,
                parent=own,
                wanted=_context(traceparent),
                attributes=_SENT
                | {"messaging.destination.name": f"{topology.EVENTS}:{type_}", "saga.id": entry.saga},
            )
        return own

    def _attributes(self, entry: Entry) -> dict[str, str | int]:
        told: dict[str, str | int] = {
            "saga.id": _text(entry.saga),
            "saga.became": entry.became,
            "saga.attempt": entry.attempt,
        }
        if entry.type != NOTICE:
            type_ = _text(entry.type)
            queue = self._queues.get(entry.type, self._events_queue)
            told |= {
                "messaging.system": "rabbitmq",
                "messaging.operation.name": "process",
                "messaging.operation.type": "process",
                "messaging.destination.name": f"{topology.EVENTS}:{type_}:{queue}",
                "messaging.rabbitmq.destination.routing_key": type_,
                "messaging.message.conversation_id": told["saga.id"],
            }
        for name, value in (
            ("saga.deed", entry.deed),
            ("saga.reason", _text(entry.reason)),
            ("saga.detail", _text(entry.detail)),
            ("saga.retry_in_ms", entry.delay_ms),
            ("saga.waited_ms", entry.waited_ms),
        ):
            if value:
                told[name] = value
        return told

    def _span(
        self,
        name: str,
        kind: SpanKind,
        begins: int,
        ends: int,
        *,
        attributes: Mapping[str, str | int],
        parent: SpanContext | None = None,
        wanted: SpanContext | None = None,
        links: Sequence[Link] = (),
        trouble: str = "",
    ) -> SpanContext:
        """Make a span that is over; `wanted` has the ids that others know it by already."""
        if wanted is not None:
            self._ids.trace, self._ids.span = wanted.trace_id, wanted.span_id
        below = Context() if parent is None else trace.set_span_in_context(NonRecordingSpan(parent), Context())
        span = self._tracer.start_span(name, below, kind, attributes, links, start_time=begins)
        # Below a parent nobody asks for the trace's id, and it must not be the next one's.
        self._ids.trace = self._ids.span = 0
        if trouble:
            span.set_status(StatusCode.ERROR, trouble)
        span.end(ends)
        return span.get_span_context()


class Exporting(SpanExporter):
    """Tells once when the collector does not take spans any more, and once when it does again."""

    def __init__(self, service: str, exporter: SpanExporter) -> None:
        self._exporter = exporter
        # The thread of the processor knows nothing of the service that the log's lines are bound to.
        self._log = log.bind(service=service)
        self._arrive = True

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export, whatever it takes; called in a thread of the processor."""
        result = self._exporter.export(spans)
        arrive = result is SpanExportResult.SUCCESS
        if self._arrive and not arrive:
            self._log.warning("the collector does not take traces; they are dropped", spans=len(spans))
        elif arrive and not self._arrive:
            self._log.info("the collector takes traces again")
        self._arrive = arrive
        return result

    def shutdown(self) -> None:
        """Stop exporting."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Send what the exporter still holds."""
        return self._exporter.force_flush(timeout_millis)


def exporting(service: str, environment: Mapping[str, str]) -> SpanProcessor:
    """What gathers spans and exports them in a thread of its own, dropping what is too much.

    Raises ValueError for an exporter that is not installed, and what its constructor raises.
    """
    # They say the same for each batch of spans; `Exporting` says it once.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    name = environment.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp"
    if name == "otlp":
        names = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
        protocol = next((environment[name] for name in names if environment.get(name)), "http/protobuf")
        name = _PROTOCOLS.get(protocol.strip(), protocol)
    for point in entry_points(group="opentelemetry_traces_exporter", name=name):
        return BatchSpanProcessor(Exporting(service, point.load()()))
    raise ValueError(f"no package brings the exporter {name!r}")


def _name(entry: Entry) -> str:
    """What a span is called."""
    if entry.type == NOTICE:
        return "deliver notice"
    return f"process {entry.type}" if entry.type in _TYPES else "process other"


def _text(text: str) -> str:
    """A stranger's text: what cannot be encoded would cost all the spans that leave with it."""
    return printable(text) if text else ""


def _context(traceparent: str) -> SpanContext:
    _, trace_id, span_id, flags = traceparent.split("-")
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16)))


def _nanoseconds(moment: datetime) -> int:
    """A moment as OpenTelemetry counts, to the microsecond."""
    return int(moment.timestamp()) * 1_000_000_000 + moment.microsecond * 1_000
