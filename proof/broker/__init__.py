"""A RabbitMQ in one process, for simulations: it does what the real one does, and fails when it is told to.

`SimulatedBroker(version="4.0", faults=...)` is made in a running loop and uses only its clock; its `connect` takes
the place of `aio_pika.connect`. `kill`, `stop`, `start` break it from outside, a `Faults` breaks it at every
boundary. `core` shows what is where: `core.contents()`, `core.queues[name]`, `core.outstanding()`, `core.counts`.

Not simulated: classic queues, reading streams, several nodes, priorities, permissions, alarms, the consumer
time-out, `basic.get`, transactions, virtual hosts, bindings between exchanges. What cannot be ignored raises
NotImplementedError.
"""

from proof.broker.core import Broker
from proof.broker.dead_letters import SECONDS_TO_RETRY
from proof.broker.faults import Boundary, Delay, Fault, Faults, NoFaults
from proof.broker.simulated import SimulatedBroker

__all__ = [
    "SECONDS_TO_RETRY",
    "Boundary",
    "Broker",
    "Delay",
    "Fault",
    "Faults",
    "NoFaults",
    "SimulatedBroker",
]
