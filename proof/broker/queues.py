"""A quorum queue: what waits, what is out with consumers, what comes back, expires and is given up.

As in RabbitMQ, what comes back is delivered before what waits, in the order in which it came back; only the head
of the queue can expire; and what a consumer holds neither expires nor counts as ready.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

from proof.broker.message import Held, Leaving, Message, Reason

#: RabbitMQ 4 gives up after so many returns where an argument says nothing; 3 never does.
DEFAULT_DELIVERY_LIMIT = 20
#: A queue that refused because it was full takes messages again below this share of its limit.
_LOW_WATER = 0.8


class Clock(Protocol):
    """What the broker needs of a running event loop."""

    def time(self) -> float:
        """Seconds, never going back."""
        ...

    def call_soon(self, callback: Callable[..., object], *args: Any) -> object:  # noqa: ANN401 - as asyncio has it
        """Call in a later turn."""
        ...

    def call_at(self, when: float, callback: Callable[..., object], *args: Any) -> asyncio.TimerHandle:  # noqa: ANN401
        """Call at this time."""
        ...


class Taker(Protocol):
    """Whoever consumes a queue."""

    room: int

    def take(self, held: Held) -> None:
        """Take a delivery; there was room for it."""
        ...

    def cancelled(self) -> None:
        """The queue is gone."""
        ...


class Queue:
    """One queue."""

    def __init__(
        self,
        name: str,
        arguments: Mapping[str, Any],
        clock: Clock,
        give_up: Callable[[Queue, Leaving], None],
        *,
        old: bool,
    ) -> None:
        self.name = name
        self.arguments = dict(arguments)
        limit = arguments.get("x-delivery-limit", None if old else DEFAULT_DELIVERY_LIMIT)
        # The older versions know no way to say "no limit": -1 is less than any count.
        self.delivery_limit: int | None = limit if old or limit is None or limit >= 0 else None
        self.ttl: int | None = arguments.get("x-message-ttl")
        self.max_length: int | None = arguments.get("x-max-length")
        self.max_bytes: int | None = arguments.get("x-max-length-bytes")
        self.refuses_when_full = arguments.get("x-overflow") == "reject-publish"
        self.dead_letter_exchange: str | None = arguments.get("x-dead-letter-exchange")
        self.dead_letter_key: str | None = arguments.get("x-dead-letter-routing-key")
        self.at_least_once = (
            arguments.get("x-dead-letter-strategy") == "at-least-once" and self.refuses_when_full
        ) and self.dead_letter_exchange is not None
        #: Given up and not yet taken by the dead-letter exchange, oldest first.
        self.leaving: deque[Leaving] = deque()
        #: The first so many of them have been sent in vain; and whether somebody is at it.
        self.stuck = 0
        self.is_sending = False
        self.out = 0
        self._clock = clock
        self._give_up = give_up
        self._returned: deque[Held] = deque()
        self._waiting: deque[Held] = deque()
        self._bytes = 0
        self._takers: list[Taker] = []
        self._ready: deque[Taker] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._full = False
        self._is_deleted = False

    def __len__(self) -> int:
        return len(self._returned) + len(self._waiting)

    def __iter__(self) -> Iterator[Held]:
        yield from self._returned
        yield from self._waiting

    @property
    def consumers(self) -> int:
        """How many consumers it has."""
        return len(self._takers)

    def put(self, message: Message) -> bool:
        """Take a message, or say that the queue is full."""
        if self._full and self.refuses_when_full:
            return False
        ttl = self.ttl
        if message.expiration is not None and (ttl is None or message.expiration < ttl):
            ttl = message.expiration
        self._waiting.append(Held(message, None if ttl is None else self._clock.time() + ttl / 1000))
        self._bytes += len(message.body)
        self.pump()
        return True

    def listen(self, taker: Taker) -> None:
        """Deliver to this consumer from now on, in turn with the others."""
        self._takers.append(taker)
        if taker.room > 0:
            self._ready.append(taker)
        self.pump()

    def unlisten(self, taker: Taker) -> None:
        """Deliver to this consumer no more; what it has, it keeps."""
        if taker in self._takers:
            self._takers.remove(taker)
        if taker in self._ready:
            self._ready.remove(taker)

    def settle(self, helds: Iterable[Held]) -> None:
        """Forget what was acked."""
        for _ in helds:
            self.out -= 1

    def reject(self, helds: Iterable[Held]) -> None:
        """Give up what a consumer does not want."""
        for held in helds if not self._is_deleted else ():
            self.out -= 1
            held.failures += 1
            self._drop(held, Reason.REJECTED)

    def put_back(self, helds: Iterable[Held], *, nacked: bool) -> None:
        """Take back what was delivered and not acked: it goes first, unless it came back too often.

        What is nacked goes last in a queue without a delivery limit, so that RabbitMQ's log does not grow.
        """
        back = self._waiting if nacked and self.delivery_limit is None else self._returned
        for held in helds if not self._is_deleted else ():
            self.out -= 1
            held.returned += 1
            held.failures += not nacked
            if self.delivery_limit is not None and held.returned > self.delivery_limit:
                self._drop(held, Reason.DELIVERY_LIMIT)
            else:
                back.append(held)
                self._bytes += len(held.message.body)

    def has_room(self, taker: Taker) -> None:
        """A consumer can take more than before."""
        if taker not in self._ready and taker in self._takers and taker.room > 0:
            self._ready.append(taker)

    def pump(self) -> None:
        """Deliver what can be delivered, and give up what has expired."""
        if self._is_deleted:
            return
        self._expire()
        ready = self._ready
        while ready and (self._returned or self._waiting):
            taker = ready.popleft()
            held = self._next()
            self.out += 1
            taker.take(held)
            if taker.room > 0:
                ready.append(taker)
            self._expire()
        self._limit()

    def purge(self, only: Callable[[Message], bool] = lambda _: True) -> int:
        """Forget all that waits, or `only` some of it; how many."""
        gone = [held for held in self if only(held.message)]
        for held in gone:
            self._bytes -= len(held.message.body)
        self._returned = deque(held for held in self._returned if not only(held.message))
        self._waiting = deque(held for held in self._waiting if not only(held.message))
        self._limit()
        return len(gone)

    def close(self) -> None:
        """The queue is deleted: it takes nothing any more, and nothing dies in it."""
        self._is_deleted = True
        self.leaving.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        takers, self._takers = self._takers, []
        self._ready.clear()
        for taker in takers:
            taker.cancelled()

    def left(self, held: Held) -> None:
        """A dead letter has reached its target."""
        self._bytes -= len(held.message.body)
        self._limit()

    def _next(self) -> Held:
        held = (self._returned or self._waiting).popleft()
        self._bytes -= len(held.message.body)
        return held

    def _drop(self, held: Held, reason: Reason) -> None:
        leaving = Leaving(held, reason)
        if self.at_least_once:
            self.leaving.append(leaving)
            self._bytes += len(held.message.body)
        self._give_up(self, leaving)

    def _expire(self) -> None:
        now = self._clock.time()
        while self._returned or self._waiting:
            head = self._returned or self._waiting
            expires_at = head[0].expires_at
            if expires_at is None:
                return
            if expires_at > now:
                if self._timer is None:
                    self._timer = self._clock.call_at(expires_at, self._timed)
                elif self._timer.when() > expires_at:
                    self._timer.cancel()
                    self._timer = self._clock.call_at(expires_at, self._timed)
                return
            self._drop(self._next(), Reason.EXPIRED)

    def _timed(self) -> None:
        self._timer = None
        self.pump()

    def _limit(self) -> None:
        if self.max_length is None and self.max_bytes is None:
            return
        count = len(self) + len(self.leaving)
        if self.refuses_when_full:
            if self._is_over(count, 1.0):
                self._full = True
            elif not self._is_over(count, _LOW_WATER):
                self._full = False
            return
        while len(self) and self._is_over(len(self), 1.0):
            self._drop(self._next(), Reason.MAX_LENGTH)

    def _is_over(self, count: int, share: float) -> bool:
        if self.max_length is not None and count > self.max_length * share:
            return True
        return self.max_bytes is not None and self._bytes > self.max_bytes * share
