"""Messages that do not move: waiting long, stranded, retried slowly, or parked for a person."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from common import saga, topology
from ops.doctor.checks.services import queues_of_work
from ops.doctor.facts import Broker, Facts, Queue
from ops.doctor.finding import Finding, note, or_well, wrong

#: The broker holds at most this many messages on their way to the dead letters; then it stops to dead-letter.
_STALLED = 32
_NEARLY_FULL = 0.8


def waiting(facts: Facts) -> Iterable[Finding]:
    """No queue of work has held messages for a minute, least of all without any being done."""
    if facts.broker is None:
        return []
    names = [name for service in saga.SERVICES for name in queues_of_work(service, facts.broker.lanes)]
    there = [(name, facts.broker.queues[name]) for name in names if name in facts.broker.queues]
    return or_well(
        (it for name, queue in there for it in _waiting(name, queue)), "waiting", "no message waits long"
    )


def _waiting(name: str, queue: Queue) -> Iterator[Finding]:
    # What was there all the time; the last look counts too, as the figures are some seconds old.
    least = min(queue.least or 0, queue.messages)
    service = name.partition(".")[0]
    if not least:
        return
    if queue.acks:
        what = f"{queue.messages} messages wait in {name}; {queue.acks:.1f} a second are done"
        yield note(
            "waiting",
            what,
            f"if it does not shrink, start more replicas of {service}, or give it a faster database",
        )
    else:
        what = f"{queue.messages} messages have waited in {name} for a minute, and none was done"
        yield wrong(
            "waiting", what, f"read {service}'s log: its database may be away; `saga list --stuck` names the sagas"
        )


def stranded(facts: Facts) -> Iterator[Finding]:
    """Nothing that expired or crashed too often is kept from its dead-letter target."""
    for name, queue in _ours(facts):
        if queue.stranded >= _STALLED:
            what = f"{queue.stranded} messages cannot leave {name}: their dead-letter target takes none"
            yield wrong(
                "stranded", what, "mend what is said of queues and bindings above; they go on by themselves"
            )
        elif queue.stranded and queue.stranded == queue.messages and not queue.acks:
            what = f"{queue.stranded} messages are on their way out of {name}"
            yield note("stranded", what, "look again: if it stays so, their dead-letter target takes none")


def full(facts: Facts) -> Iterator[Finding]:
    """The bounded queues of commands have room."""
    mend = "publish fewer commands, or start more replicas of its service; LANES keeps clients out of others' way"
    for name, queue in _ours(facts):
        if name == topology.HISTORY:
            continue
        for held, limit, unit in (
            (queue.messages, "max-length", "messages"),
            (queue.bytes_ready, "max-length-bytes", "bytes"),
        ):
            told = (queue.arguments.get(f"x-{limit}"), queue.policy.get(limit))
            # The smaller one counts.
            bound = min((one for one in told if isinstance(one, int)), default=None)
            if bound is None or held < _NEARLY_FULL * bound:
                continue
            what = f"{name} holds {held} of at most {bound} {unit}"
            if held >= bound:
                yield wrong("full", f"{what}: it refuses more", mend)
            else:
                yield note("full", what, mend)


def retried(facts: Facts) -> Iterator[Finding]:
    """Nothing waits at the slowest retry level, where what may never be given up stays."""
    slowest = facts.delays[-1]
    for service in saga.SERVICES:
        name = topology.retry_queue(service, slowest)
        queue = facts.broker.queues.get(name) if facts.broker else None
        if queue and queue.messages:
            what = f"{queue.messages} messages wait in {name}, the slowest level: what they ask for keeps failing"
            yield note("retried", what, f"`saga list --stuck` names the sagas, {service}'s log the error")


def parked(facts: Facts) -> Iterable[Finding]:
    """Nothing is parked: a person is to decide what becomes of it."""
    if facts.broker is None:
        return []
    return or_well(_parked(facts.broker), "parked", "nothing waits for a person")


def _parked(broker: Broker) -> Iterator[Finding]:
    for service in saga.SERVICES:
        queue = broker.queues.get(topology.parked_queue(service))
        if queue and queue.messages:
            what = f"{queue.messages} messages are parked by {service}: a person must decide"
            yield note("parked", what, "`saga parked list` tells why; then replay or discard them")


def _ours(facts: Facts) -> Iterator[tuple[str, Queue]]:
    if facts.broker is None:
        return
    for queue in topology.derive(facts.delays, facts.broker.lanes).queues:
        if found := facts.broker.queues.get(queue.name):
            yield queue.name, found
