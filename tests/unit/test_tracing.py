"""Traces: what the spans of a saga look like, who decides what is sampled, and that nothing of it can hurt."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from structlog.testing import capture_logs

from common import saga, telemetry, tracing
from common.history import REPLICA, Became, Entry, Observers, Record
from common.outbox import Outbox
from common.recovery import Deed
from common.spans import Exporting, Spans
from common.telemetry import next_traceparent, trace_facts

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 11, 22, 10, 0, 0, 123456, tzinfo=UTC)
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CLIENT = f"00-{TRACE}-b7ad6b7169203331-01"


class Camera:
    """Takes the spans of the services under test."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self._services: dict[str, Spans] = {}

    def sees(self, service: str, *entries: Entry, took_ms: float = 3.0) -> list[ReadableSpan]:
        """The spans that a batch of this service adds."""
        before = len(self.spans)
        if service not in self._services:
            self._services[service] = Spans(service, SimpleSpanProcessor(self._exporter))
        record = Record(service=service, replica="here-1", at=NOW, took_ms=took_ms, entries=entries)
        self._services[service].observe(record)
        return list(self.spans[before:])

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        """All that was taken so far."""
        return self._exporter.get_finished_spans()


@pytest.fixture
def camera(monkeypatch: pytest.MonkeyPatch) -> Camera:
    """A camera in an environment that says nothing about traces."""
    for name in os.environ:
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)
    return Camera()


def said(incoming: str, *types: str) -> list[tuple[str, str]]:
    """Events as the outbox stages them, each with a traceparent of its own."""
    outbox = Outbox(NOW)
    for type_ in types:
        outbox.stage(type_, "p-1", "{}", incoming or None)
    return [(event.type, event.traceparent) for event in outbox.events]


def ids(span: ReadableSpan) -> tuple[str, str, str]:
    """Trace, own id and parent's id of a span, as a traceparent writes them; the parent's is empty at the root."""
    assert span.context is not None
    parent = f"{span.parent.span_id:016x}" if span.parent else ""
    return f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}", parent


def named(traceparent: str) -> tuple[str, str]:
    """Trace and span of a traceparent."""
    _, trace, span, _ = traceparent.split("-")
    return trace, span


def attributes(span: ReadableSpan) -> Mapping[str, object]:
    """What a span tells."""
    return dict(span.attributes or {})


def test_a_saga_is_one_trace_in_which_each_step_hangs_below_the_one_that_caused_it(camera: Camera) -> None:
    """From the client's command to the notice: who looks at a trace sees the whole saga, in its order."""
    incoming, chain = CLIENT, []
    for step in saga.SAGA[:-1]:
        events = said(incoming, step.emits)
        (span,) = camera.sees(
            step.service, Entry(saga="p-1", type=step.on, deed=Deed.DID, said=events, trace=incoming)
        )
        chain.append(span)
        incoming = events[0][1]
    notify = camera.sees("notify", Entry(saga="p-1", type=saga.PIVOT.emits, deed=Deed.DID, trace=incoming))
    notice = Entry(
        saga="p-1", type="notice", deed=Deed.SENT, said=said(incoming, "notification.sent"), trace=incoming
    )
    chain += camera.sees("notify", notice)
    assert {ids(span)[0] for span in [*chain, *notify]} == {TRACE}
    assert ids(chain[0])[2] == named(CLIENT)[1]
    assert all(ids(later)[2] == ids(earlier)[1] for earlier, later in pairwise(chain))
    assert ids(notify[0])[2] == ids(chain[3])[1]
    assert [span.name for span in chain] == [
        "process payment.pay",
        "process payment.paid",
        "process reservation.confirmed",
        "process point.deducted",
        "deliver notice",
    ]
    assert [span.kind for span in chain] == [SpanKind.CONSUMER] * 4 + [SpanKind.CLIENT]


