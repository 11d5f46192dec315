"""What one saga costs in messages, commits and bytes, by the servers' own counters: among many, and alone."""

from __future__ import annotations

import time
from collections.abc import Sequence

from benchmarks import orders
from benchmarks.bench import Bench
from benchmarks.contender import Order
from benchmarks.latency import at, waited
from benchmarks.results import Figure
from benchmarks.roster import FLOOR, OURS
from benchmarks.stand import Stand
from benchmarks.turn import How, Turn

#: The broker counts every 5 seconds, and an idle backend of PostgreSQL tells after 10.
_SECONDS_TO_COUNT = 12
#: Sagas one after the other: enough for an average, few enough for a slow contender.
_ALONE = 300
_SECONDS_ALONE = 300
_MESSAGES = ("publish", "confirm", "deliver", "ack", "return_unroutable")


def costs(bench: Bench) -> None:
    """The counters before and after so many sagas, divided by them."""
    for name, factory in bench.chosen(FLOOR, OURS, "single").items():
        with bench.turn("costs", name, factory) as its:
            wanted = orders.clean(max(int(bench.sagas * its.contender.share), 20))
            its.contender.prepare(wanted)
            _count(bench, its, bench.warm_up(its, wanted), name, "costs", How())


def alone(bench: Bench) -> None:
    """The same one saga after the other, so that every batch holds one message."""
    for name, factory in bench.chosen(FLOOR, OURS, "sqlite").items():
        with bench.turn("alone", name, factory) as its:
            wanted = orders.clean(min(bench.sagas, _ALONE) + 200)
            its.contender.prepare(wanted)
            rest = bench.warm_up(its, wanted)
            _count(bench, its, rest, name, "alone", How(in_flight=1, pivot=True, seconds=_SECONDS_ALONE))


def _count(bench: Bench, its: Turn, wanted: Sequence[Order], name: str, experiment: str, how: How) -> None:
    time.sleep(_SECONDS_TO_COUNT)
    before = counters(bench.stand)
    timed = its.timed(wanted, how)
    time.sleep(_SECONDS_TO_COUNT)
    after = counters(bench.stand)
    each = {what: round((after[what] - before.get(what, 0)) / len(wanted), 3) for what in after}
    mine = sum(seconds for group, seconds in timed.cpu.items() if group not in {"others", "elapsed", "driver"})
    each["CPU ms"] = round(1000 * mine / len(wanted), 3)
    for mark in timed.times.marks:
        each[f"median ms to {mark}"] = at(waited(timed.times, mark), 0.5)
    bench.note(
        Figure(
            experiment=experiment,
            contender=name,
            round=1,
            values=each,
            cpu=timed.cpu,
            memory=timed.memory,
            void=timed.void + its.audit(),
        )
    )


def counters(stand: Stand) -> dict[str, float]:
    """What broker and database have counted so far; the driver's own connection is gone when this is read."""
    overview = stand.broker("overview").get("message_stats", {})
    found = {f"messages {kind}": float(overview.get(kind, 0)) for kind in _MESSAGES}
    connections = stand.broker("connections")
    found["bytes to the broker"] = float(sum(each.get("recv_oct", 0) for each in connections))
    found["bytes from the broker"] = float(sum(each.get("send_oct", 0) for each in connections))
    if stand.postgres_url:
        ((commits, inserted, updated, deleted),) = stand.query(
            "SELECT sum(xact_commit), sum(tup_inserted), sum(tup_updated), sum(tup_deleted)"
            " FROM pg_stat_database WHERE datname LIKE 'bench%'"
        )
        ((written,),) = stand.query("SELECT wal_bytes FROM pg_stat_wal")
        found |= {
            "commits": float(commits or 0),
            "rows inserted": float(inserted or 0),
            "rows updated": float(updated or 0),
            "rows deleted": float(deleted or 0),
            "bytes of WAL": float(written or 0),
        }
    return found
