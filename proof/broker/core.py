"""What a RabbitMQ broker does, as plain synchronous code: exchanges, queues, channels, dead letters.

It knows nothing of connections and frames: whoever speaks to it hands in calls and is told what happened through
`Peer`. Nothing here calls a peer back into the broker, so every call is one indivisible step.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Protocol

from proof.broker import dead_letters
from proof.broker.faults import Faults, NoFaults
from proof.broker.message import Held, Message, Reason
from proof.broker.queues import Clock, Queue
from proof.broker.routing import Exchange

_STREAM = "stream"


class Refused(Exception):  # noqa: N818 - it is what the broker did
    """The broker closes the channel over what was asked of it: a code and a text of AMQP."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(code, text)
        self.code = code
        self.text = text


class Peer(Protocol):
    """Whoever is at the other end of a channel; is only told, and must not call back."""

    def delivered(self, consumer: str, tag: int, queue: str, held: Held) -> None:
        """A message for a consumer."""
        ...

    def cancelled(self, consumer: str) -> None:
        """A consumer's queue is gone."""
        ...


class Consumer:
    """One subscription of a channel to a queue."""

    def __init__(self, channel: Channel, name: str, queue: Queue, room: int) -> None:
        self.channel = channel
        self.name = name
        self.queue = queue
        self.room = room

    def take(self, held: Held) -> None:
        """Take a delivery from the queue."""
        self.room -= 1
        self.channel.deliver(self, held)

    def cancelled(self) -> None:
        """The queue is gone."""
        self.channel.consumers.pop(self.name, None)
        self.channel.peer.cancelled(self.name)


class Channel:
    """One channel of a connection: its consumers, its prefetch and what it was given and has not answered for."""

    def __init__(self, broker: Broker, user: str, peer: Peer) -> None:
        self.broker = broker
        self.user = user
        self.peer = peer
        self.prefetch = 0
        self.consumers: dict[str, Consumer] = {}
        self.unacked: dict[int, tuple[Consumer, Held]] = {}
        self._tag = 0

    def deliver(self, consumer: Consumer, held: Held) -> None:
        """Hand a message of a queue to the peer."""
        self._tag += 1
        self.unacked[self._tag] = (consumer, held)
        counts = self.broker.counts
        counts["delivered"] += 1
        if held.returned:
            counts["redelivered"] += 1
        self.peer.delivered(consumer.name, self._tag, consumer.queue.name, held)

    def consume(self, queue: str, name: str) -> None:
        """Begin to consume."""
        found = self.broker.queue(queue)
        consumer = Consumer(self, name, found, self.prefetch or 65535)
        self.consumers[name] = consumer
        found.listen(consumer)

    def cancel(self, name: str) -> None:
        """Consume no more; what was delivered can still be answered for."""
        consumer = self.consumers.pop(name, None)
        if consumer is not None:
            consumer.queue.unlisten(consumer)

    def ack(self, tag: int, *, multiple: bool) -> None:
        """The peer has done with these."""
        for consumer, helds in self._answered(tag, multiple=multiple).items():
            self.broker.counts["acked"] += len(helds)
            consumer.queue.settle(helds)
            self._made_room(consumer, len(helds))

    def nack(self, tag: int, *, multiple: bool, requeue: bool) -> None:
        """The peer does not take these."""
        for consumer, helds in self._answered(tag, multiple=multiple).items():
            self.broker.counts["requeued" if requeue else "rejected"] += len(helds)
            if requeue:
                consumer.queue.put_back(helds, nacked=True)
            else:
                consumer.queue.reject(helds)
            self._made_room(consumer, len(helds))

    def deafen(self) -> None:
        """End all consumers."""
        for name in list(self.consumers):
            self.cancel(name)

    def close(self) -> None:
        """The channel is gone: what it has not answered for goes back, and counts as delivered once more."""
        self.deafen()
        unacked, self.unacked = self.unacked, {}
        back: dict[Queue, list[Held]] = {}
        for consumer, held in unacked.values():
            back.setdefault(consumer.queue, []).append(held)
        for queue, helds in back.items():
            self.broker.counts["requeued"] += len(helds)
            queue.put_back(helds, nacked=False)
            queue.pump()

    def _answered(self, tag: int, *, multiple: bool) -> dict[Consumer, list[Held]]:
        tags = [tag] if not multiple else list(self.unacked) if tag == 0 else []
        if multiple and tag:
            for known in self.unacked:  # in ascending order
                if known > tag:
                    break
                tags.append(known)
        if tag not in self.unacked if not multiple else tag and not tags:
            raise Refused(406, f"PRECONDITION_FAILED - unknown delivery tag {tag}")
        answered: dict[Consumer, list[Held]] = {}
        for known in tags:
            consumer, held = self.unacked.pop(known)
            answered.setdefault(consumer, []).append(held)
        return answered

    def _made_room(self, consumer: Consumer, count: int) -> None:
        consumer.room += count
        consumer.queue.has_room(consumer)
        consumer.queue.pump()