def test_a_command_that_begins_a_trace_is_its_root_under_the_id_that_its_event_tells(camera: Camera) -> None:
    """A command typed by hand has no traceparent; the next service knows the trace only from the event."""
    events = said("", "payment.paid")
    (span,) = camera.sees("payment", Entry(saga="p-1", type="payment.pay", deed=Deed.DID, said=events))
    assert ids(span) == (*named(events[0][1]), "")


def test_a_span_has_the_times_of_its_batch(camera: Camera) -> None:
    """It is made when all is over, so it must be told when it was."""
    (span,) = camera.sees("payment", Entry(saga="p-1", type="payment.pay", trace=CLIENT), took_ms=2.5)
    assert span.end_time == int(NOW.timestamp()) * 10**9 + 123_456_000
    assert span.end_time - (span.start_time or 0) == 2_500_000


def test_a_compensation_has_a_link_to_the_failure_that_it_answers(camera: Camera) -> None:
    """What caused an undoing is one click away, in another service; nothing else has such a link."""
    died = Entry(
        saga="p-1", type="reservation.confirmed", became=Became.DEAD, reason="balance_too_low", trace=CLIENT
    )
    (refused,) = camera.sees("point", died)
    events = said(CLIENT, "point.failed")
    buried = Entry(saga="p-1", type="reservation.confirmed", deed=Deed.FAILED, said=events, trace=CLIENT)
    (failure,) = camera.sees("point", buried)
    undoing = Entry(
        saga="p-1",
        type="point.failed",
        deed=Deed.UNDID,
        said=said(events[0][1], "payment.cancelled"),
        trace=events[0][1],
    )
    (undone,) = camera.sees("payment", undoing)
    (closed,) = camera.sees("queue", Entry(saga="p-1", type="point.failed", deed=Deed.CLOSED, trace=events[0][1]))
    (link,) = undone.links
    assert (link.context.trace_id, link.context.span_id) == (failure.context.trace_id, failure.context.span_id)
    assert ids(undone)[2] == ids(closed)[2] == ids(failure)[1]
    assert not refused.links
    assert not failure.links
    assert not closed.links


@pytest.mark.parametrize("became", [Became.RETRY, Became.DEAD, Became.PARKED])
def test_what_did_not_end_well_is_an_error_with_its_reason(camera: Camera, became: Became) -> None:
    """A viewer paints errors red, and that is where one looks first."""
    (span,) = camera.sees(
        "point",
        Entry(
            saga="p-1",
            type="reservation.confirmed",
            became=became,
            reason="error",
            detail="boom",
            attempt=3,
            trace=CLIENT,
        ),
    )
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description == "error: boom"
    told = attributes(span)
    assert (told["saga.became"], told["saga.reason"], told["saga.attempt"]) == (became, "error", 3)


def test_what_ended_well_is_no_error(camera: Camera) -> None:
    """Not even where it ended a saga: that is what its dead letter was for."""
    for deed in Deed:
        (span,) = camera.sees("point", Entry(saga="p-1", type="reservation.confirmed", deed=deed, trace=CLIENT))
        assert span.status.status_code is StatusCode.UNSET
        assert attributes(span)["saga.deed"] == deed


def test_every_attempt_is_a_span_below_the_same_parent(camera: Camera) -> None:
    """The waterfall of a saga that hangs shows its retries side by side."""
    attempts = [
        camera.sees("point", Entry(saga="p-1", type="point.failed", became=Became.RETRY, attempt=n, trace=CLIENT))[
            0
        ]
        for n in (1, 2)
    ]
    assert len({ids(span)[1] for span in attempts}) == 2
    assert {ids(span)[2] for span in attempts} == {named(CLIENT)[1]}


def test_each_further_event_of_a_message_is_a_span_of_its_own(camera: Camera) -> None:
    """Whatever hangs below an event must find its parent."""
    events = said(CLIENT, "payment.completed", "payment.rejected")
    own, second = camera.sees("payment", Entry(saga="p-1", type="queue.expired", said=events, trace=CLIENT))
    assert ids(own)[1] == named(events[0][1])[1]
    assert ids(second) == (*named(events[1][1]), ids(own)[1])
    assert (second.name, second.kind) == ("send payment.rejected", SpanKind.PRODUCER)


