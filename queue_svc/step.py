"""One batch of the queue service: load what it touches, decide one message at a time, save what changed."""

from __future__ import annotations

from common.barrier import Barrier, Broken
from common.messages import Body, Deducted, Enter, Entered, Expired, Failed, Message, Settled
from common.reads import Reads
from common.recovery import Outcome
from common.rows import Writes
from common.unit_of_work import Batch
from queue_svc import domain
from queue_svc.domain import State
from queue_svc.models import Token


async def handle(batch: Batch[Message]) -> list[Outcome]:
    """Do a batch inside the transaction it is given."""
    work = await Work.load(batch)
    outcomes = [work.decide(message) for message in batch.messages]
    work.save(batch.writes)
    return outcomes


class Work:
    """The rows of one batch, and what is decided over them."""

    def __init__(self, batch: Batch[Message], barrier: Barrier, tokens: list[Token]) -> None:
        self._now = batch.now
        self._barrier = barrier
        self._tokens = {token.token: token for token in tokens}
        self._new: set[str] = set()
        self._changed: set[str] = set()

    @classmethod
    async def load(cls, batch: Batch[Message]) -> Work:
        """Read the sagas, commands and tokens of all messages at once."""
        reads = Reads()
        tokens = reads.find(Token, {m.body.token for m in batch.messages if isinstance(m.body, Deducted | Enter)})
        barrier = await Barrier.load("queue", batch.messages, now=batch.now, outbox=batch.outbox, beside=reads)
        return cls(batch, barrier, tokens)

    def decide(self, message: Message) -> Outcome:
        """What becomes of one message."""
        match message.body:
            case Deducted() as event:
                return self._barrier.forward(message, lambda: self._expire(event))
            case Failed() as failed:
                return self._barrier.failure(message, undo=lambda: self._past_the_pivot(failed))
            case Enter() as command:
                return self._barrier.command(message, lambda: self._enter(command))
            case Settled():
                return self._barrier.settlement(message)
        raise TypeError(f"the queue service does not take {message.type}")

    def _expire(self, event: Deducted) -> Body | domain.Refusal:
        token = self._tokens.get(event.token)
        seen = domain.Token(token.user_id, State(token.state)) if token else None
        state = domain.expire(seen, event.user_id, expires_at=event.expires_at, now=self._now)
        if isinstance(state, domain.Refusal):
            return state
        assert token is not None
        token.state = state
        token.payment_id = event.payment_id
        token.expired_at = self._now
        self._changed.add(token.token)
        return Expired.after(event, expired_at=self._now)

    def _past_the_pivot(self, failed: Failed) -> Broken:
        return Broken(f"the token of {failed.payment_id} is used up; nothing can fail after the pivot")

    def _enter(self, command: Enter) -> Body:
        self._tokens[command.token] = Token(
            token=command.token, user_id=command.user_id, state=State.ACTIVE, entered_at=self._now
        )
        self._new.add(command.token)
        return Entered(token=command.token, user_id=command.user_id)

    def save(self, writes: Writes) -> None:
        """Note what changed."""
        self._barrier.save(writes)
        writes.insert(Token, [self._tokens[token] for token in sorted(self._new)])
        changed = [self._tokens[token] for token in sorted(self._changed - self._new)]
        writes.update(Token, changed, "state", "payment_id", "expired_at", only_if="usable")
