"""What a client may ask for and gets an answer to: declarations, bindings, deletions, consumers."""

from __future__ import annotations

from pamqp import commands as spec
from pamqp.base import Frame

from proof.broker.core import Broker, Channel


def answer(frame: Frame, broker: Broker, channel: Channel) -> Frame:
    """Do what is asked, and say what RabbitMQ says; Refused if it may not be."""
    match frame:
        case spec.Exchange.Declare() | spec.Exchange.Delete():
            return _exchange(frame, broker)
        case spec.Queue.Declare() | spec.Queue.Delete() | spec.Queue.Purge():
            return _queue(frame, broker)
        case spec.Queue.Bind(queue=queue, exchange=exchange, routing_key=key):
            broker.bind(queue or "", exchange or "", key or "")
            return spec.Queue.BindOk()
        case spec.Queue.Unbind(queue=queue, exchange=exchange, routing_key=key):
            broker.unbind(queue or "", exchange or "", key or "")
            return spec.Queue.UnbindOk()
        case spec.Basic.Qos(prefetch_count=count):
            channel.prefetch = count or 0
            return spec.Basic.QosOk()
        case spec.Basic.Cancel(consumer_tag=tag):
            channel.cancel(tag or "")
            return spec.Basic.CancelOk(tag)
        case _:
            raise NotImplementedError(f"not simulated: {frame.name}")


def _exchange(frame: spec.Exchange.Declare | spec.Exchange.Delete, broker: Broker) -> Frame:
    name = frame.exchange or ""
    if isinstance(frame, spec.Exchange.Delete):
        broker.delete_exchange(name)
        return spec.Exchange.DeleteOk()
    if frame.passive:
        broker.exchange(name)
    else:
        broker.declare_exchange(
            name, frame.exchange_type, durable=bool(frame.durable), arguments=frame.arguments or {}
        )
    return spec.Exchange.DeclareOk()


def _queue(frame: spec.Queue.Declare | spec.Queue.Delete | spec.Queue.Purge, broker: Broker) -> Frame:
    name = frame.queue or ""
    match frame:
        case spec.Queue.Delete():
            return spec.Queue.DeleteOk(broker.delete_queue(name))
        case spec.Queue.Purge():
            return spec.Queue.PurgeOk(broker.queue(name).purge())
        case _:
            found = broker.look_at(name) if frame.passive else broker.declare_queue(name, frame.arguments or {})
            return spec.Queue.DeclareOk(name, *found)