def test_a_batch_is_a_span_of_its_own_with_a_link_to_each_message(camera: Camera) -> None:
    """What shared a transaction is found from there, though the sagas are strangers to one another."""
    entries = [Entry(saga=f"p-{n}", type="payment.pay", said=said("", "payment.paid")) for n in range(300)]
    *messages, batch = camera.sees("payment", *entries)
    assert [(link.context.trace_id, link.context.span_id) for link in batch.links] == [
        (span.context.trace_id, span.context.span_id) for span in messages
    ]
    assert batch.parent is None
    assert attributes(batch)["messaging.batch.message_count"] == 300
    assert len({ids(span)[0] for span in [batch, *messages]}) == 301


def test_one_message_makes_no_batch(camera: Camera) -> None:
    """A second span would tell the same again."""
    assert len(camera.sees("payment", Entry(saga="p-1", type="payment.pay", trace=CLIENT))) == 1


def test_two_equal_messages_of_a_batch_do_not_share_a_span(camera: Camera) -> None:
    """They are answered by one event; two spans of one id would be one to every viewer."""
    entry = Entry(saga="p-1", type="payment.pay", said=said(CLIENT, "payment.paid"), trace=CLIENT)
    *spans, _ = camera.sees("payment", entry, entry)
    assert len({ids(span)[1] for span in spans}) == 2
    assert ids(spans[0])[1] == named(entry.said[0][1])[1]


def test_an_id_that_was_given_is_given_once(camera: Camera) -> None:
    """An id that was left over would put a stranger's span into somebody's trace."""
    camera.sees("payment", Entry(saga="p-1", type="payment.pay", said=said(CLIENT, "payment.paid"), trace=CLIENT))
    (root,) = camera.sees("payment", Entry(saga="p-2", type="payment.pay"))
    assert ids(root)[0] != TRACE


def test_a_span_says_where_its_message_came_from_in_the_words_of_the_conventions(camera: Camera) -> None:
    """Viewers group and filter by these names."""
    (command,) = camera.sees("payment", Entry(saga="p-1", type="payment.pay", trace=CLIENT))
    (event,) = camera.sees("payment", Entry(saga="p-1", type="queue.expired", trace=CLIENT))
    told = attributes(command)
    assert told["messaging.system"] == "rabbitmq"
    assert told["messaging.operation.type"] == "process"
    assert told["messaging.destination.name"] == "saga.events:payment.pay:payment.commands"
    assert told["messaging.message.conversation_id"] == told["saga.id"] == "p-1"
    assert attributes(event)["messaging.destination.name"] == "saga.events:queue.expired:payment.events"
    assert command.resource.attributes["service.name"] == "payment"
    assert command.resource.attributes["service.instance.id"] == REPLICA


