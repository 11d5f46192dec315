"""The broker's objects, derived from the saga table: pure data, declared by `common.bus`.

Two exchanges. `saga.events` carries commands and events. `saga.recovery` carries the services' own recovery
and has exactly one binding per key, so that publishing `mandatory` to it means something.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from common import saga
from common.history import OPERATOR
from common.settings import Delay

EVENTS = "saga.events"
RECOVERY = "saga.recovery"
#: The stream that tells what the services did. No saga depends on it.
HISTORY = "saga.history"
#: What it forgets first: what is older, or what does not fit. Whole segments are forgotten, so they are small.
HISTORY_AGE = "7D"
HISTORY_BYTES = 2 * 1024 * 1024 * 1024
_HISTORY_SEGMENT = 50 * 1024 * 1024

#: Deliveries without an answer before the broker declares a message deadly. A crash guard only: up to
#: RabbitMQ 4.2 every lost connection counts, also for the innocent neighbours that were prefetched.
DELIVERY_LIMIT = 50
#: For queues that people peek into: each peek counts as a delivery.
UNLIMITED = 1_000_000_000
#: Commands waiting before a queue of commands refuses more, which their publisher sees: a few minutes of work.
MAX_COMMANDS = 100_000
#: And in bytes, so that a hundred thousand of the largest do not fill the broker's disk.
MAX_COMMAND_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Queue:
    """A durable quorum queue, or the stream of the history, and its arguments."""

    name: str
    arguments: Mapping[str, str | int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Binding:
    """A queue's interest in one routing key of an exchange."""

    exchange: str
    key: str
    queue: str


@dataclass(frozen=True, slots=True)
class Topology:
    """Everything to declare, in this order; `stale` bindings are removed."""

    exchanges: tuple[str, ...]
    queues: tuple[Queue, ...]
    bindings: tuple[Binding, ...]
    stale: tuple[Binding, ...]


def commands_queue(service: str) -> str:
    """Where a service's commands wait."""
    return f"{service}.commands"


def lane_exchange(lane: str) -> str:
    """Where a client that has a lane publishes its commands."""
    return f"saga.lane.{lane}"


def lane_queue(service: str, lane: str) -> str:
    """Where the commands of one client wait for a service, behind nobody else's."""
    return f"{commands_queue(service)}.{lane}"


def holds_commands(queue: str, service: str) -> bool:
    """Whether a queue holds a service's commands, a lane or not."""
    return queue == commands_queue(service) or queue.startswith(f"{commands_queue(service)}.")


def events_queue(service: str) -> str:
    """Where the saga's events wait for a service, and its own retries return to."""
    return f"{service}.events"


def dead_queue(service: str) -> str:
    """Where a service's dead-letter handler reads. Also the routing key that leads there."""
    return f"{service}.dead"


def parked_queue(service: str) -> str:
    """What only a person can decide. Also the routing key that leads there."""
    return f"{service}.parked"


def retry_queue(service: str, delay: Delay) -> str:
    """Where a message waits for its next attempt. Also the routing key that leads there."""
    return f"{service}.retry.{delay}"


def return_key(service: str) -> str:
    """The routing key under which a retried message comes back to its service."""
    return f"{service}.return"


def replay_key(service: str) -> str:
    """The routing key under which the broker gives a letter back to its service, as an operator told it to."""
    return f"{service}.replay"


def abort_key(service: str) -> str:
    """The routing key under which an operator gives a service a dead letter, to end the saga that it holds."""
    return f"{service}.abort"


def history_key(teller: str) -> str:
    """The routing key under which a service, or an operator, tells the history what it did."""
    return f"{teller}.history"


