"""The same pictures as plain text, and as data for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from common import saga, topology
from common.saga import Step
from common.settings import Delay


def flow(steps: Sequence[Step] = saga.SAGA) -> str:
    """The saga from its first step to its last, and what is undone."""
    widest = max(len(step.service) for step in steps)
    hears = max(len(step.on) for step in steps)
    says = max(len(step.emits) for step in steps)
    lines = []
    for number, step in enumerate(steps, 1):
        forward = f"{step.service:<{widest}}  {step.on:<{hears}}  ->  {step.emits:<{says}}"
        lines.append(f"{number}  {forward}  {_back(step)}".rstrip())
        if step.pivot:
            lines.append("   ---- the pivot: what is above can be undone, what is below only goes forward ----")
    return "\n".join(lines)


def _back(step: Step) -> str:
    fails = f"or {step.failed}" if step.refusals else ""
    undone = f"undone by {saga.ANY_FAILED}: {step.compensation}" if step.compensation else ""
    return "; ".join(part for part in (fails, undone) if part)


def objects(delays: Sequence[Delay]) -> str:
    """Each queue with the exchanges and keys that lead to it."""
    derived = topology.derive(delays)
    widest = max(len(queue.name) for queue in derived.queues)
    lines = []
    for queue in derived.queues:
        bound = [f"{it.exchange} {it.key}" for it in derived.bindings if it.queue == queue.name]
        lines += [f"{queue.name:<{widest}}  <-  {source}" for source in bound]
        if target := queue.arguments.get("x-dead-letter-routing-key"):
            lines.append(f"{queue.name:<{widest}}  ->  {queue.arguments['x-dead-letter-exchange']} {target}")
    return "\n".join(lines)


def flow_as_data(steps: Sequence[Step] = saga.SAGA) -> dict[str, Any]:
    """The saga table itself, and the commands beside the saga."""
    return {
        "steps": [{**asdict(step), "failed": step.failed if step.refusals else None} for step in steps],
        "completed": saga.COMPLETED,
        "commands": [asdict(command) for command in saga.COMMANDS],
    }


def objects_as_data(delays: Sequence[Delay]) -> dict[str, Any]:
    """Everything that is declared, in its order."""
    derived = topology.derive(delays)
    return {
        "exchanges": [{"name": name, "type": "topic", "durable": True} for name in derived.exchanges],
        "queues": [{"name": queue.name, "arguments": dict(queue.arguments)} for queue in derived.queues],
        "bindings": [asdict(binding) for binding in derived.bindings],
    }
