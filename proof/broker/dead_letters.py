"""Dead-lettering: what a queue has given up goes to its dead-letter exchange.

At least once: it leaves its queue only when every queue it was routed to has taken it. Where there is no target,
or one refuses, it is kept and sent again after a while; only so many are under way at once, and those that cannot
leave hold up the ones behind them. At most once: it is sent, and forgotten whatever becomes of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proof.broker.faults import Boundary, Fault
from proof.broker.message import Leaving, Message, Reason, dead, goes_in_circles
from proof.broker.queues import Queue

if TYPE_CHECKING:
    from proof.broker.core import Broker

#: How long RabbitMQ waits for a dead letter to be taken before it sends it again.
SECONDS_TO_RETRY = 180.0
#: How many dead letters of one queue are under way at once.
UNDER_WAY = 32


class DeadLetters:
    """The dead letters of a whole broker."""

    def __init__(self, broker: Broker, seconds_to_retry: float) -> None:
        self._broker = broker
        self._seconds_to_retry = seconds_to_retry

    def give_up(self, queue: Queue, leaving: Leaving) -> None:
        """A queue has given a message up."""
        counts = self._broker.counts
        counts[leaving.reason] += 1
        if queue.dead_letter_exchange is None:
            return
        if not queue.at_least_once:
            self._broker.clock.call_soon(self._send, queue, leaving)
        elif not queue.is_sending:
            queue.is_sending = True
            self._broker.clock.call_soon(self._work, queue)

    def _work(self, queue: Queue) -> None:
        queue.is_sending = False
        while len(queue.leaving) > queue.stuck and queue.stuck < UNDER_WAY:
            leaving = queue.leaving[queue.stuck]
            if self._leaves(queue, leaving):
                del queue.leaving[queue.stuck]
                queue.left(leaving.held)
                continue
            queue.stuck += 1
            if queue.stuck == 1:
                clock = self._broker.clock
                clock.call_at(clock.time() + self._seconds_to_retry, self._again, queue)

    def _again(self, queue: Queue) -> None:
        queue.stuck = 0
        self._work(queue)

    def _leaves(self, queue: Queue, leaving: Leaving) -> bool:
        key = leaving.held.message.keys[0]
        fault = self._broker.faults.at(Boundary.DEAD_LETTER_SENT, queue.name, key)
        if fault is Fault.LOSE:
            return False
        arrived = self._send(queue, leaving)
        if fault is Fault.REPEAT:
            # Nobody has heard that it arrived anywhere.
            leaving.reached.clear()
            return False
        return arrived

    def _send(self, queue: Queue, leaving: Leaving) -> bool:
        """Send it to all targets that it has not reached; whether it has now reached them all."""
        exchange, key = queue.dead_letter_exchange, queue.dead_letter_key
        assert exchange is not None
        letter = dead(leaving.held, leaving.reason, queue.name, exchange, key, old=self._broker.old)
        targets = self._targets(letter, leaving.reason)
        missing = tuple(name for name in targets if name not in leaving.reached)
        refused = self._broker.store(letter, missing)
        leaving.reached.update(name for name in missing if name not in refused)
        if not targets or refused:
            return False
        self._broker.counts["dead-lettered"] += 1
        return True

    def _targets(self, letter: Message, reason: Reason) -> tuple[str, ...]:
        found = self._broker.route(letter.exchange, letter.keys)
        if reason is Reason.REJECTED:
            return found
        return tuple(name for name in found if not goes_in_circles(letter, name))
