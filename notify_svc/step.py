"""One batch of the notify service: notes down what users are to be told. The sender tells them."""

from __future__ import annotations

from common import rows
from common.barrier import Barrier
from common.messages import Expired, Failed, Message
from common.recovery import Outcome
from common.rows import Writes
from common.unit_of_work import Batch
from notify_svc import domain
from notify_svc.domain import Kind, State
from notify_svc.handover import LEASE, Handover
from notify_svc.models import Notice


async def handle(batch: Batch[Message], handover: Handover) -> list[Outcome]:
    """Do a batch inside the transaction it is given, and hand its notices over once they are committed."""
    work = await Work.load(batch, leased=handover.is_open)
    outcomes = [work.decide(message) for message in batch.messages]
    work.save(batch.writes)
    if work.leased:
        batch.outbox.once_committed(lambda: handover.put(work.notices))
    return outcomes


class Work:
    """The rows of one batch, and what is decided over them."""

    def __init__(self, batch: Batch[Message], barrier: Barrier, *, leased: bool) -> None:
        self.notices: list[Notice] = []
        self.leased = leased
        self._now = batch.now
        self._barrier = barrier

    @classmethod
    async def load(cls, batch: Batch[Message], *, leased: bool) -> Work:
        """Read the sagas of all messages at once. `leased`: the sender of this process will have the notices."""
        # Most sagas are new here, and whatever is done about a new one inserts its row.
        unknown = () if batch.careful else {message.key for message in batch.messages}
        barrier = await Barrier.load("notify", batch.messages, now=batch.now, outbox=batch.outbox, unknown=unknown)
        return cls(batch, barrier, leased=leased)

    def decide(self, message: Message) -> Outcome:
        """What becomes of one message."""
        match message.body:
            case Expired() as event:
                text = domain.completed(event.payment_id, event.reservation_id, event.amount)
                return self._barrier.forward(message, lambda: self._note(message, Kind.COMPLETED, text))
            case Failed() as failed:
                text = domain.failed(failed.payment_id, failed.detail)
                return self._barrier.failure(
                    message, undo=lambda: None, close=lambda: self._note(message, Kind.FAILED, text)
                )
        raise TypeError(f"the notify service does not take {message.type}")

    def _note(self, message: Message, kind: Kind, text: str) -> None:
        assert isinstance(message.body, Expired | Failed)
        notice = rows.new(
            Notice,
            saga_id=message.key,
            user_id=message.body.user_id,
            kind=kind,
            text=text,
            state=State.PENDING,
            attempts=1 if self.leased else 0,
            due_at=self._now + LEASE if self.leased else self._now,
            traceparent=message.traceparent,
        )
        self.notices.append(notice)

    def save(self, writes: Writes) -> None:
        """Note what is new."""
        self._barrier.save(writes)
        writes.insert(Notice, self.notices)
