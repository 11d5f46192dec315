"""A system in which all is well, as the doctor's facts, and ways to break one thing of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from common import saga, topology
from common.settings import Delay
from common.topology import EVENTS, Binding
from ops.doctor.facts import (
    Broker,
    Connection,
    Consumer,
    Database,
    Exchange,
    Facts,
    Node,
    Permission,
    Queue,
    Told,
)

NOW = datetime(2026, 11, 22, 16, tzinfo=UTC)
DELAYS = tuple(map(Delay.parse, ("1s", "5m")))
TOPOLOGY = topology.derive(DELAYS)


def _healthy() -> Facts:
    """A system in which all is as it should be."""
    node = "rabbit@one"
    broker = Broker(
        address="http://broker:15672",
        vhost="/",
        version="3.10.8",
        nodes=(Node(name=node, plugins=("rabbitmq_management",), files_used=10, files_limit=1000),),
        feature_flags={"quorum_queue": True, "stream_queue": True},
        exchanges={name: Exchange() for name in TOPOLOGY.exchanges},
        queues={
            queue.name: Queue(
                arguments=dict(queue.arguments), leader=node, members=(node,), online=(node,), least=0, acks=0.0
            )
            for queue in TOPOLOGY.queues
        },
        bindings=frozenset(TOPOLOGY.bindings) | {Binding("", queue.name, queue.name) for queue in TOPOLOGY.queues},
        consumers=tuple(
            Consumer(queue.name, f"{service} consume", "saga")
            for service in saga.SERVICES
            for queue in TOPOLOGY.queues
            if queue.name in {f"{service}.events", f"{service}.commands", f"{service}.dead"}
        ),
        connections=tuple(
            Connection(f"{service} {use}", "saga", "10.0.0.1")
            for service in saga.SERVICES
            for use in ("consume", "publish")
        ),
        permissions={"saga": Permission(".*", ".*", ".*")},
        topic_permissions=(),
        ahead=timedelta(seconds=-1),
    )
    databases = {
        service: Database(
            place=f"postgres://{service}@database/{service}",
            wanted=("0001_first", "0002_more"),
            applied=("0001_first", "0002_more"),
            vendor="PostgreSQL",
            version="17.2 (Debian 17.2-1)",
            connections=20,
            connections_limit=200,
            ahead=timedelta(milliseconds=3),
        )
        for service in saga.SERVICES
    }
    done = (told("payment", 0, "payment.pay", "payment.paid"), told("reservation", 1, "payment.paid"))
    return Facts(looked_at=NOW, delays=DELAYS, broker=broker, databases=databases, told=done)


def told(service: str, second: float, type_: str, *said: str) -> Told:
    """What a service did a minute ago, and so many seconds later."""
    at = NOW + timedelta(seconds=second - 60)
    return Told(service, f"{service}-1", at, "p-1", type_, said)


HEALTHY = _healthy()
assert HEALTHY.broker
assert HEALTHY.databases
BROKER = HEALTHY.broker


def with_broker(**changes: Any) -> Facts:  # noqa: ANN401 - of many types
    """The system with something else about its broker."""
    return replace(HEALTHY, broker=replace(BROKER, **changes))


def with_node(**changes: Any) -> Facts:  # noqa: ANN401 - of many types
    """The system about the one node."""
    return with_broker(nodes=(replace(BROKER.nodes[0], **changes),))


def with_exchange(**changes: Any) -> Facts:  # noqa: ANN401 - of many types
    """The system about the exchange of the events."""
    return with_broker(exchanges={**BROKER.exchanges, EVENTS: Exchange(**changes)})


def with_queue(name: str, **changes: Any) -> Facts:  # noqa: ANN401 - of many types
    """The system about one queue."""
    return with_broker(queues={**BROKER.queues, name: replace(BROKER.queues[name], **changes)})


def without_queue(name: str) -> Facts:
    """The system but for one queue."""
    return with_broker(queues={other: queue for other, queue in BROKER.queues.items() if other != name})


def with_new_queue(name: str, **changes: Any) -> Facts:  # noqa: ANN401 - of many types
    """The system and a queue more."""
    return with_broker(queues={**BROKER.queues, name: Queue(arguments={}, **changes)})


def bound(*bindings: Binding) -> Facts:
    """The system with more bindings, and a queue of somebody else's."""
    return with_broker(
        bindings=BROKER.bindings | set(bindings), queues={**BROKER.queues, "mine": Queue(arguments={})}
    )


def unbound(exchange: str, key: str, queue: str) -> Facts:
    """The system but for one binding."""
    return with_broker(bindings=BROKER.bindings - {Binding(exchange, key, queue)})


def read_by(*consumers: Consumer) -> Facts:
    """The system with more consumers."""
    return with_broker(consumers=BROKER.consumers + consumers)


def point_logged_in_as(user: str, **changes: Any) -> Facts:  # noqa: ANN401 - of many types
    """The system with one service logged in as another user."""
    connections = tuple(replace(it, user=user) for it in BROKER.connections or () if it.name.startswith("point"))
    others = tuple(it for it in BROKER.connections or () if not it.name.startswith("point"))
    return with_broker(connections=connections + others, **changes)


def with_database(**changes: Any) -> Facts:  # noqa: ANN401 - of many types
    """The system with something else about point's database."""
    assert HEALTHY.databases
    return replace(
        HEALTHY, databases={**HEALTHY.databases, "point": replace(HEALTHY.databases["point"], **changes)}
    )


def with_levels(*names: str) -> Facts:
    """Queues of other retry levels than ours."""
    kept = {name: queue for name, queue in BROKER.queues.items() if ".retry." not in name}
    return with_broker(
        queues=kept
        | {f"{service}.retry.{name}": Queue(arguments={}) for service in saga.SERVICES for name in names}
    )
