"""What may go wrong, and where: the simulated broker asks at every boundary, whoever drives it answers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol


class Boundary(Enum):
    """A moment at which something can strike."""

    #: A publish is about to reach the broker. LOSE, REFUSE, Delay.
    PUBLISH_SENT = auto()
    #: A publish is in its queues, and its confirm is not yet on the way. LOSE.
    PUBLISH_STORED = auto()
    #: A confirm, a return or a refusal is about to reach the publisher. LOSE, Delay.
    CONFIRM_SENT = auto()
    #: A delivery is about to reach its consumer. LOSE, REPEAT, Delay.
    DELIVERY_SENT = auto()
    #: An ack, or a nack, is about to reach the broker. LOSE, Delay.
    ACK_SENT = auto()
    #: The broker has forgotten what was acked. LOSE.
    ACK_DONE = auto()
    #: A dead letter is about to leave its queue. LOSE (it is sent at the next attempt), REPEAT.
    DEAD_LETTER_SENT = auto()


class Fault(Enum):
    """What strikes."""

    #: The connection is lost, with all that is under way on it; of a dead letter, only this attempt.
    LOSE = auto()
    #: The broker does not take the message, and says so.
    REFUSE = auto()
    #: It is there once more, as if whoever sent it had not heard that it arrived: a dead letter at its next
    #: attempt, a delivery as another message in the queue.
    REPEAT = auto()


@dataclass(frozen=True, slots=True)
class Delay:
    """It takes so many seconds, and all that comes after it on the same connection has to wait."""

    seconds: float


class Faults(Protocol):
    """Whoever drives the broker."""

    def at(self, boundary: Boundary, where: str, what: str) -> Fault | Delay | None:
        """What happens at a boundary; None: nothing.

        `where` is the name of the connection, or the queue that a dead letter leaves; `what` the routing key of
        a message, or the queue of an ack.
        """
        ...


class NoFaults:
    """A broker in which all goes well."""

    def at(self, boundary: Boundary, where: str, what: str) -> None:
        """Nothing happens."""
