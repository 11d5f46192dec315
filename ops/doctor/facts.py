"""What the doctor knows: one snapshot of broker, databases and clocks, on which every check is a pure function."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from common import topology
from common.settings import Delay
from common.topology import Binding


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One node of the broker's cluster."""

    name: str
    running: bool = True
    memory_alarm: bool = False
    disk_alarm: bool = False
    partitions: tuple[str, ...] = ()
    files_used: int = 0
    files_limit: int = 0
    plugins: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """An exchange as it is; `policy` is what policies add to it."""

    kind: str = "topic"
    durable: bool = True
    arguments: Mapping[str, Any] = field(default_factory=dict)
    policy: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """A queue as it is. `policy` is what policies add to its arguments.

    `least` is the least number of messages it held at any moment of the last minute, `acks` how many were
    acknowledged in a second, on average of that minute; None where the broker keeps no such figures.
    `stranded` are messages that wait to be dead-lettered.
    """

    arguments: Mapping[str, Any]
    durable: bool = True
    state: str = "running"
    leader: str | None = None
    members: tuple[str, ...] = ()
    online: tuple[str, ...] = ()
    policy: Mapping[str, Any] = field(default_factory=dict)
    policy_name: str = ""
    messages: int = 0
    bytes_ready: int = 0
    stranded: int = 0
    least: int | None = None
    acks: float | None = None


@dataclass(frozen=True, slots=True)
class Consumer:
    """Somebody who reads a queue; `connection` is the name that they gave their connection."""

    queue: str
    connection: str
    user: str
    answering: bool = True


@dataclass(frozen=True, slots=True)
class Connection:
    """A connection by the name that its owner gave it."""

    name: str
    user: str
    peer: str
    state: str = "running"


@dataclass(frozen=True, slots=True)
class Permission:
    """What a user may do in the virtual host: three patterns over the names of objects."""

    configure: str
    write: str
    read: str


@dataclass(frozen=True, slots=True)
class TopicPermission:
    """Which routing keys a user may write to, and read from, a topic exchange."""

    user: str
    exchange: str
    write: str
    read: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """The broker, as its management API tells it. `elsewhere` are bindings whose destination is an exchange.

    `permissions` and `topic_permissions` are None where the login may not see them; `connections` likewise.
    """

    address: str
    vhost: str
    version: str
    product: str = "RabbitMQ"
    nodes: tuple[Node, ...] = ()
    feature_flags: Mapping[str, bool] = field(default_factory=dict)
    exchanges: Mapping[str, Exchange] = field(default_factory=dict)
    queues: Mapping[str, Queue] = field(default_factory=dict)
    bindings: frozenset[Binding] = frozenset()
    elsewhere: frozenset[Binding] = frozenset()
    consumers: tuple[Consumer, ...] = ()
    connections: tuple[Connection, ...] | None = ()
    permissions: Mapping[str, Permission] | None = None
    topic_permissions: tuple[TopicPermission, ...] | None = None
    ahead: timedelta | None = None

    @property
    def lanes(self) -> tuple[str, ...]:
        """The clients that have a lane here, by their exchanges."""
        start = topology.lane_exchange("")
        return tuple(sorted(name.removeprefix(start) for name in self.exchanges if name.startswith(start)))

    @property
    def release(self) -> tuple[int, int]:
        """Major and minor version; (0, 0) where it cannot be read."""
        parts = self.version.split(".")
        try:
            return int(parts[0]), int(parts[1])
        except (ValueError, IndexError):
            return 0, 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """One service's database. `refusal` says why it could not be read; then there is nothing else.

    `wanted` are the migrations that this checkout knows, `applied` those of the database. `ahead` is how far its
    clock is ahead of ours; None for a file, which has none.
    """

    place: str
    refusal: str = ""
    wanted: tuple[str, ...] = ()
    applied: tuple[str, ...] = ()
    vendor: str = ""
    version: str = ""
    read_only: bool = False
    connections: int = 0
    connections_limit: int = 0
    unpublished: int = 0
    oldest: datetime | None = None
    ahead: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """A service's word in the history: when it did its part of a saga, by its own clock, and what it said.

    Only the first time counts: what is repeated may be said long after it was heard.
    """

    service: str
    replica: str
    at: datetime
    saga: str
    type: str
    said: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything the doctor looked at, at one moment.

    `broker_refusal` says why the broker let nobody in, `management_refusal` why its management API could not be
    asked; `broker` is None then. None for `databases` and `asked_broker` False: nobody wanted to know.
    """

    looked_at: datetime
    delays: tuple[Delay, ...]
    asked_broker: bool = True
    broker_refusal: str = ""
    management_refusal: str = ""
    broker: Broker | None = None
    databases: Mapping[str, Database] | None = None
    told: tuple[Told, ...] = ()
    clock_limit: timedelta = timedelta(seconds=5)
