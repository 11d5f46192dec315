"""The table of faults: how each is made and lifted, what it must not cost, and how soon all must be as before."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from chaos.hands import broker, cluster, database, network, services
from chaos.stage import Stage

#: Makes a fault, holds it for so many seconds, lifts it, and says what it chose.
Hand = Callable[[Stage, float], Awaitable[str]]


class Ground(StrEnum):
    """The system that a fault is made on."""

    PLAIN = "plain"
    """One broker, one PostgreSQL, a replica of each service."""
    CLUSTER = "cluster"
    """Three brokers, quorum queues of three members, services that know all three addresses."""
    SMALL_DISK = "small-disk"
    """Like the plain one, with a database whose disk can be filled."""


class Cost(StrEnum):
    """What a fault may cost; never a torn saga, and never a command that is neither done nor undone."""

    TIME = "time only"
    REPEAT = "time; commands that nobody had read are lost, and asked again by their clients"
    REFUSALS = "time; a payment may be refused and undone as a whole"


class Need(StrEnum):
    """What not every machine or version has."""

    PACKETS = "root, nsenter and iptables"
    PREVIOUS = "an image of an older version"
    SKEW = "an image with libfaketime"


@dataclass(frozen=True, slots=True)
class Fault:
    """One line of the table. `holds` and `bound` are seconds; `bound` counts from the moment it was lifted."""

    name: str
    hand: Hand
    holds: float
    bound: float
    cost: Cost = Cost.TIME
    ground: Ground = Ground.PLAIN
    needs: tuple[Need, ...] = ()

    @property
    def suits_a_soak(self) -> bool:
        """Whether it may be made again and again: it costs only time, and not much of it."""
        return self.cost is Cost.TIME and self.ground is Ground.PLAIN and self.bound <= 60 and not self.needs

    @property
    def told(self) -> str:
        """What is done, in a sentence."""
        return (self.hand.__doc__ or "").strip().splitlines()[0]


_ALL = (
    Fault("service-killed", services.killed, 10, 60),
    Fault("service-terminated", services.terminated, 10, 60),
    Fault("services-all-killed", services.all_killed, 0, 60),
    Fault("service-frozen", services.frozen, 25, 60),
    Fault("service-crash-loop", services.crash_loop, 60, 90, Cost.REFUSALS),
    Fault("service-clock-skew", services.clock_skew, 15, 60, needs=(Need.SKEW,)),
    Fault("rolling-restart", services.rolling_restart, 5, 60),
    Fault("rolling-upgrade", services.rolling_upgrade, 5, 60, needs=(Need.PREVIOUS,)),
    Fault("two-versions", services.two_versions, 15, 60, needs=(Need.PREVIOUS,)),
    Fault("scaled-out", services.scaled_out, 15, 60),
    Fault("broker-killed", broker.killed, 0, 60),
    Fault("broker-restarted", broker.restarted, 0, 60),
    Fault("broker-frozen", broker.frozen, 25, 60),
    Fault("broker-memory-alarm", broker.memory_alarm, 15, 60),
    Fault("broker-disk-alarm", broker.disk_alarm, 15, 60),
    Fault("connections-closed", broker.connections_closed, 5, 60),
    Fault("consumer-cancelled", broker.consumer_cancelled, 2, 60),
    Fault("queue-deleted", broker.queue_deleted, 2, 120, Cost.REPEAT),
    Fault("queue-purged", broker.queue_purged, 3, 120, Cost.REPEAT),
    Fault("broker-disk-lost", broker.disk_lost, 0, 180, Cost.REPEAT),
    Fault("database-killed", database.killed, 0, 60),
    Fault("database-restarted", database.restarted, 10, 60),
    Fault("database-frozen", database.frozen, 20, 90),
    Fault("database-connections-terminated", database.connections_terminated, 10, 60),
    Fault("database-locks-held", database.locks_held, 20, 90),
    Fault("database-read-only", database.read_only, 15, 60),
    Fault("database-slow", database.slow, 20, 90),
    Fault("database-disk-full", database.disk_full, 20, 120, ground=Ground.SMALL_DISK),
    Fault("network-cut", network.cut, 25, 90, needs=(Need.PACKETS,)),
    Fault("network-one-way-cut", network.one_way_cut, 25, 90, needs=(Need.PACKETS,)),
    Fault("network-loss", network.loss, 20, 60, needs=(Need.PACKETS,)),
    Fault("network-delay", network.delay, 20, 60, needs=(Need.PACKETS,)),
    Fault("confirms-lost", network.confirms_lost, 5, 60, needs=(Need.PACKETS,)),
    Fault("names-gone", network.no_names, 15, 60, needs=(Need.PACKETS,)),
    Fault("cluster-node-lost", cluster.node_lost, 15, 90, ground=Ground.CLUSTER),
    Fault("cluster-leaders-lost", cluster.leaders_lost, 3, 90, ground=Ground.CLUSTER),
    Fault("cluster-leaders-moved", cluster.leaders_moved, 2, 60, ground=Ground.CLUSTER),
    Fault("cluster-partition", cluster.partition, 90, 120, ground=Ground.CLUSTER, needs=(Need.PACKETS,)),
    Fault("cluster-all-killed", cluster.all_killed, 0, 180, ground=Ground.CLUSTER),
    Fault("cluster-rolling-restart", cluster.rolling_restart, 1, 90, ground=Ground.CLUSTER),
)
FAULTS: Mapping[str, Fault] = {fault.name: fault for fault in _ALL}

#: Faults that this room does not make, and why: they are told in the report.
LEFT_OUT: Mapping[str, str] = {
    "delay and loss in the kernel (`tc netem`)": "few small kernels have it; loss is made by the packet filter, "
    "delay by a proxy between services and broker or database",
}
