"""What a running saga tells: one trace over five services, pages for Prometheus, and lines that lead to both."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from typing import Any

import pytest
import pytest_asyncio
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.parser import text_string_to_metric_families

from common import saga
from tests.support.eventually import eventually
from tests.support.saga import Theatre, Visit, theatre, visit
from tools.broker import PrivateBroker

pytestmark = pytest.mark.broker

TRACE = "4bf92f3577b34da6a3ce929d0e0e47"


@dataclass(frozen=True, slots=True)
class Seen:
    """A span as the collector got it."""

    service: str
    name: str
    trace: str
    id: str
    parent: str
    links: tuple[str, ...]
    facts: dict[str, Any]


class Collector:
    """Takes traces over OTLP as Jaeger does, and keeps them."""

    def __init__(self) -> None:
        self.spans: list[Seen] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """What a service is told of it."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        """Take no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def of(self, trace: str) -> list[Seen]:
        """The spans of one trace."""
        return [span for span in self.spans if span.trace == trace]

    def one(self, trace: str, service: str, name: str) -> Seen:
        """The one span of this trace, service and name; AssertionError while it is not there."""
        found = [span for span in self.of(trace) if (span.service, span.name) == (service, name)]
        assert len(found) == 1, (service, name, [(span.service, span.name) for span in self.of(trace)])
        return found[0]

    def _handler(self) -> Callable[..., BaseHTTPRequestHandler]:
        spans = self.spans

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                request = ExportTraceServiceRequest.FromString(
                    self.rfile.read(int(self.headers["Content-Length"]))
                )
                spans.extend(_read(request))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        return Handler


def _read(request: ExportTraceServiceRequest) -> Iterator[Seen]:
    for group in request.resource_spans:
        about = {item.key: item.value.string_value for item in group.resource.attributes}
        for scope in group.scope_spans:
            for span in scope.spans:
                yield Seen(
                    service=about["service.name"],
                    name=span.name,
                    trace=span.trace_id.hex(),
                    id=span.span_id.hex(),
                    parent=span.parent_span_id.hex(),
                    links=tuple(link.span_id.hex() for link in span.links),
                    facts={item.key: item.value.string_value for item in span.attributes},
                )


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    """Where the traces go."""
    opened = Collector()
    try:
        yield opened
    finally:
        opened.close()


@pytest.fixture(scope="module")
def watched(
    node: PrivateBroker, collector: Collector, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Theatre]:
    """Five services that tell all they can."""
    home = tmp_path_factory.mktemp("watched")
    told = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "50", "LOG_FORMAT": "json"}
    with theatre(node, home, **told) as opened:
        opened.start()
        yield opened


@pytest_asyncio.fixture
async def here(watched: Theatre) -> AsyncIterator[Visit]:
    """A test's stay among them."""
    async with visit(watched) as staying:
        yield staying
        await staying.settled()


