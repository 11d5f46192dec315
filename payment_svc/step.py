"""One batch of the payment service: load what it touches, decide one message at a time, save what changed."""

from __future__ import annotations

from datetime import datetime

from common import db, rows, saga
from common.barrier import PROTOCOL_BROKEN, Barrier, Broken
from common.messages import Body, Cancelled, Completed, Expired, Failed, Message, Paid, Pay
from common.reads import Reads
from common.recovery import Deed, Done, Outcome, Parked
from common.rows import Writes
from common.unit_of_work import Batch
from payment_svc import domain
from payment_svc.domain import State
from payment_svc.models import Payment
from payment_svc.settlement import Settlement


async def handle(batch: Batch[Message], rules: domain.Rules, settlement: Settlement) -> list[Outcome]:
    """Do a batch inside the transaction it is given, and have what is complete told once it is committed."""
    work = await Work.load(batch, rules)
    outcomes = [work.decide(message) for message in batch.messages]
    work.save(batch.writes)
    if work.completed:
        batch.outbox.once_committed(lambda: settlement.put(work.completed))
    return outcomes


class Work:
    """The rows of one batch, and what is decided over them."""

    def __init__(
        self, batch: Batch[Message], rules: domain.Rules, barrier: Barrier, payments: list[Payment]
    ) -> None:
        self.completed: list[str] = []
        self._now = batch.now
        self._outbox = batch.outbox
        self._rules = rules
        self._barrier = barrier
        self._payments = {payment.payment_id: payment for payment in payments}
        self._new: list[Payment] = []
        self._changed: set[str] = set()

    @classmethod
    async def load(cls, batch: Batch[Message], rules: domain.Rules) -> Work:
        """Read the sagas, and the payments that may be completed or cancelled, all at once."""
        ids = {message.key for message in batch.messages if isinstance(message.body, Expired | Failed)}
        reads = Reads()
        payments = reads.find(Payment, ids)
        # A completion is decided by its payment alone.
        of_barrier = [message for message in batch.messages if not isinstance(message.body, Expired)]
        # Most commands are new, and the insert finds out which are not. One that is refused inserts nothing.
        commands = [message.body for message in of_barrier if isinstance(message.body, Pay)]
        accepted = {
            command.key
            for command in commands
            if not isinstance(_judged(command, rules, batch.now), domain.Refusal)
        }
        barrier = await Barrier.load(
            "payment",
            of_barrier,
            now=batch.now,
            outbox=batch.outbox,
            beside=reads,
            unknown=() if batch.careful else accepted - ids,
        )
        settled = {message.key for message in batch.messages if barrier.is_settled(message)}
        return cls(batch, rules, barrier, payments + await rows.find(Payment, settled - ids))

    def decide(self, message: Message) -> Outcome:
        """What becomes of one message."""
        match message.body:
            case Pay() as command:
                if self._is_long_complete(message):
                    return self._complete(message)
                return self._barrier.forward(message, lambda: self._pay(command))
            case Failed() as failed:
                outcome = self._barrier.failure(message, undo=lambda: self._cancel(failed))
                if isinstance(outcome, Done) and outcome.deed is Deed.UNDID:
                    return Done(Deed.UNDID, since=self._payments[message.key].paid_at)
                return outcome
            case Expired():
                return self._complete(message)
        raise TypeError(f"the payment service does not take {message.type}")

    def _is_long_complete(self, message: Message) -> bool:
        """Whether the command of a complete payment comes so late that the others may have forgotten the saga."""
        if not self._barrier.is_settled(message):
            return False
        paid_at = self._payments[message.key].paid_at
        return not domain.walks_again(paid_at, rules=self._rules, now=self._now)

    def _pay(self, command: Pay) -> Body | domain.Refusal:
        deadline = _judged(command, self._rules, self._now)
        if isinstance(deadline, domain.Refusal):
            return deadline
        payment = rows.new(
            Payment,
            payment_id=command.payment_id,
            user_id=command.user_id,
            reservation_id=command.reservation_id,
            token=command.token,
            amount=command.amount,
            state=State.PAID,
            expires_at=deadline,
            paid_at=self._now,
        )
        self._new.append(payment)
        self._payments[payment.payment_id] = payment
        return Paid.after(command, expires_at=deadline, paid_at=self._now)

    def _cancel(self, failed: Failed) -> Body | Broken:
        payment = self._payments.get(failed.payment_id)
        if payment is None:
            # Where a batch reads with several statements, a twin may have paid between two of them.
            raise db.LostRaceError(f"payment {failed.payment_id} was made by another replica at this moment")
        state = domain.cancel(State(payment.state))
        if state is None:
            return Broken(f"payment {payment.payment_id} is COMPLETED; nothing can fail after the pivot")
        self._settle(payment, state)
        return Cancelled(
            payment_id=payment.payment_id,
            user_id=payment.user_id,
            amount=payment.amount,
            cancelled_at=self._now,
        )

    def _complete(self, message: Message) -> Outcome:
        """The pivot has happened: the payment is no longer provisional. Asked again, it answers again."""
        payment = self._payments.get(message.key)
        state = domain.complete(State(payment.state)) if payment else None
        if payment is None or state is None:
            what = f"is {payment.state}" if payment else "is unknown here"
            return Parked(PROTOCOL_BROKEN, f"{message.type} says the saga happened, but its payment {what}")
        deed = Deed.REPEATED
        if payment.state != state:
            deed = Deed.DID
            self._settle(payment, state)
        assert payment.settled_at is not None
        # Said again, too: whoever walked the saga here once more may have missed it the first time.
        self.completed.append(payment.payment_id)
        completed = Completed(
            payment_id=payment.payment_id,
            user_id=payment.user_id,
            amount=payment.amount,
            completed_at=payment.settled_at,
        )
        self._outbox.stage(
            saga.COMPLETED, message.key, completed.encode(), message.traceparent, cause=message.type
        )
        return Done(deed, since=payment.paid_at if deed is Deed.DID else None)

    def _settle(self, payment: Payment, state: State) -> None:
        payment.state = state
        payment.settled_at = self._now
        self._changed.add(payment.payment_id)

    def save(self, writes: Writes) -> None:
        """Note what changed."""
        self._barrier.save(writes)
        writes.insert(Payment, self._new)
        new = {payment.payment_id for payment in self._new}
        changed = [self._payments[payment_id] for payment_id in sorted(self._changed - new)]
        writes.update(Payment, changed, "state", "settled_at", only_if="provisional")


def _judged(command: Pay, rules: domain.Rules, now: datetime) -> datetime | domain.Refusal:
    return domain.pay(command.amount, command.expires_at, rules=rules, now=now)
