"""The same pictures as Mermaid's text, which code hosts and many editors draw themselves."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from common import saga, topology
from common.saga import Step
from common.settings import Delay


def flow(steps: Sequence[Step] = saga.SAGA) -> str:
    """The saga as a diagram: forward along the top, and the way back. README and ARCHITECTURE.md hold it."""
    first, last = steps[0], steps[-1]
    lines = ["flowchart LR", f'    client(["client"]) -->|{first.on}| {first.service}']
    for step in steps:
        name = f"{step.service}: the pivot" if step.pivot else step.service
        shape = f'{{{{"{name}"}}}}' if step.pivot else f'["{name}"]'
        lines.append(f"    {step.service}{shape}")
    for step, follower in pairwise(steps):
        lines.append(f"    {step.service} -->|{step.emits}| {follower.service}")
    for step in steps:
        if step.pivot:
            complete = f'completed(["{first.service} completes: {saga.COMPLETED}"])'
            lines.append(f"    {step.service} -->|{step.emits}| {complete}")
    lines.append(f'    {last.service} --> told(["{last.emits}"])')
    failing = " & ".join(step.service for step in steps if step.refusals)
    lines.append(f'    {failing} -.->|refused, or retries spent| failed{{"{saga.ANY_FAILED}"}}')
    lines += [
        f'    failed -.->|{step.service} undoes| undone_{step.service}(["{step.compensation}"])'
        for step in steps
        if step.compensation
    ]
    lines.append(f"    failed -.->|{last.service} tells the user| told")
    return "\n".join(lines)


def objects(delays: Sequence[Delay]) -> str:
    """The broker's objects as a diagram: exchanges, queues and what they are bound with."""
    derived = topology.derive(delays)
    lines = ["flowchart LR"]
    lines += [f'    {_id(name)}{{{{"{name}"}}}}' for name in derived.exchanges]
    for service in saga.SERVICES:
        lines.append(f'    subgraph {service}["{service}"]')
        lines += [f'        {_id(it.name)}["{it.name}"]' for it in derived.queues if _is_of(it.name, service)]
        lines.append("    end")
    lines += [f'    {_id(it.name)}["{it.name}"]' for it in derived.queues if not _service_of(it.name)]
    keys: dict[tuple[str, str], list[str]] = {}
    for binding in derived.bindings:
        keys.setdefault((binding.exchange, binding.queue), []).append(binding.key)
    lines += [
        f'    {_id(exchange)} -->|"{"<br>".join(bound)}"| {_id(queue)}'
        for (exchange, queue), bound in keys.items()
    ]
    lines += [
        f'    {_id(queue.name)} -.->|"{queue.arguments["x-dead-letter-routing-key"]}"| {_id(topology.RECOVERY)}'
        for queue in derived.queues
        if "x-dead-letter-routing-key" in queue.arguments
    ]
    return "\n".join(lines)


def fenced(diagram: str) -> str:
    """A diagram as it stands in a Markdown document."""
    return f"```mermaid\n{diagram}\n```"


def _id(name: str) -> str:
    # `end` is a word of Mermaid's, and a dot would end a name.
    return name.replace(".", "_")


def _service_of(queue: str) -> str:
    return next((service for service in saga.SERVICES if _is_of(queue, service)), "")


def _is_of(queue: str, service: str) -> bool:
    return queue.startswith(f"{service}.")
