"""Metrics: every settled batch is counted once, under labels that no stranger can choose, for next to nothing."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client.parser import text_string_to_metric_families

from common import saga
from common.history import NOTICE, Became, Entry, Record
from common.metrics import Metrics, Vitals
from common.recovery import Deed

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
WELL = Vitals(is_broker_there=True, is_database_there=True, outbox_depth=0, outbox_limit=20_000)
SLOWEST = 300_000


class Gauge:
    """One service's metrics, and how Prometheus reads them."""

    def __init__(self, service: str = "payment", vitals: Vitals = WELL) -> None:
        self.vitals = vitals
        self.metrics = Metrics(service, slowest_ms=SLOWEST, vitals=lambda: self.vitals)

    def counts(self, *entries: Entry, took_ms: float = 4.0) -> Gauge:
        """Let it count a batch."""
        self.metrics.observe(Record(service="s", replica="r", at=NOW, took_ms=took_ms, entries=entries))
        return self

    def read(self, name: str, **labels: str) -> float | None:
        """One line of the page; None if there is none."""
        found = [value for labelled, value in self.lines(name) if labelled == labels]
        assert len(found) <= 1, found
        return found[0] if found else None

    def lines(self, name: str) -> list[tuple[dict[str, str], float]]:
        """All lines of this name."""
        families = text_string_to_metric_families(self.metrics.page().decode())
        return [(dict(sample.labels), sample.value) for family in families for sample in family.samples
                if sample.name == name]  # fmt: skip

    def messages(self) -> dict[tuple[str, str], float]:
        """What was counted of messages, by type and by what became of them."""
        lines = self.lines("saga_messages_total")
        return {(labels["type"], labels["became"]): value for labels, value in lines if value}


def entry(type_: str = "payment.pay", **facts: object) -> Entry:
    """What became of one message."""
    return Entry(**({"saga": "p-1", "type": type_, "deed": Deed.DID} | facts))  # type: ignore[arg-type]


def trouble(became: Became, type_: str = "payment.pay", **facts: object) -> Entry:
    """A message that did not end well."""
    return entry(type_, became=became, deed="", **({"reason": "error"} | facts))


@pytest.mark.parametrize("deed", list(Deed))
def test_what_was_done_is_counted_by_type_and_deed(deed: Deed) -> None:
    """Handled, undone, repeated, ignored: each is a line of its own."""
    gauge = Gauge().counts(entry(deed=deed), entry(deed=deed), entry("queue.expired", deed=deed))
    assert gauge.messages() == {("payment.pay", deed): 2, ("queue.expired", deed): 1}


@pytest.mark.parametrize(
    ("given", "counted"),
    [
        (trouble(Became.RETRY), "retried"),
        (trouble(Became.DEAD, reason=saga.RETRIES_SPENT), "dead"),
        (trouble(Became.DEAD, reason="over_limit"), "refused"),
        (trouble(Became.DEAD, "reservation.hold", reason="seat_taken"), "refused"),
        (trouble(Became.PARKED, reason="not_json"), "parked"),
    ],
)
def test_what_did_not_end_well_is_counted_with_its_reason(given: Entry, counted: str) -> None:
    """A refusal is business, spent retries are not: they must not look alike."""
    gauge = Gauge().counts(given)
    assert gauge.messages() == {(given.type, counted): 1}
    assert gauge.read("saga_reasons_total", became=counted, reason=given.reason) == 1


def test_a_stranger_can_choose_neither_a_type_nor_a_reason() -> None:
    """Each new label value is a new series in Prometheus' memory for as long as it keeps anything."""
    gauge = Gauge()
    for number in range(1_000):
        gauge.counts(trouble(Became.PARKED, f"invented.{number}", reason=f"invented_{number}"))
    gauge.counts(trouble(Became.PARKED, "\x1b[red]\n", reason='"} 1\n'))
    assert gauge.messages() == {("other", "parked"): 1_001}
    reasons = gauge.lines("saga_reasons_total")
    assert len(reasons) <= 101
    assert sum(value for _, value in reasons) == 1_001
    refused = gauge.counts(trouble(Became.DEAD, reason="over_limit"))
    assert refused.read("saga_reasons_total", became="refused", reason="over_limit") == 1, "ours keep their names"