def page(opened: Theatre, service: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """What Prometheus gets from a service."""
    with urllib.request.urlopen(
        f"http://127.0.0.1:{opened.stack.service(service).port}/metrics", timeout=10
    ) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=")
        text = answer.read().decode()
    families = text_string_to_metric_families(text)
    return {
        (line.name, frozenset(line.labels.items())): line.value for family in families for line in family.samples
    }


def line(found: dict[tuple[str, frozenset[tuple[str, str]]], float], name: str, **labels: str) -> float:
    """One number of a page."""
    return found.get((name, frozenset(labels.items())), 0.0)


async def test_a_saga_is_one_trace_from_the_command_to_the_notice(here: Visit, collector: Collector) -> None:
    """Five services that never call one another: only the messages carry the trace through them."""
    trace, client = f"{TRACE}01", "b7ad6b7169203331"
    (pay,) = await here.paying()
    await here.publish("payment.pay", pay, headers={"traceparent": f"00-{trace}-{client}-01"})
    await here.completed(pay)

    def told() -> None:
        chain = [collector.one(trace, step.service, f"process {step.on}") for step in saga.SAGA]
        notice = collector.one(trace, "notify", "deliver notice")
        completed = collector.one(trace, "payment", f"process {saga.PIVOT.emits}")
        assert chain[0].parent == client
        assert [later.parent for _, later in pairwise(chain)] == [earlier.id for earlier, _ in pairwise(chain)]
        # Notice and completion follow from the pivot, like the handling in the notify service.
        assert notice.parent == completed.parent == chain[3].id
        assert len(collector.of(trace)) == 7

    await eventually(told)
    for event in here.heard:
        if event.id == pay.payment_id:
            _, of, span, flags = event.headers["traceparent"].split("-")
            assert (of, flags) == (trace, "01")
            assert span in {seen.id for seen in collector.of(trace)}, event.key


async def test_a_compensation_is_linked_to_the_failure_that_caused_it(here: Visit, collector: Collector) -> None:
    """The trace of a saga that failed shows where, and who undid what because of it."""
    trace = f"{TRACE}02"
    pay = here.pay()
    await here.prepare(pay, wallet=1)
    await here.publish("payment.pay", pay, headers={"traceparent": f"00-{trace}-b7ad6b7169203331-01"})
    await here.undone(pay, at="point", reason="balance_too_low")

    def told() -> None:
        # The step is refused, and then its dead letter ends the saga: two spans of one name.
        at_point = {span.facts["saga.became"]: span for span in collector.of(trace)
                    if (span.service, span.name) == ("point", "process reservation.confirmed")}  # fmt: skip
        assert at_point["dead"].facts["saga.reason"] == "balance_too_low"
        cause = at_point["done"]
        assert cause.facts["saga.deed"] == "failed"
        for service, linked in (("payment", True), ("reservation", True), ("queue", False), ("notify", False)):
            span = collector.one(trace, service, "process point.failed")
            assert span.parent == cause.id
            assert span.links == ((cause.id,) if linked else ())
        collector.one(trace, "notify", "deliver notice")

    await eventually(told)


async def test_a_trace_that_nobody_sampled_leaves_no_span(here: Visit, collector: Collector) -> None:
    """Clients under load sample a few in a thousand, and mean all five services."""
    quiet, loud = f"{TRACE}03", f"{TRACE}04"
    for trace, flags in ((quiet, "00"), (loud, "01")):
        (pay,) = await here.paying()
        await here.publish("payment.pay", pay, headers={"traceparent": f"00-{trace}-b7ad6b7169203331-{flags}"})
        await here.completed(pay)
    await eventually(lambda: collector.one(loud, "notify", "deliver notice"))
    assert not collector.of(quiet)
    flags_said = {
        event.headers["traceparent"][-2:] for event in here.heard if quiet in event.headers["traceparent"]
    }
    assert flags_said == {"00"}


async def test_prometheus_is_told_what_became_of_sagas_and_messages(here: Visit, watched: Theatre) -> None:
    """From outside and while they run: what was counted agrees with what happened."""
    before = {service: page(watched, service) for service in saga.SERVICES}
    good = await here.paying(5)
    bad = here.pay()
    await here.prepare(bad, wallet=1)
    await here.send(*good, bad)
    await here.completed(*good)
    await here.undone(bad, at="point", reason="balance_too_low")

    def more(service: str, name: str, **labels: str) -> float:
        return line(page(watched, service), name, **labels) - line(before[service], name, **labels)

    def counted() -> None:
        assert more("payment", "saga_started_total") == 6
        assert more("payment", "saga_ended_total", outcome="completed") == 5
        assert more("payment", "saga_ended_total", outcome="cancelled") == 1
        assert more("payment", "saga_duration_seconds_count", outcome="completed") == 5
        assert more("payment", "saga_duration_seconds_count", outcome="cancelled") == 1
        assert more("point", "saga_messages_total", type="reservation.confirmed", became="did") == 5
        assert more("point", "saga_messages_total", type="reservation.confirmed", became="refused") == 1
        assert more("point", "saga_messages_total", type="reservation.confirmed", became="failed") == 1
        assert more("point", "saga_reasons_total", became="refused", reason="balance_too_low") == 1
        assert more("reservation", "saga_messages_total", type="point.failed", became="undid") == 1
        assert more("queue", "saga_messages_total", type="point.failed", became="closed") == 1
        assert more("notify", "saga_messages_total", type="notice", became="sent") == 6
        assert more("point", "saga_lag_seconds_count") >= 6
        assert more("point", "saga_transaction_seconds_count") >= 1

    await eventually(counted)
    for service in saga.SERVICES:
        now = page(watched, service)
        assert (line(now, "saga_broker_up"), line(now, "saga_database_up")) == (1, 1)
        assert line(now, "saga_sessions_total") == 1
        assert line(now, "saga_service_info", service=service, replica=replica_of(now)) == 1
    await eventually(lambda: line(page(watched, "payment"), "saga_open") == 0)


def replica_of(found: dict[tuple[str, frozenset[tuple[str, str]]], float]) -> str:
    """The replica that a page names."""
    return next(dict(labels)["replica"] for name, labels in found if name == "saga_service_info")


async def test_a_parked_message_can_be_followed_from_the_log_to_its_trace(here: Visit, watched: Theatre) -> None:
    """The line that rings the alarm names saga, message, attempt, trace and span; a healthy message has none."""
    (pay,) = await here.paying()
    await here.publish("payment.pay", pay, headers={"traceparent": f"00-{TRACE}05-b7ad6b7169203331-01"})
    await here.completed(pay)
    other = pay.model_copy(update={"amount": pay.amount + 1})
    await here.publish("payment.pay", other, headers={"traceparent": f"00-{TRACE}06-b7ad6b7169203332-01"})

    def told() -> dict[str, Any]:
        lines = [
            json.loads(text) for text in watched.stack.log("payment").read_text().splitlines() if text[:1] == "{"
        ]
        about = [found for found in lines if found.get("saga") == pay.payment_id]
        assert len(about) == 1, about
        found: dict[str, Any] = about[0]
        return found

    found = await eventually(told)
    assert (found["service"], found["reason"]) == ("payment", saga.IDEMPOTENCY_CONFLICT)
    assert (found["trace_id"], found["span_id"], found["attempt"]) == (f"{TRACE}06", "b7ad6b7169203332", 1)
    paid = here.event(pay.payment_id, "payment.paid")
    assert paid
    assert found["message"]
    assert found["message"] != paid.message_id
