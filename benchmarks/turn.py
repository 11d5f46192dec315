"""One contender's turn: made from nothing, given orders, timed, audited, and gone without a trace."""

from __future__ import annotations

import contextlib
import json
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks import machine
from benchmarks.contender import Contender, Factory, Ground, Order, ProgramFeed
from benchmarks.driver import Plan, Times
from benchmarks.programs import ROOT
from benchmarks.stand import Stand
from benchmarks.wire import encode
from common.settings import Settings

#: Sagas under way at once where throughput is measured: enough to keep every stage of every contender busy.
IN_FLIGHT = 2_000
_SECONDS_TO_SETTLE = 60


@dataclass(frozen=True, slots=True)
class How:
    """How orders are put in: so many under way, or so many a second, or all at once; see `driver.Plan`.

    `when_sent` is called when all commands are confirmed, where they are sent all at once.
    """

    in_flight: int = 0
    rate: float = 0
    seconds: float = 600
    pivot: bool = False
    twice: Sequence[int] = ()
    when_sent: Callable[[], None] | None = None


#: As many as keep every stage busy.
FULL = How(in_flight=IN_FLIGHT)


@dataclass(slots=True)
class Timed:
    """What one timed part gave. `void` says why its figure does not count; empty if it does."""

    times: Times
    seconds: float
    """From the first command until nothing moved."""
    cpu: dict[str, float]
    """Seconds of processor time of the programs, the broker, the database, the driver, and of others."""
    memory: dict[str, float]
    """Resident MB of each program at the end."""
    void: list[str] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Sagas a second."""
        return self.times.done / self.seconds


@dataclass(slots=True)
class Turn:
    """A contender that runs, with nothing else beside it."""

    stand: Stand
    contender: Contender
    ground: Ground
    put_in: list[Order] = field(default_factory=list)

    def drive(self, orders: Sequence[Order], how: How = FULL) -> Times:
        """Put orders in, by a driver in a process of its own, and wait for their ends."""
        self.put_in += orders
        feed = self.contender.feed(orders)
        if isinstance(feed, ProgramFeed):
            return _by_program(feed, orders, self.ground.folder, in_flight=how.in_flight, seconds=how.seconds)
        marks = [("pivot", feed.pivot)] if how.pivot and feed.pivot else []
        plan = Plan(
            url=self.stand.amqp_url,
            frames=[encode(letter) for letter in feed.letters],
            answer_ids=[letter.answer_id for letter in feed.letters],
            marks=[*marks, ("last", feed.last)],
            in_flight=how.in_flight,
            rate=how.rate,
            seconds=how.seconds,
            twice=how.twice,
        )
        return _by_driver(plan, self.ground.folder, how.when_sent)

    def timed(self, orders: Sequence[Order], how: How = FULL) -> Timed:
        """Put orders in until nothing moves any more, and note what it took."""
        if self.stand.postgres_url:
            # What was written before is not to be paid for now.
            self.stand.query("CHECKPOINT")
        before = self._usage()
        times = self.drive(orders, how)
        void = _what_is_missing(times)
        ended = times.ended
        if not self._is_settled(0):
            # The last mark was not the end.
            if not self._is_settled(_SECONDS_TO_SETTLE):
                void.append(f"something still moved {_SECONDS_TO_SETTLE} s after the last saga was heard of")
            ended = time.monotonic()
        cpu = self._usage().since(before)
        cpu["driver"] = round(times.cpu, 3)
        cpu["others"] = round(max(cpu["others"] - times.cpu, 0.0), 3)
        return Timed(
            times=times,
            seconds=ended - times.began,
            cpu=cpu,
            memory=machine.memory(self.contender.pids()),
            void=void,
        )

    def audit(self) -> list[str]:
        """What the contender's own books say is wrong with all that was put in."""
        return self.contender.audit(self.put_in)

    def _is_settled(self, seconds: float) -> bool:
        try:
            self.contender.settle(seconds)
        except TimeoutError:
            return False
        return True

    def _usage(self) -> machine.Usage:
        groups = {name: [pid] for name, pid in self.stand.groups.items()}
        return machine.usage({"programs": list(self.contender.pids().values()), **groups})


@contextlib.contextmanager
def turn(stand: Stand, factory: Factory) -> Iterator[Turn]:
    """Make a contender, start it, and remove it with all that it left."""
    with tempfile.TemporaryDirectory(prefix="saga-bench-") as folder:
        ground = Ground(
            stand.amqp_url, stand.management_url, stand.postgres_url, Path(folder), prefetch=Settings().prefetch
        )
        contender = factory(ground)
        try:
            contender.create()
            contender.start()
            yield Turn(stand, contender, ground)
        finally:
            contender.stop()
            contender.remove()


def _by_driver(plan: Plan, folder: Path, when_sent: Callable[[], None] | None) -> Times:
    plan_file, times_file = folder / "plan.pickle", folder / "times.pickle"
    plan_file.write_bytes(pickle.dumps(plan))
    command: list[str | Path] = [sys.executable, "-m", "benchmarks.drive", plan_file, times_file]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as driver:
        assert driver.stdout
        try:
            if when_sent and driver.stdout.readline():
                when_sent()
            driver.wait(plan.seconds + 60)
        except BaseException:
            driver.kill()
            raise
    if driver.returncode:
        raise RuntimeError("the driver failed")
    times: Times = pickle.loads(times_file.read_bytes())  # noqa: S301 - written by our own driver a moment ago
    return times


def _by_program(
    feed: ProgramFeed, orders: Sequence[Order], folder: Path, *, in_flight: int, seconds: float
) -> Times:
    """Let a contender's own driver do it."""
    plan_file = folder / "plan.json"
    plan = {"orders": [asdict(order) for order in orders], "in_flight": in_flight, "seconds": seconds}
    plan_file.write_text(json.dumps(plan))
    command: list[str | Path] = [*feed.command, plan_file]
    done = subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=seconds + 60)
    said = json.loads(done.stdout.strip().splitlines()[-1])
    moments = [*said["done_at"], *[0.0] * (len(orders) - len(said["done_at"]))]
    return Times(began=said["began"], ended=said["ended"], marks={"last": moments})


def _what_is_missing(times: Times) -> list[str]:
    void = []
    if times.marks and times.done < len(times.last):
        void.append(f"{len(times.last) - times.done} of {len(times.last)} sagas did not end in time")
    if times.refused:
        void.append(f"the broker refused {times.refused} commands")
    return void