def test_a_service_is_called_what_the_environment_calls_it(
    camera: Camera, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OTEL_SERVICE_NAME is for whoever runs it."""
    monkeypatch.setenv("OTEL_SERVICE_NAME", "till-7")
    (span,) = camera.sees("payment", Entry(saga="p-1", type="payment.pay", trace=CLIENT))
    assert span.resource.attributes["service.name"] == "till-7"


HOSTILE = "\x1b[31m\ud800\u2028[red]<b>" * 50


def test_a_strangers_text_can_neither_name_a_span_nor_spoil_the_export(camera: Camera) -> None:
    """One lone surrogate would cost all the spans that leave with it, and each new name a line in every viewer."""
    (span,) = camera.sees(
        "point",
        Entry(saga=HOSTILE, type=HOSTILE, became=Became.PARKED, reason=HOSTILE, detail=HOSTILE, trace=CLIENT),
    )
    assert span.name == "process other"
    for text in [*attributes(span).values(), span.status.description]:
        str(text).encode()
        assert "\x1b" not in str(text)


@pytest.mark.parametrize(
    ("flags", "passed_on"), [("00", "00"), ("01", "01"), ("02", "02"), ("03", "03"), ("ff", "03")]
)
def test_whether_a_trace_is_sampled_is_passed_on_as_it_came(flags: str, passed_on: str) -> None:
    """A client that samples one trace in a thousand means it; W3C wants flags unknown to us sent as zero."""
    assert next_traceparent(f"00-{TRACE}-b7ad6b7169203331-{flags}")[-2:] == passed_on


def test_a_trace_that_nobody_sampled_makes_no_span(camera: Camera, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever our own sampler would have said."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_on")
    incoming = CLIENT[:-2] + "00"
    events = said(incoming, "payment.paid")
    assert not camera.sees("payment", Entry(saga="p-1", type="payment.pay", said=events, trace=incoming))


@pytest.mark.parametrize(("rate", "sampled"), [("0", False), ("1", True)])
def test_a_trace_that_begins_here_is_sampled_as_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, camera: Camera, rate: str, *, sampled: bool
) -> None:
    """The event tells the others what was decided, before any span is made of it."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", rate)
    spans = Spans("payment", SimpleSpanProcessor(InMemorySpanExporter()))
    with telemetry.sampled_by(spans.is_sampled):
        events = said("", "payment.paid")
    assert events[0][1].endswith("-01" if sampled else "-00")
    made = camera.sees("payment", Entry(saga="p-1", type="payment.pay", deed=Deed.DID, said=events))
    assert bool(made) is sampled
    assert next_traceparent(None).endswith("-01"), "and nobody decides any more when the tracer is gone"


@given(st.text(alphabet="0123456789abcdef-", max_size=60))
def test_a_line_of_the_log_names_a_trace_only_if_there_is_one(header: str) -> None:
    """What a stranger sent for a traceparent is no trace."""
    assert trace_facts(telemetry.valid_traceparent(header)).keys() in ({"trace_id", "span_id"}, set())
    assert trace_facts(CLIENT) == {"trace_id": TRACE, "span_id": "b7ad6b7169203331"}
    assert trace_facts(None) == {}


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "payment"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({"OTEL_TRACES_EXPORTER": "console"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}, False),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "console"}, False),
    ],
)
def test_traces_are_switched_by_the_variables_of_opentelemetry(
    environment: dict[str, str], *, wanted: bool
) -> None:
    """Whoever knows these variables from elsewhere needs no page of ours."""
    assert tracing.is_wanted(environment) is wanted


