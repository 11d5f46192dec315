"""A long run is watched: memory, descriptors, outboxes, tables and queues, and whether any of them only grows."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from chaos.results import Run
from chaos.stage import Stage
from common import saga
from containers.node import Node

_EVERY = 10.0
_MIB = 1 << 20
#: What may be added from the first third of a run to the last: a part of it, and so much in any case.
_PART = 0.15
_ROOM = {"memory": 8.0, "descriptors": 10.0, "outbox": 200.0, "queues": 500.0}


@dataclass(slots=True)
class Soak:
    """Samples of one run, taken all the time."""

    stage: Stage
    run: Run

    @contextlib.asynccontextmanager
    async def sampling(self, wanted: bool) -> AsyncIterator[None]:
        """Take samples until the context ends, and judge them; or do nothing."""
        if not wanted:
            yield
            return
        began = time.monotonic()

        async def sample() -> None:
            while True:
                # What is being killed cannot be measured; the next time it can.
                with contextlib.suppress(AssertionError):
                    self.run.samples.append(
                        {"seconds": round(time.monotonic() - began, 1), **await self._sample()}
                    )
                await asyncio.sleep(_EVERY)

        sampling = asyncio.create_task(sample())
        try:
            yield
        finally:
            sampling.cancel()
            await asyncio.gather(sampling, return_exceptions=True)
            self.run.judged = judge(self.run.samples)

    async def _sample(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for node in self.stage.services:
            found[f"memory {node.name}"], found[f"descriptors {node.name}"] = await _of(node)
        for service in saga.SERVICES:
            (row,) = await self.stage.system.query(
                service,
                "SELECT (SELECT count(*) FROM outbox) AS outbox, (SELECT count(*) FROM saga_step) AS steps, "
                "pg_database_size(current_database()) AS size",
            )
            found[f"outbox {service}"] = row["outbox"]
            found[f"steps {service}"] = row["steps"]
            found[f"database {service}"] = round(row["size"] / _MIB, 1)
        queues = await self.stage.system.call("GET", "queues/%2F")
        found["queues"] = sum(queue.get("messages", 0) for queue in queues if queue.get("type") == "quorum")
        return found


async def _of(node: Node) -> tuple[float, float]:
    """Memory of a service's only process in MiB, and its open descriptors."""
    said = await node.run("sh", "-c", "grep VmRSS /proc/1/status; ls /proc/1/fd | wc -l")
    lines = said.split()
    return round(int(lines[1]) / 1024, 1), float(lines[-1])


def judge(samples: Sequence[dict[str, float]]) -> dict[str, str]:
    """What each measure did from the first third of the samples to the last, by their medians."""
    third = len(samples) // 3
    if third < 3:
        return {"samples": "too few to judge"}
    judged = {}
    for measure in samples[0]:
        kind = measure.partition(" ")[0]
        if kind not in _ROOM:
            continue
        first = statistics.median(sample[measure] for sample in samples[:third])
        last = statistics.median(sample[measure] for sample in samples[-third:])
        grows = last > first * (1 + _PART) + _ROOM[kind]
        judged[measure] = f"{'GROWS' if grows else 'flat'}: {first:g} -> {last:g}"
    return judged
