"""The driver: puts commands in and notes when their marks come out, as a program of its own (`benchmarks.drive`).

It is given frames that are ready to be sent. Closed loop: so many sagas are kept under way. Open loop: each
command has its moment, whatever became of those before, and latency counts from that moment, so that a system
that stands still is charged for everybody who would have waited meanwhile.
"""

from __future__ import annotations

import asyncio
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pamqp import commands as spec

from benchmarks.contender import Mark
from benchmarks.wire import Wire, connect

#: Closer than this to its moment a command is sent at once, in seconds.
_CLOSE = 0.001
#: A command that is sent twice is sent again behind so many others.
SECOND_TIME_BEHIND = 40
#: Commands sent but not confirmed, at most, where nothing else bounds them.
_UNCONFIRMED = 1_000


@dataclass(frozen=True, slots=True)
class Plan:
    """What to send and what to wait for.

    With `rate` (per second) the loop is open; without it `in_flight` sagas are kept under way, or, if that is 0,
    all commands are sent as fast as they are confirmed, and when they are, the driver says so: `sent`.
    `marks` are waited for by name; the last of them ends a saga. `twice` are the places of commands that are sent
    again a moment later.
    """

    url: str
    frames: Sequence[bytes]
    answer_ids: Sequence[str]
    marks: Sequence[tuple[str, Mark]]
    in_flight: int = 0
    rate: float = 0
    seconds: float = 120
    twice: Sequence[int] = ()


@dataclass(slots=True)
class Times:
    """When what happened, by `time.monotonic`, one entry an order; 0: never.

    `due` is when a command was to be sent, `marks` when each mark was first seen. `repeated` marks had been seen
    before, `strange` ones belong to no order. `cpu` is what the driver itself took, in seconds.
    """

    began: float = 0
    all_sent: float = 0
    ended: float = 0
    due: list[float] = field(default_factory=list)
    marks: dict[str, list[float]] = field(default_factory=dict)
    refused: int = 0
    repeated: int = 0
    strange: int = 0
    cpu: float = 0
    late: float = 0
    """The most that the driver itself was behind with sending, in seconds; open loop only."""

    @property
    def last(self) -> list[float]:
        """When each saga's last mark was seen."""
        return list(self.marks.values())[-1]

    @property
    def done(self) -> int:
        """How many sagas came to their end."""
        return sum(1 for moment in self.last if moment)


class _Run:
    """One plan being carried out."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._count = len(plan.frames)
        self._index = {name.encode(): number for number, name in enumerate(plan.answer_ids)}
        self._moments: dict[bytes, list[float]] = {}
        self._ends: list[float] = []
        self._done = 0
        self._sent = 0
        self._again = {number + SECOND_TIME_BEHIND: number for number in plan.twice}
        self._wake = asyncio.Event()
        self.wire: Wire
        self.times = Times(due=[0.0] * self._count)

    async def listen(self) -> None:
        """Bind a queue of the driver's own to the marks, or consume the queue that is a mark."""
        for name, mark in self._plan.marks:
            self._ends = self.times.marks[name] = self._moments[name.encode()] = [0.0] * self._count
            queue = mark.queue or await self._bound(mark)
            consume = spec.Basic.Consume(queue=queue, consumer_tag=name, no_ack=True)
            await self.wire.ask(consume, spec.Basic.ConsumeOk)

    async def _bound(self, mark: Mark) -> str:
        declare = spec.Queue.Declare(queue="", exclusive=True, auto_delete=True)
        queue = str((await self.wire.ask(declare, spec.Queue.DeclareOk)).queue)
        bind = spec.Queue.Bind(queue=queue, exchange=mark.exchange, routing_key=mark.routing_key)
        await self.wire.ask(bind, spec.Queue.BindOk)
        return queue

    def heard(self, mark: bytes, correlation_id: bytes) -> None:
        """Note a mark down."""
        moments = self._moments[mark]
        number = self._index.get(correlation_id)
        if number is None:
            self.times.strange += 1
        elif moments[number]:
            self.times.repeated += 1
        else:
            moments[number] = time.monotonic()
            self._done += moments is self._ends

    async def carry_out(self) -> None:
        """Send everything and wait for the end of every saga, or until the time is up."""
        self.times.began = time.monotonic()
        sending = asyncio.create_task(self._send_at_rate() if self._plan.rate else self._send_when_room())
        failing = asyncio.create_task(self.wire.failed())
        working = asyncio.create_task(self._all_is_done(sending))
        done, pending = await asyncio.wait(
            {working, failing}, timeout=self._plan.seconds, return_when=asyncio.FIRST_COMPLETED
        )
        for task in (*pending, sending):
            task.cancel()
        for task in done:
            task.result()
        self.times.refused = self.wire.refused
        self.times.ended = max(self._ends, default=0.0) or time.monotonic()

    async def _all_is_done(self, sending: asyncio.Task[None]) -> None:
        await sending
        if not self._plan.rate and not self._plan.in_flight:
            await self._until(lambda: self.wire.confirmed >= self._count + len(self._again))
            sys.stdout.write("sent\n")
            sys.stdout.flush()
        self.times.all_sent = time.monotonic()
        await self._until(lambda: self._done >= self._count)

    async def _until(self, reached: Callable[[], bool]) -> None:
        while not reached():
            self._wake.clear()
            await self._wake.wait()

    async def _send_when_room(self) -> None:
        self.wire.changed = self._fill
        self._fill()
        while self._sent < self._count:
            self._wake.clear()
            await self._wake.wait()

    def _fill(self) -> None:
        if self._plan.in_flight:
            room = self._plan.in_flight - (self._sent - self._done)
        else:
            room = _UNCONFIRMED - (self._sent - self.wire.confirmed)
        now = time.monotonic()
        for _ in range(min(room, self._count - self._sent)):
            self._send_next(now)
        self._wake.set()

    async def _send_at_rate(self) -> None:
        self.wire.changed = self._wake.set
        began = time.monotonic() + 0.05
        every = 1 / self._plan.rate
        self.times.began = began
        while self._sent < self._count:
            due = began + self._sent * every
            now = time.monotonic()
            if due - now > _CLOSE:
                await asyncio.sleep(due - now)
            else:
                self.times.late = max(self.times.late, now - due)
                self._send_next(due)

    def _send_next(self, due: float) -> None:
        number = self._sent
        self.times.due[number] = due
        self.wire.publish(self._plan.frames[number])
        self._sent += 1
        if (again := self._again.get(number)) is not None:
            self.wire.publish(self._plan.frames[again])


async def drive(plan: Plan) -> Times:
    """Carry out a plan in this process."""
    run = _Run(plan)
    run.wire = await connect(plan.url, "benchmark driver", run.heard)
    try:
        await run.listen()
        await run.carry_out()
    finally:
        run.wire.close()
    used = resource.getrusage(resource.RUSAGE_SELF)
    run.times.cpu = used.ru_utime + used.ru_stime
    return run.times