def alone(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a few lines in an interpreter of their own."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    return subprocess.run(
        [sys.executable, "-c", script],
        env=clean | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


_OPENED = """
import asyncio, sys
from common import telemetry, tracing
from common.history import Observers
telemetry.configure("payment", "INFO", "json")
async def main():
    observers = Observers()
    async with tracing.traced("payment", observers):
        print("observed" if observers else "not observed")
asyncio.run(main())
print(sorted(name for name in sys.modules if name.split(".")[0] in ("opentelemetry", "google")))
"""


def test_without_the_variables_nothing_of_opentelemetry_is_imported() -> None:
    """Off costs nothing: no import, no thread, no observer."""
    done = alone(_OPENED)
    assert done.stdout.splitlines() == ["not observed", "[]"], done.stderr


def test_without_the_packages_a_line_says_so_and_the_service_goes_on() -> None:
    """They are optional, and a missing one must not keep a service from starting."""
    script = "import sys\nsys.modules['opentelemetry.sdk.trace'] = None\n" + _OPENED
    done = alone(script, OTEL_TRACES_EXPORTER="console")
    assert "not observed" in done.stdout, done.stderr
    (line,) = done.stderr.splitlines()
    assert "a package is missing" in line
    assert "opentelemetry" in line


@pytest.mark.parametrize(
    "wrong",
    [
        {"OTEL_TRACES_EXPORTER": "pigeon"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_PROTOCOL": "smoke"},
        {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_BSP_MAX_QUEUE_SIZE": "-1"},
    ],
    ids=["exporter", "protocol", "queue"],
)
async def test_a_wrong_setting_costs_the_traces_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, camera: Camera, wrong: dict[str, str]
) -> None:
    """One line says which, and the service runs."""
    assert not camera.spans
    for name, value in wrong.items():
        monkeypatch.setenv(name, value)
    observers = Observers()
    with capture_logs() as lines:
        async with tracing.traced("payment", observers):
            assert not observers
    (line,) = lines
    assert line["log_level"] == "warning"
    assert "asks for traces" in line["event"]
    assert line["error"]


async def test_an_open_tracer_decides_what_is_sampled_until_it_is_closed(
    monkeypatch: pytest.MonkeyPatch, camera: Camera
) -> None:
    """What the environment says about sampling holds for the events, which are staged before any span is made."""
    assert not camera.spans
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    observers = Observers()
    async with tracing.traced("payment", observers):
        assert observers
        assert next_traceparent(None).endswith("-00")
    assert not observers
    assert next_traceparent(None).endswith("-01")


def test_a_collector_that_is_gone_is_told_once_and_once_that_it_is_back() -> None:
    """Not once a batch: that would be a line each few seconds for as long as it lasts."""

    class Moody(InMemorySpanExporter):
        result = SpanExportResult.FAILURE

        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            super().export(spans)
            return self.result

    moody = Moody()
    with capture_logs() as lines:
        exporting = Exporting("payment", moody)
        for result in (
            *(SpanExportResult.SUCCESS, SpanExportResult.FAILURE, SpanExportResult.FAILURE),
            *(SpanExportResult.SUCCESS, SpanExportResult.SUCCESS),
        ):
            moody.result = result
            assert exporting.export([]) is result
    assert [(line["log_level"], line["service"]) for line in lines] == [
        ("warning", "payment"),
        ("info", "payment"),
    ]


@pytest.fixture
def deaf() -> Iterator[int]:
    """The port of a collector that takes connections and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(50)
        yield listening.getsockname()[1]


async def test_a_collector_that_does_not_answer_holds_nothing_up(
    deaf: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a batch, nor the loop, nor for longer than a moment the service that wants to leave."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{deaf}")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "1")
    monkeypatch.setattr(tracing, "_SECONDS_TO_FLUSH", 0.2)
    observers = Observers()
    entries = [Entry(saga=f"p-{n}", type="payment.pay", trace=CLIENT) for n in range(20)]
    async with tracing.traced("payment", observers):
        slowest = 0.0
        # Far more than the queue of spans holds.
        for _ in range(200):
            began = time.perf_counter()
            observers.tell(lambda: Record(service="payment", replica="r", at=NOW, took_ms=1, entries=entries))
            slowest = max(slowest, time.perf_counter() - began)
            await asyncio.sleep(0)
        leaving = time.perf_counter()
    assert slowest < 5, "a request to the collector has ten seconds"
    assert time.perf_counter() - leaving < 5
    assert not observers


_LEAVES = _OPENED.replace(
    'print("observed" if observers else "not observed")',
    """
        entries = [Entry(saga="p-1", type="payment.pay")] * 600
        record = Record(service="payment", replica="r", at=datetime.now(UTC), took_ms=1, entries=entries)
        observers.tell(lambda: record)
""",
).replace("import Observers", "import Entry, Observers, Record\nfrom datetime import UTC, datetime")


def test_a_process_leaves_though_the_collector_does_not_answer(deaf: int) -> None:
    """Neither a thread nor the end of the interpreter waits for it, and its own libraries say nothing."""
    began = time.perf_counter()
    done = alone(_LEAVES, OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{deaf}", OTEL_EXPORTER_OTLP_TIMEOUT="50")
    assert time.perf_counter() - began < 25, "OpenTelemetry's own end waits for half a minute"
    assert done.returncode == 0, done.stderr
    assert ["traces are sent" in line for line in done.stderr.splitlines()] == [True], done.stderr


def test_a_collector_that_refuses_is_told_in_one_line_of_ours() -> None:
    """Not in the words of three libraries, with tracebacks."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        done = alone(_LEAVES, OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{closed.getsockname()[1]}")
    assert done.returncode == 0, done.stderr
    assert all(line.startswith("{") for line in done.stderr.splitlines()), done.stderr
