"""The five services as the broker sees them: are they connected, may they publish, do they read their queues."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from common import saga, topology
from ops.doctor import mends
from ops.doctor.facts import Broker, Connection, Facts
from ops.doctor.finding import Finding, note, ok, or_well, some, unseen, wrong

_BLOCKED = frozenset({"blocked", "blocking"})
_CLOSE = "end that program, or close its connection in the management UI"


def connected(facts: Facts) -> Iterator[Finding]:
    """Every service has its two connections; the others are counted."""
    if facts.broker is None:
        return
    if facts.broker.connections is None:
        mend = "give the management user the tag `monitoring`"
        yield unseen("services", "the connections may not be seen", mend)
        return
    names = Counter(connection.name for connection in facts.broker.connections)
    replicas = {service: names[name_of(service, "consume")] for service in saga.SERVICES}
    for service, count in replicas.items():
        publishing = names[name_of(service, "publish")]
        if not count and not publishing:
            what = f"{service} is not connected: nobody reads {', '.join(queues_of_work(service))}"
            yield wrong("services", what, mends.START)
        elif count != publishing:
            what = f"{service} has {count} connections to consume and {publishing} to publish"
            yield note(
                "services", what, "look again: one may just be opening; if it stays so, restart the service"
            )
    if there := [f"{service} {count}" for service, count in replicas.items() if count]:
        yield ok("services", f"connected, with replicas: {', '.join(there)}")


def blocked(facts: Facts) -> Iterable[Finding]:
    """No connection that publishes is blocked by an alarm."""
    if facts.broker is None or not facts.broker.connections:
        return []
    found = [
        wrong(
            "publishers",
            f"the broker blocks {connection.name or 'a connection'} from {connection.peer}",
            "end the broker's memory or disk alarm: free what is short; the events wait in the outbox",
        )
        for connection in facts.broker.connections
        if connection.state in _BLOCKED
    ]
    return or_well(found, "publishers", "none is blocked")


def consumers(facts: Facts) -> Iterable[Finding]:
    """Work is read by its service and by nobody else; what waits for a delay or a person is read by nobody."""
    if facts.broker is None:
        return []
    return or_well(_consumers(facts, facts.broker), "consumers", "only the services read their queues")


def _consumers(facts: Facts, broker: Broker) -> Iterator[Finding]:
    for service in saga.SERVICES:
        if broker.connections is not None and not of_service(broker.connections, service):
            # That it is away is told already, and so is that it reads nothing.
            continue
        for queue in queues_of_work(service, broker.lanes):
            readers = [consumer for consumer in broker.consumers if consumer.queue == queue]
            own = [reader for reader in readers if reader.connection == name_of(service, "consume")]
            others = [
                reader.connection or "a connection without a name" for reader in readers if reader not in own
            ]
            unknown = broker.connections is None
            if queue in broker.queues and not (own or (unknown and readers)):
                lane = queue not in queues_of_work(service)
                mend = "name its client in LANES of all services, and start them anew" if lane else mends.START
                yield wrong("consumers", f"nobody reads {queue}", mend)
            if others and not unknown:
                what = f"{some(others)} reads {queue}, which is {service}'s: it takes its messages away"
                yield wrong("consumers", what, _CLOSE)
            if any(not reader.answering for reader in own):
                what = f"a consumer of {queue} is on a node that does not answer"
                yield note("consumers", what, "look whether the nodes reach one another")
    for queue in _read_by_nobody(facts):
        if readers := [consumer for consumer in broker.consumers if consumer.queue == queue]:
            names = some(reader.connection or "a connection without a name" for reader in readers)
            yield wrong("consumers", f"{names} reads {queue}, which nobody should: messages vanish", _CLOSE)


def _read_by_nobody(facts: Facts) -> Iterator[str]:
    for service in saga.SERVICES:
        yield topology.parked_queue(service)
        for delay in facts.delays:
            yield topology.retry_queue(service, delay)


def queues_of_work(service: str, lanes: Iterable[str] = ()) -> tuple[str, ...]:
    """The queues that a service reads, those of clients' lanes with them."""
    named = (topology.commands_queue(service), *(topology.lane_queue(service, lane) for lane in lanes))
    commands = named if saga.command_keys(service) else ()
    return (topology.events_queue(service), *commands, topology.dead_queue(service))


def name_of(service: str, use: str) -> str:
    """The name that a service gives its connection; `common.bus` writes it."""
    return f"{service} {use}"


def of_service(connections: Iterable[Connection] | None, service: str) -> list[Connection]:
    """The connections of one service."""
    names = {name_of(service, "consume"), name_of(service, "publish")}
    return [connection for connection in connections or () if connection.name in names]