class Broker:
    """The durable things of a broker, and the channels that are open."""

    def __init__(
        self,
        clock: Clock,
        *,
        version: str = "4.0",
        faults: Faults | None = None,
        dead_letter_retry: float = dead_letters.SECONDS_TO_RETRY,
    ) -> None:
        self.old = int(version.split(".", maxsplit=1)[0]) < 4
        self.clock = clock
        self.faults = faults or NoFaults()
        self.counts: Counter[str] = Counter()
        self.exchanges: dict[str, Exchange] = {}
        self.queues: dict[str, Queue] = {}
        #: How many messages each stream has taken.
        self.streams: Counter[str] = Counter()
        self._stream_arguments: dict[str, dict[str, Any]] = {}
        self.dead_letters = dead_letters.DeadLetters(self, dead_letter_retry)

    def queue(self, name: str) -> Queue:
        """A queue by its name; Refused with 404."""
        if name not in self.queues:
            raise Refused(404, f"NOT_FOUND - no queue '{name}' in vhost '/'")
        return self.queues[name]

    def exchange(self, name: str) -> Exchange:
        """An exchange by its name; Refused with 404."""
        if name not in self.exchanges:
            raise Refused(404, f"NOT_FOUND - no exchange '{name}' in vhost '/'")
        return self.exchanges[name]

    def declare_exchange(self, name: str, kind: str, *, durable: bool, arguments: Mapping[str, Any]) -> None:
        """Make an exchange, unless it is there; Refused with 406 if it is another."""
        alternate = arguments.get("alternate-exchange")
        fresh = Exchange(name, kind, durable=durable, alternate=alternate)
        found = self.exchanges.setdefault(name, fresh)
        for what, wanted, has in (
            ("type", kind, found.kind),
            ("durable", durable, found.durable),
            ("alternate-exchange", alternate, found.alternate),
        ):
            if wanted != has:
                raise Refused(
                    406, f"PRECONDITION_FAILED - inequivalent arg '{what}' for exchange '{name}' in vhost '/'"
                )

    def declare_queue(self, name: str, arguments: Mapping[str, Any]) -> tuple[int, int]:
        """Make a quorum queue or a stream, unless it is there: messages and consumers; Refused with 406."""
        kind = arguments.get("x-queue-type")
        if kind == _STREAM:
            self._equal(name, self._stream_arguments.setdefault(name, dict(arguments)), arguments)
            return 0, 0
        if kind != "quorum":
            raise NotImplementedError(f"{name}: only quorum queues and streams are simulated")
        found = self.queues.get(name)
        if found is None:
            found = Queue(name, arguments, self.clock, self.dead_letters.give_up, old=self.old)
            self.queues[name] = found
        self._equal(name, found.arguments, arguments)
        return len(found), found.consumers

    def _equal(self, name: str, has: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
        for key in {**has, **wanted}:
            if has.get(key) != wanted.get(key):
                raise Refused(
                    406, f"PRECONDITION_FAILED - inequivalent arg '{key}' for queue '{name}' in vhost '/'"
                )

    def look_at(self, name: str) -> tuple[int, int]:
        """Messages and consumers of a queue; Refused with 404."""
        if name in self._stream_arguments:
            return self.streams[name], 0
        found = self.queue(name)
        return len(found), found.consumers

    def bind(self, queue: str, exchange: str, key: str) -> None:
        """Bind a queue or stream; Refused with 404."""
        if queue not in self._stream_arguments:
            self.queue(queue)
        self.exchange(exchange).bind(key, queue)

    def unbind(self, queue: str, exchange: str, key: str) -> None:
        """Undo a binding; one that does not exist is none to undo."""
        if exchange in self.exchanges:
            self.exchanges[exchange].unbind(key, queue)

    def delete_queue(self, name: str) -> int:
        """Delete a queue with all that waits in it; how many messages that were."""
        for exchange in self.exchanges.values():
            exchange.forget(name)
        found = self.queues.pop(name, None)
        if found is None:
            return 0
        found.close()
        return len(found)

    def delete_exchange(self, name: str) -> None:
        """Delete an exchange with its bindings."""
        self.exchanges.pop(name, None)

    def publish(self, channel: Channel, message: Message, user_id: str | None) -> tuple[bool, bool]:
        """Put a message in its queues: whether it was routed anywhere, and whether every queue took it."""
        if user_id is not None and user_id != channel.user:
            raise Refused(
                406,
                f"PRECONDITION_FAILED - user_id property set to '{user_id}' but authenticated user was"
                f" '{channel.user}'",
            )
        if message.exchange and message.exchange not in self.exchanges:
            raise Refused(404, f"NOT_FOUND - no exchange '{message.exchange}' in vhost '/'")
        self.counts["published"] += 1
        targets = self.route(message.exchange, message.keys)
        return bool(targets), not self.store(message, targets)

    def route(self, exchange: str, keys: tuple[str, ...]) -> tuple[str, ...]:
        """The queues that a message reaches, by alternate exchanges if need be."""
        if not exchange:
            return tuple(key for key in dict.fromkeys(keys) if key in self.queues or key in self._stream_arguments)
        seen: set[str] = set()
        name: str | None = exchange
        while name is not None and name in self.exchanges and name not in seen:
            seen.add(name)
            found = self.exchanges[name].route(keys)
            if found:
                return found
            name = self.exchanges[name].alternate
        return ()

    def store(self, message: Message, targets: tuple[str, ...]) -> list[str]:
        """Put a message in these queues; those that did not take it."""
        refused = []
        for name in targets:
            queue = self.queues.get(name)
            if queue is None:
                self.streams[name] += 1
            elif not queue.put(message):
                refused.append(name)
        return refused

    def repeat(self, name: str, message: Message) -> None:
        """Put a message in a queue once more, as a publisher does that did not hear the confirm."""
        queue = self.queues.get(name)
        if queue is not None:
            self.counts["repeated"] += 1
            queue.put(message)

    def contents(self) -> dict[str, list[Message]]:
        """What is ready in each queue that is not empty, head first."""
        return {name: [held.message for held in queue] for name, queue in self.queues.items() if len(queue)}

    def outstanding(self) -> int:
        """Messages that are anywhere: ready, delivered and not answered for, or leaving as dead letters."""
        return sum(len(queue) + queue.out + len(queue.leaving) for queue in self.queues.values())


__all__ = ["Broker", "Channel", "Consumer", "Peer", "Reason", "Refused"]