def test_what_an_alert_waits_for_is_there_before_it_happens() -> None:
    """`increase()` never sees the first event of a line that appears with it."""
    gauge = Gauge("point")
    for type_ in ("point.top_up", "reservation.confirmed", "queue.failed", "other"):
        assert gauge.read("saga_messages_total", type=type_, became="parked") == 0
        assert gauge.read("saga_slowest_retries_total", type=type_) == 0
    assert gauge.read("saga_messages_total", type="payment.pay", became="parked") is None


@pytest.mark.parametrize(
    ("given", "slowest"),
    [
        (trouble(Became.RETRY, "point.failed", delay_ms=SLOWEST), True),
        (trouble(Became.RETRY, "queue.expired", delay_ms=SLOWEST), True),
        (trouble(Became.RETRY, "payment.pay", delay_ms=SLOWEST, reason="dead_letter_failed"), True),
        (trouble(Became.RETRY, "point.failed", delay_ms=SLOWEST - 1), False),
        (trouble(Became.RETRY, "payment.pay", delay_ms=SLOWEST), False),
        (trouble(Became.RETRY, NOTICE, delay_ms=7_200_000), False),
        (trouble(Became.PARKED, "point.failed"), False),
    ],
)
def test_only_what_is_never_given_up_counts_as_stuck_in_its_slowest_retry(given: Entry, *, slowest: bool) -> None:
    """A forward message is given up soon, which mends the saga; a compensation waits for a person."""
    counted = sum(value for _, value in Gauge().counts(given).lines("saga_slowest_retries_total"))
    assert counted == slowest


def test_only_the_first_service_tells_how_sagas_end() -> None:
    """Otherwise five services would each count every saga."""
    entries = [
        entry(),
        entry(),
        entry("payment.pay", deed=Deed.FAILED),
        entry("payment.pay", deed=Deed.REPEATED),
        entry("queue.expired"),
        entry("queue.expired", deed=Deed.REPEATED),
        entry("point.failed", deed=Deed.UNDID),
        entry("point.failed", deed=Deed.IGNORED),
    ]
    gauge = Gauge().counts(*entries)
    assert gauge.read("saga_started_total") == 2
    ends = {labels["outcome"]: value for labels, value in gauge.lines("saga_ended_total")}
    assert ends == {"completed": 1, "cancelled": 1, "refused": 1}
    other = Gauge("point").counts(*entries)
    assert other.read("saga_started_total") is None
    assert not other.lines("saga_ended_total")


def test_how_long_sagas_take_is_counted_by_how_they_end() -> None:
    """From the recorded payment to its end; a saga that was refused at once took no time."""
    gauge = Gauge().counts(
        entry("queue.expired", lasted_ms=40),
        entry("point.failed", deed=Deed.UNDID, lasted_ms=90_000),
        entry("queue.expired", deed=Deed.REPEATED),
        entry("payment.pay", deed=Deed.FAILED),
    )
    assert gauge.read("saga_duration_seconds_bucket", outcome="completed", le="0.05") == 1
    assert gauge.read("saga_duration_seconds_count", outcome="completed") == 1
    assert gauge.read("saga_duration_seconds_sum", outcome="cancelled") == 90


def test_batches_and_transactions_are_counted_by_size_and_time() -> None:
    """Whether group commit works is seen in the size of its batches."""
    gauge = Gauge().counts(*[entry()] * 30, took_ms=40).counts(entry(), took_ms=2)
    gauge.metrics.transacted(0.004)
    assert gauge.read("saga_batch_messages_bucket", le="20.0") == 1
    assert gauge.read("saga_batch_messages_bucket", le="50.0") == 2
    assert gauge.read("saga_batch_messages_sum") == 31
    assert gauge.read("saga_batch_seconds_sum") == pytest.approx(0.042)
    assert gauge.read("saga_batch_seconds_bucket", le="0.0025") == 1
    assert gauge.read("saga_transaction_seconds_count") == 1
    assert gauge.read("saga_transaction_seconds_bucket", le="0.0025") == 0
    assert gauge.read("saga_transaction_seconds_bucket", le="0.005") == 1


def test_rounds_of_notices_are_no_batches() -> None:
    """A mail server that takes ten seconds says nothing about transactions."""
    gauge = Gauge("notify").counts(entry(NOTICE, deed=Deed.SENT), took_ms=10_000)
    assert gauge.messages() == {(NOTICE, "sent"): 1}
    assert gauge.read("saga_batch_messages_count") == 0
    assert gauge.read("saga_batch_seconds_count") == 0


