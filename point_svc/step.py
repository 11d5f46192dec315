"""One batch of the point service: load what it touches, decide one message at a time, save what changed."""

from __future__ import annotations

from common import rows
from common.barrier import Barrier
from common.messages import Body, Confirmed, Deducted, Failed, Message, Restored, Settled, ToppedUp, TopUp
from common.reads import Reads
from common.recovery import Outcome
from common.rows import Writes
from common.unit_of_work import Batch
from point_svc import domain
from point_svc.models import Kind, LedgerEntry, Wallet


async def handle(batch: Batch[Message]) -> list[Outcome]:
    """Do a batch inside the transaction it is given."""
    work = await Work.load(batch)
    outcomes = [work.decide(message) for message in batch.messages]
    work.save(batch.writes)
    return outcomes


class Work:
    """The rows of one batch, and what is decided over them."""

    def __init__(self, batch: Batch[Message], barrier: Barrier, wallets: list[Wallet]) -> None:
        self._now = batch.now
        self._barrier = barrier
        self._wallets = {wallet.user_id: wallet for wallet in wallets}
        for wallet in wallets:
            wallet.found_with = wallet.balance
        self._opened: set[str] = set()
        self._changed: set[str] = set()
        self._entries: list[LedgerEntry] = []

    @classmethod
    async def load(cls, batch: Batch[Message]) -> Work:
        """Read the sagas, commands and wallets of all messages at once; with care, lock the wallets after that."""
        users = {m.body.user_id for m in batch.messages if isinstance(m.body, Confirmed | TopUp)}
        asked = set() if batch.careful else users
        reads = Reads()
        wallets = reads.find(Wallet, asked)
        barrier = await Barrier.load("point", batch.messages, now=batch.now, outbox=batch.outbox, beside=reads)
        users = users | {event.user_id for event in barrier.to_undo() if isinstance(event, Deducted)}
        return cls(batch, barrier, wallets + await rows.find(Wallet, users - asked, lock=batch.careful))

    def decide(self, message: Message) -> Outcome:
        """What becomes of one message."""
        match message.body:
            case Confirmed() as event:
                return self._barrier.forward(message, lambda: self._deduct(event))
            case Failed() as failed:
                return self._barrier.failure(message, undo=lambda: self._restore(failed))
            case TopUp() as command:
                return self._barrier.command(message, lambda: self._top_up(command))
            case Settled():
                return self._barrier.settlement(message)
        raise TypeError(f"the point service does not take {message.type}")

    def _deduct(self, event: Confirmed) -> Body | domain.Refusal:
        balance = domain.deduct(
            self._balance(event.user_id), event.amount, expires_at=event.expires_at, now=self._now
        )
        if isinstance(balance, domain.Refusal):
            return balance
        self._change(event.payment_id, Kind.DEDUCTION, event.user_id, balance)
        return Deducted.after(event, deducted_at=self._now)

    def _restore(self, failed: Failed) -> Body:
        deducted = self._barrier.said(failed.payment_id)
        assert isinstance(deducted, Deducted)
        balance = domain.restore(self._wallets[deducted.user_id].balance, deducted.amount)
        self._change(deducted.payment_id, Kind.RESTORATION, deducted.user_id, balance)
        return Restored(
            payment_id=deducted.payment_id,
            user_id=deducted.user_id,
            amount=deducted.amount,
            restored_at=self._now,
        )

    def _top_up(self, command: TopUp) -> Body | domain.Refusal:
        balance = domain.top_up(self._balance(command.user_id), command.amount)
        if isinstance(balance, domain.Refusal):
            return balance
        self._change(command.top_up_id, Kind.TOP_UP, command.user_id, balance)
        return ToppedUp(
            top_up_id=command.top_up_id, user_id=command.user_id, amount=command.amount, balance=balance
        )

    def _balance(self, user_id: str) -> int | None:
        wallet = self._wallets.get(user_id)
        return wallet.balance if wallet else None

    def _change(self, saga_id: str, kind: Kind, user_id: str, balance: int) -> None:
        wallet = self._wallets.get(user_id)
        if wallet is None:
            wallet = self._wallets[user_id] = Wallet(user_id=user_id, balance=0)
            self._opened.add(user_id)
        entry = rows.new(
            LedgerEntry,
            saga_id=saga_id,
            kind=kind,
            user_id=user_id,
            amount=balance - wallet.balance,
            created_at=self._now,
        )
        self._entries.append(entry)
        self._changed.add(user_id)
        wallet.balance = balance

    def save(self, writes: Writes) -> None:
        """Note what changed."""
        self._barrier.save(writes)
        writes.insert(Wallet, [self._wallets[user] for user in sorted(self._opened)])
        changed = [self._wallets[user] for user in sorted(self._changed - self._opened)]
        writes.update(Wallet, changed, "balance", only_if="found_with")
        writes.insert(LedgerEntry, self._entries)
