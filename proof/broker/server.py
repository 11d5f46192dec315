"""The broker's end of a channel: does what frames ask for, answers, and lets faults strike at every boundary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pamqp import commands as spec
from pamqp.base import Frame
from pamqp.body import ContentBody
from pamqp.header import ContentHeader

from proof.broker import core
from proof.broker.asked import answer
from proof.broker.confirms import Confirms
from proof.broker.core import Refused
from proof.broker.faults import Boundary, Delay, Fault
from proof.broker.frames import Published, delivered
from proof.broker.message import Held, Message

if TYPE_CHECKING:
    from proof.broker.connection import Wire

_Settled = spec.Basic.Ack | spec.Basic.Nack | spec.Basic.Reject


class Session:
    """One open channel, as the broker sees it."""

    def __init__(self, wire: Wire, number: int) -> None:
        self.number = number
        self._wire = wire
        self._broker = wire.broker.core
        self._channel = core.Channel(self._broker, wire.user, self)
        self._confirms: Confirms | None = None
        self._published = 0
        self._is_closed = False

    def deafen(self) -> None:
        """Deliver nothing more here."""
        self._channel.deafen()

    def close(self) -> None:
        """The channel is gone."""
        self._is_closed = True
        self._channel.close()

    def take(self, asked: Frame | Published, struck: bool = False) -> None:
        """What the client wrote has arrived; `struck`: after a delay, so that nothing strikes once more."""
        if self._is_closed:
            return
        try:
            if isinstance(asked, Published):
                self._publish(asked, struck=struck)
            elif isinstance(asked, (spec.Basic.Ack, spec.Basic.Nack, spec.Basic.Reject)):
                self._settle(asked, struck=struck)
            else:
                self._answer(asked)
        except Refused as refused:
            self.close()
            self._say(spec.Channel.Close(refused.code, refused.text, 0, 0))

    def _say(self, *frames: Any) -> None:  # noqa: ANN401 - pamqp's frames have no type in common
        self._wire.to_client.put(self._wire.receive, self.number, frames)

    def _publish(self, asked: Published, *, struck: bool) -> None:
        wire = self._wire
        fault = None if struck else wire.fault(Boundary.PUBLISH_SENT, asked.key)
        if fault is Fault.LOSE:
            wire.lost()
        elif isinstance(fault, Delay):
            wire.to_broker.hold(fault.seconds, self.take, asked, True)  # noqa: FBT003 - as above
        elif fault is Fault.REFUSE:
            self._published += 1
            self._confirm(asked.key, taken=False)
        else:
            self._published += 1
            self._store(asked)

    def _store(self, asked: Published) -> None:
        message = asked.message()
        routed, taken = self._broker.publish(self._channel, message, asked.properties.user_id)
        if self._wire.fault(Boundary.PUBLISH_STORED, asked.key) is Fault.LOSE:
            self._wire.lost()
            return
        if asked.mandatory and not routed:
            self._broker.counts["returned"] += 1
            frame = spec.Basic.Return(312, "NO_ROUTE", asked.exchange, asked.key)
            self._say(frame, *_content(message, 0))
        self._confirm(asked.key, taken=taken)

    def _confirm(self, key: str, *, taken: bool) -> None:
        if self._confirms is not None:
            self._broker.counts["confirmed" if taken else "refused"] += 1
            self._confirms.owe(self._published, key, taken=taken)

    def _tell(self, frame: spec.Basic.Ack | spec.Basic.Nack, key: str) -> None:
        self._wire.to_client.put(self._confirmed, frame, key)

    def _confirmed(self, frame: spec.Basic.Ack | spec.Basic.Nack, key: str) -> None:
        """At the client: a confirm is about to reach it."""
        wire = self._wire
        fault = wire.fault(Boundary.CONFIRM_SENT, key)
        if fault is Fault.LOSE:
            wire.lost()
        elif isinstance(fault, Delay):
            wire.to_client.hold(fault.seconds, wire.receive, self.number, (frame,))
        else:
            wire.receive(self.number, (frame,))

    def _settle(self, asked: _Settled, *, struck: bool) -> None:
        wire = self._wire
        tag = asked.delivery_tag or 0
        known = self._channel.unacked.get(tag)
        queue = known[0].queue.name if known else ""
        fault = None if struck else wire.fault(Boundary.ACK_SENT, queue)
        if fault is Fault.LOSE:
            wire.lost()
            return
        if isinstance(fault, Delay):
            wire.to_broker.hold(fault.seconds, self.take, asked, True)  # noqa: FBT003 - as above
            return
        multiple = not isinstance(asked, spec.Basic.Reject) and bool(asked.multiple)
        if isinstance(asked, spec.Basic.Ack):
            self._channel.ack(tag, multiple=multiple)
        else:
            self._channel.nack(tag, multiple=multiple, requeue=bool(asked.requeue))
        if wire.fault(Boundary.ACK_DONE, queue) is Fault.LOSE:
            wire.lost()

    def _answer(self, asked: Frame) -> None:
        match asked:
            case spec.Channel.Open():
                self._say(spec.Channel.OpenOk())
            case spec.Channel.Close():
                self.close()
                self._wire.sessions.pop(self.number, None)
                self._say(spec.Channel.CloseOk())
            case spec.Confirm.Select():
                self._confirms = Confirms(self._broker.clock, self._wire.broker.chance, self._tell)
                self._say(spec.Confirm.SelectOk())
            case spec.Basic.Consume(queue=queue, consumer_tag=tag):
                self._broker.queue(queue or "")
                # Before the first delivery.
                self._say(spec.Basic.ConsumeOk(tag))
                self._channel.consume(queue or "", tag or "")
            case _:
                self._say(answer(asked, self._broker, self._channel))

    def delivered(self, consumer: str, tag: int, queue: str, held: Held) -> None:
        """A message for a consumer: told by the broker."""
        message, count = held.message, held.count
        frame = spec.Basic.Deliver(consumer, tag, count > 0, message.exchange, message.keys[0])
        self._wire.to_client.put(self._reaches, queue, message, (frame, *_content(message, count)))

    def _reaches(self, queue: str, message: Message, frames: tuple[Any, ...]) -> None:
        """At the client: a delivery is about to reach it."""
        wire = self._wire
        fault = wire.fault(Boundary.DELIVERY_SENT, queue)
        if fault is Fault.LOSE:
            wire.lost()
            return
        if isinstance(fault, Delay):
            wire.to_client.hold(fault.seconds, wire.receive, self.number, frames)
            return
        if fault is Fault.REPEAT:
            self._broker.repeat(queue, message)
        wire.receive(self.number, frames)

    def cancelled(self, consumer: str) -> None:
        """A consumer's queue is gone: told by the broker."""
        self._say(spec.Basic.Cancel(consumer))


def _content(message: Message, count: int) -> tuple[Any, ...]:
    header = ContentHeader(0, len(message.body), delivered(message, count))
    return (header, ContentBody(message.body)) if message.body else (header,)