def derive(delays: Sequence[Delay], lanes: Sequence[str] = ()) -> Topology:
    """The whole topology for these levels and lanes. Every service declares all of it, so start order is free.

    A lane is a way in for one client: an exchange where nobody else may publish, and a queue of commands for each
    service, so that whoever floods the others' queue is not in its way.
    """
    queues: list[Queue] = []
    bindings: list[Binding] = []
    stale: list[Binding] = []
    for service in saga.SERVICES:
        # Targets of dead-lettering come first: at-least-once keeps what has nowhere to go.
        queues += [_kept(service, name(service)) for name in (dead_queue, parked_queue)]
        queues.append(_events(service))
        queues += [_retry(service, delay) for delay in delays]
        recovery = (dead_queue(service), parked_queue(service), *(retry_queue(service, d) for d in delays))
        bindings += [Binding(RECOVERY, key, key) for key in recovery]
        bindings += [Binding(RECOVERY, key(service), events_queue(service)) for key in (return_key, replay_key)]
        if saga.step_of(service).refusals:
            bindings.append(Binding(RECOVERY, abort_key(service), dead_queue(service)))
        listened = {events_queue(service): saga.event_keys(service)}
        if saga.command_keys(service):
            queues += [_commands(service, name) for name in (commands_queue(service), *_lanes(service, lanes))]
            listened[commands_queue(service)] = saga.command_keys(service)
            bindings += [
                Binding(lane_exchange(lane), key, lane_queue(service, lane))
                for lane in lanes
                for key in saga.command_keys(service)
            ]
        for queue, keys in listened.items():
            bindings += [Binding(EVENTS, key, queue) for key in keys]
            stale += [Binding(EVENTS, key, queue) for key in saga.vocabulary() if key not in keys]
    queues.append(_history())
    bindings += [Binding(RECOVERY, history_key(teller), HISTORY) for teller in (*saga.SERVICES, OPERATOR)]
    exchanges = (EVENTS, RECOVERY, *map(lane_exchange, lanes))
    return Topology(exchanges, tuple(queues), tuple(bindings), tuple(stale))


def parts(delays: Sequence[Delay], lanes: Sequence[str] = ()) -> tuple[Topology, Topology]:
    """What the sagas need, and the history, without which they go on."""
    whole = derive(delays, lanes)
    needed = Topology(
        whole.exchanges,
        tuple(queue for queue in whole.queues if queue.name != HISTORY),
        tuple(binding for binding in whole.bindings if binding.queue != HISTORY),
        whole.stale,
    )
    told = Topology(
        (),
        tuple(queue for queue in whole.queues if queue.name == HISTORY),
        tuple(binding for binding in whole.bindings if binding.queue == HISTORY),
        (),
    )
    return needed, told


def _quorum(**arguments: str | int) -> dict[str, str | int]:
    return {"x-queue-type": "quorum"} | {name.replace("_", "-"): value for name, value in arguments.items()}


def _leading_to(key: str) -> dict[str, str | int]:
    # At-least-once dead-lettering needs reject-publish on overflow, else it is silently at-most-once.
    return {
        "x-dead-letter-exchange": RECOVERY,
        "x-dead-letter-routing-key": key,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }


def _kept(service: str, name: str) -> Queue:
    # A letter that an operator rejects is given back by the broker, unchanged: nobody has to write another one.
    return Queue(name, _quorum(x_delivery_limit=UNLIMITED) | _leading_to(replay_key(service)))


def _work(service: str) -> dict[str, str | int]:
    return _quorum(x_delivery_limit=DELIVERY_LIMIT) | _leading_to(dead_queue(service))


def _events(service: str) -> Queue:
    # Never bounded: a full queue of events would block the services in a ring.
    return Queue(events_queue(service), _work(service))


def _lanes(service: str, lanes: Sequence[str]) -> list[str]:
    return [lane_queue(service, lane) for lane in lanes]


def _commands(service: str, name: str) -> Queue:
    bounds = {"x-max-length": MAX_COMMANDS, "x-max-length-bytes": MAX_COMMAND_BYTES}
    return Queue(name, _work(service) | bounds)


def _history() -> Queue:
    arguments: dict[str, str | int] = {
        "x-queue-type": "stream",
        "x-max-age": HISTORY_AGE,
        "x-max-length-bytes": HISTORY_BYTES,
        "x-stream-max-segment-size-bytes": _HISTORY_SEGMENT,
    }
    return Queue(HISTORY, arguments)


def _retry(service: str, delay: Delay) -> Queue:
    arguments = _quorum(x_message_ttl=delay.milliseconds, x_delivery_limit=UNLIMITED)
    return Queue(retry_queue(service, delay), arguments | _leading_to(return_key(service)))