def test_lag_is_counted_where_it_is_known_and_never_spoiled_by_a_strangers_clock() -> None:
    """A command says what it likes about when it was published; one from the year 1 would be every mean."""
    gauge = Gauge().counts(entry(waited_ms=0), entry(waited_ms=40), entry(waited_ms=10**14))
    assert gauge.read("saga_lag_seconds_count") == 2
    assert gauge.read("saga_lag_seconds_bucket", le="0.05") == 1
    total = gauge.read("saga_lag_seconds_sum")
    assert total is not None
    assert total < 10**6


def test_how_the_service_feels_is_asked_at_each_scrape() -> None:
    """What is true now, and not what was true at the last message: where nothing works, no message comes."""
    gauge = Gauge(vitals=WELL)
    assert (gauge.read("saga_broker_up"), gauge.read("saga_database_up")) == (1, 1)
    assert gauge.read("saga_outbox_oldest_seconds") == 0
    gauge.vitals = Vitals(
        is_broker_there=False,
        is_database_there=False,
        outbox_depth=700,
        outbox_limit=20_000,
        outbox_oldest=datetime.now(UTC) - timedelta(minutes=2),
        sessions=3,
        database_waits=4,
    )
    assert (gauge.read("saga_broker_up"), gauge.read("saga_database_up")) == (0, 0)
    assert (gauge.read("saga_outbox_events"), gauge.read("saga_outbox_limit")) == (700, 20_000)
    assert (gauge.read("saga_sessions_total"), gauge.read("saga_database_waits_total")) == (3, 4)
    assert gauge.read("saga_outbox_oldest_seconds") == pytest.approx(120, abs=10)


def test_a_clock_that_was_set_back_makes_no_negative_age() -> None:
    """Alerts compare ages; a negative one would hide an old event."""
    gauge = Gauge(vitals=Vitals(
        is_broker_there=True, is_database_there=True, outbox_depth=1, outbox_limit=9,
        outbox_oldest=datetime.now(UTC) + timedelta(hours=1),
    ))  # fmt: skip
    assert gauge.read("saga_outbox_oldest_seconds") == 0


def test_notices_and_open_sagas_are_told_by_the_service_that_has_them() -> None:
    """A line that says 0 in the other four would look as if they knew."""
    gauge = Gauge(vitals=WELL)
    assert gauge.read("saga_notices", state="pending") is None
    assert gauge.read("saga_open") is None
    gauge.vitals = Vitals(
        is_broker_there=True,
        is_database_there=True,
        outbox_depth=0,
        outbox_limit=9,
        notices={"pending": 3, "parked": 1},
        open_sagas=5,
        oldest_open_saga=datetime.now(UTC) - timedelta(hours=1),
    )
    assert gauge.read("saga_notices", state="pending") == 3
    assert gauge.read("saga_notices", state="parked") == 1
    assert gauge.read("saga_open") == 5
    assert gauge.read("saga_open_oldest_seconds") == pytest.approx(3600, abs=10)


def test_a_page_says_whose_it_is_and_how_the_process_is() -> None:
    """Its own registry: nothing of another service, and nothing that a library registered for itself."""
    gauge = Gauge("point")
    ((labels, value),) = gauge.lines("saga_service_info")
    assert (labels["service"], value) == ("point", 1)
    assert gauge.read("process_open_fds")
    names = {family.name for family in text_string_to_metric_families(gauge.metrics.page().decode())}
    assert all(name.startswith(("saga_", "process_")) for name in names), names


def test_two_services_in_one_process_do_not_share_their_numbers() -> None:
    """Tests and the simulator run all five in one."""
    one, other = Gauge(), Gauge()
    one.counts(entry())
    assert other.messages() == {}


def test_counting_is_cheap() -> None:
    """Two microseconds a message is what it may cost; this leaves room for a busy machine."""
    gauge = Gauge()
    batch = [entry(waited_ms=number) for number in range(100)]
    best = float("inf")
    for _ in range(50):
        began = time.perf_counter()
        gauge.counts(*batch)
        best = min(best, time.perf_counter() - began)
    assert best / len(batch) < 10e-6
