"""Exchanges, queues and bindings, held against the topology that follows from the saga table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from common import saga, topology
from common.settings import Delay
from common.topology import Binding
from ops.doctor import mends
from ops.doctor.facts import Broker, Facts, Queue
from ops.doctor.finding import Finding, note, or_well, some, wrong

#: What a policy could add that would lose messages, or hold back what must flow.
_HARMFUL = frozenset(
    {
        *("max-length", "max-length-bytes", "message-ttl", "expires", "overflow", "delivery-limit"),
        *("dead-letter-exchange", "dead-letter-routing-key", "dead-letter-strategy"),
    }
)


#: What limits how much a queue may hold.
_BOUNDS = frozenset({"max-length", "max-length-bytes"})


def exchanges(facts: Facts) -> Iterable[Finding]:
    """The exchanges are there, of the right kind, and nothing catches what they cannot route."""
    if facts.broker is None:
        return []
    wanted = _wanted(facts).exchanges
    return or_well(_exchanges(facts.broker, wanted), "exchanges", f"{', '.join(wanted)}: as declared")


def _exchanges(broker: Broker, wanted: Iterable[str]) -> Iterator[Finding]:
    for name in wanted:
        exchange = broker.exchanges.get(name)
        if exchange is None:
            yield wrong("exchanges", f"{name} is missing", mends.DECLARE)
        elif exchange.kind != "topic" or not exchange.durable:
            kind = exchange.kind if exchange.durable else f"{exchange.kind} that a restart forgets"
            mend = f"stop the services, delete it in the management UI, and {mends.DECLARE}"
            yield wrong("exchanges", f"{name} is not a durable topic exchange, but {kind}", mend)
        elif "alternate-exchange" in exchange.arguments or "alternate-exchange" in exchange.policy:
            what = f"{name} has an alternate exchange: events without a route count as delivered, and are lost"
            yield wrong("exchanges", what, "take it away: remove the policy, or delete and redeclare the exchange")


def queues(facts: Facts) -> Iterable[Finding]:
    """Every queue is there with the arguments it must have, those of retry levels apart."""
    if facts.broker is None:
        return []
    wanted = _wanted(facts).queues
    return or_well(_queues(facts, facts.broker, wanted), "queues", f"{len(wanted)} queues with their arguments")


def _queues(facts: Facts, broker: Broker, wanted: Iterable[topology.Queue]) -> Iterator[Finding]:
    told_by_levels = _other_levels(facts)
    for queue in wanted:
        found = broker.queues.get(queue.name)
        if found is None:
            if not (told_by_levels and _level(queue.name)):
                yield wrong("queues", f"{queue.name} is missing", mends.DECLARE)
            continue
        differences = _differences(queue.arguments, found.arguments)
        if not found.durable:
            differences.append("a restart forgets it")
        if differences:
            what = f"{queue.name} has other arguments: {some(differences)}"
            yield wrong("queues", what, mends.redeclare_queue(broker, queue.name, messages=found.messages))


def _differences(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    return [
        f"{name} is {found.get(name, 'not set')}, not {wanted.get(name, 'set')}"
        for name in sorted({*wanted, *found})
        if wanted.get(name) != found.get(name)
    ]


def levels(facts: Facts) -> Iterable[Finding]:
    """The retry levels that exist are those of RETRY_DELAYS, which must be the same everywhere."""
    if facts.broker is None:
        return []
    told = ", ".join(map(str, facts.delays))
    return or_well(_levels(facts, facts.broker), "retry levels", told)


def _levels(facts: Facts, broker: Broker) -> Iterator[Finding]:
    ours = ",".join(map(str, facts.delays))
    if there := _other_levels(facts):
        what = f"the services retry after {', '.join(there)}, RETRY_DELAYS says {ours}"
        yield wrong(
            "retry levels", what, f"say it here too: RETRY_DELAYS={','.join(there)}, or the same everywhere"
        )
        return
    wanted = set(map(str, facts.delays))
    for name, queue in sorted(broker.queues.items()):
        level = _level(name)
        if level and level not in wanted:
            what = f"{name} is of no level that RETRY_DELAYS={ours} names: was a service started with another?"
            delete = mends.delete_queue(broker, name, messages=queue.messages)
            mend = f"give all services the same RETRY_DELAYS; then {delete}"
            yield (wrong if queue.messages else note)("retry levels", what, mend)


def _other_levels(facts: Facts) -> list[str]:
    """The levels that exist, where they are others than ours from the first to the last; else nothing."""
    names = facts.broker.queues if facts.broker else ()
    there = {level for name in names if (level := _level(name))}
    if not there or there & set(map(str, facts.delays)):
        return []
    return sorted(there, key=_length)


def _length(level: str) -> int:
    try:
        return Delay.parse(level).milliseconds
    except ValueError:
        return 0


def _level(queue: str) -> str:
    """The level of a retry queue of a service; empty for any other queue."""
    service, retry, level = queue.partition(".retry.")
    return level if retry and service in saga.SERVICES else ""


def bindings(facts: Facts) -> Iterable[Finding]:
    """Every binding that the table lists is there, and our queues have no other."""
    if facts.broker is None:
        return []
    wanted = _wanted(facts)
    return or_well(_bindings(facts.broker, wanted), "bindings", f"{len(wanted.bindings)} bindings, none stale")


def _bindings(broker: Broker, wanted: topology.Topology) -> Iterator[Finding]:
    ours = {queue.name for queue in wanted.queues}
    for binding in wanted.bindings:
        # A queue that is missing is told already, and so is that it has no bindings.
        if binding not in broker.bindings and binding.queue in broker.queues:
            what = f"{binding.queue} does not get {binding.key}: its binding to {binding.exchange} is missing"
            yield wrong("bindings", what, mends.DECLARE)
    for binding in sorted(broker.bindings - set(wanted.bindings), key=_order):
        if binding.queue not in ours or not binding.exchange:
            continue
        if binding in wanted.stale:
            what = f"{binding.queue} still gets {binding.key}, which the saga table no longer lists"
            yield wrong(
                "bindings", what, f"{mends.unbind(broker, binding)}; the next service that starts does it too"
            )
        else:
            what = f"{binding.queue} is bound to {binding.exchange} with {binding.key!r}, which no table lists"
            yield wrong("bindings", what, mends.unbind(broker, binding))


def strangers(facts: Facts) -> Iterator[Finding]:
    """Nobody else listens where a copy must have exactly one target, or hides that a route is missing."""
    broker = facts.broker
    if broker is None:
        return
    ours = {queue.name for queue in _wanted(facts).queues}
    queues_of_others = {(binding, "queue") for binding in broker.bindings if binding.queue not in ours}
    others = queues_of_others | {(binding, "exchange") for binding in broker.elsewhere}
    for binding, kind in sorted(others, key=lambda it: _order(it[0])):
        mend = mends.unbind(broker, binding, kind=kind)
        if binding.exchange == topology.RECOVERY and not _level(binding.queue):
            what = (
                f"the {kind} {binding.queue} listens to {binding.key!r} on {topology.RECOVERY}: "
                "a copy that misses its own queue would count as delivered"
            )
            yield wrong("strangers", what, mend)
        elif binding.exchange == topology.EVENTS and kind == "queue" and _refuses(broker, binding.queue):
            what = (
                f"{binding.queue} hears {binding.key!r} on {topology.EVENTS} and refuses when it is full: then "
                "the service that says it is refused, too, and says it again and again"
            )
            yield wrong("strangers", what, f"an observer drops what is old (no x-overflow); {mend}")
        elif binding.exchange == topology.EVENTS and binding.queue in broker.queues and binding.key == "#":
            what = (
                f"{binding.queue} hears everything on {topology.EVENTS}: "
                "while it does, an event that misses its service counts as delivered"
            )
            yield note("strangers", what, f"bind only what it needs; {mend}")


def _refuses(broker: Broker, name: str) -> bool:
    """Whether a queue can become full, and then refuses instead of dropping what is old."""
    queue = broker.queues.get(name)
    if queue is None:
        return False
    # An argument goes before a policy.
    told = dict(queue.policy) | {key.removeprefix("x-"): value for key, value in queue.arguments.items()}
    refuses = str(told.get("overflow")).startswith("reject-publish")
    return refuses and bool(_BOUNDS & told.keys())


def policies(facts: Facts) -> Iterator[Finding]:
    """No policy adds to our queues what would lose messages."""
    broker = facts.broker
    if broker is None:
        return
    hit: dict[tuple[str, str], list[str]] = {}
    for queue in _wanted(facts).queues:
        found = broker.queues.get(queue.name)
        # A queue that refuses when it is full may be made smaller: what is confirmed stays.
        may = _BOUNDS if _BOUNDS & {name.removeprefix("x-") for name in queue.arguments} else frozenset()
        if found and (harmful := sorted((_HARMFUL - may) & set(found.policy))):
            hit.setdefault((found.policy_name, some(harmful)), []).append(queue.name)
    for (name, what), names in hit.items():
        mend = "let its pattern spare the services' queues: `rabbitmqctl list_policies`"
        yield wrong("policies", f"the policy {name} gives {some(names)} {what}", mend)


def leaders(facts: Facts) -> Iterable[Finding]:
    """Every queue has a leader and enough members that are there."""
    if facts.broker is None:
        return []
    ours = [queue.name for queue in _wanted(facts).queues if queue.name in facts.broker.queues]
    found = (it for name in ours for it in _leader(name, facts.broker.queues[name]))
    return or_well(found, "leaders", "every queue has a leader, and all its members are there") if ours else []


def _leader(name: str, queue: Queue) -> Iterator[Finding]:
    if queue.arguments.get("x-queue-type") not in {"quorum", "stream"}:
        # It was declared as another kind, which is told already; a classic queue has no members.
        return
    absent = sorted(set(queue.members) - set(queue.online))
    if queue.state in {"down", "minority", "stopped", "crashed"} or not queue.leader:
        what = f"{name} has no leader ({queue.state}): it neither takes nor gives messages"
        where = f"start {some(absent)}" if absent else "start the broker's other nodes, or read its log"
        yield wrong("leaders", what, where)
    elif absent:
        yield note("leaders", f"{name}: {some(absent)} of its members is away", f"start {some(absent)}")


def _wanted(facts: Facts) -> topology.Topology:
    return _derived(facts.delays, facts.broker.lanes if facts.broker else ())


@cache
def _derived(delays: tuple[Delay, ...], lanes: tuple[str, ...]) -> topology.Topology:
    return topology.derive(delays, lanes)


def _order(binding: Binding) -> tuple[str, str, str]:
    return binding.queue, binding.exchange, binding.key
