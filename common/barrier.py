"""The barrier: one row per saga and service that is inbox, barrier and tombstone in one.

Whatever arrives, however often and in whatever order, `TABLE` decides; a service only supplies what "do" and
"undo" mean. Rows are inserted first or changed by compare-and-set, so of two replicas only one can win.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, StrEnum, auto
from typing import Protocol

from tortoise import fields
from tortoise.models import Model

from common import saga
from common.messages import Body, Failed, ForwardEvent, Message, Pay, Rejected, Settled, decode_stored
from common.outbox import Outbox
from common.reads import Reads
from common.recovery import Dead, DeadLetter, Deed, Done, Outcome, Parked
from common.rows import Writes
from common.unit_of_work import Batch

PROTOCOL_BROKEN = "protocol_broken"


class State(StrEnum):
    """What became of a saga in one service.

    Every state but `done` is final: nothing more is expected. What comes after the pivot is final when it is done.
    """

    DONE = "done"
    SETTLED = "settled"
    UNDONE = "undone"
    FAILED = "failed"
    CLOSED = "closed"


class Kind(Enum):
    """What a message asks of a saga."""

    FORWARD = auto()
    FAILURE = auto()
    DEAD_LETTER = auto()
    SETTLEMENT = auto()


class Action(Enum):
    """What is done about it."""

    DO = auto()
    """The service's part; then the row is `done`."""
    ANSWER = auto()
    """Say again what was said: a repeated message repeats the answer."""
    UNDO = auto()
    """Compensate; then the row is `undone`."""
    CLOSE = auto()
    """Remember never to do it."""
    FAIL = auto()
    """End the saga here, and tell everybody."""
    SETTLE = auto()
    """Note that the whole saga is complete; then the row is `settled`."""
    BREAK = auto()
    """The protocol is broken: touch nothing, a person must look."""
    NOTHING = auto()


TABLE: Mapping[tuple[State | None, Kind], Action] = {
    (None, Kind.FORWARD): Action.DO,
    (None, Kind.FAILURE): Action.CLOSE,
    (None, Kind.DEAD_LETTER): Action.FAIL,
    (State.DONE, Kind.FORWARD): Action.ANSWER,
    (State.DONE, Kind.FAILURE): Action.UNDO,
    (State.DONE, Kind.DEAD_LETTER): Action.NOTHING,
    (State.SETTLED, Kind.FORWARD): Action.ANSWER,
    (State.SETTLED, Kind.FAILURE): Action.BREAK,
    (State.SETTLED, Kind.DEAD_LETTER): Action.NOTHING,
    (State.FAILED, Kind.FORWARD): Action.ANSWER,
    (State.FAILED, Kind.FAILURE): Action.NOTHING,
    (State.FAILED, Kind.DEAD_LETTER): Action.NOTHING,
    (State.UNDONE, Kind.FORWARD): Action.ANSWER,
    (State.UNDONE, Kind.FAILURE): Action.NOTHING,
    (State.UNDONE, Kind.DEAD_LETTER): Action.NOTHING,
    (State.CLOSED, Kind.FORWARD): Action.ANSWER,
    (State.CLOSED, Kind.FAILURE): Action.NOTHING,
    (State.CLOSED, Kind.DEAD_LETTER): Action.NOTHING,
    (None, Kind.SETTLEMENT): Action.BREAK,
    (State.DONE, Kind.SETTLEMENT): Action.SETTLE,
    (State.SETTLED, Kind.SETTLEMENT): Action.NOTHING,
    (State.FAILED, Kind.SETTLEMENT): Action.BREAK,
    (State.UNDONE, Kind.SETTLEMENT): Action.BREAK,
    (State.CLOSED, Kind.SETTLEMENT): Action.BREAK,
}


def final_states(service: str) -> tuple[State, ...]:
    """The states of rows that a service may forget one day."""
    return tuple(state for state in State if state is not State.DONE or not saga.awaits_settlement(service))


class SagaStep(Model):
    """A saga's row in one service. `answer` is what a repeated forward message is told; empty: nothing."""

    saga_id = fields.CharField(max_length=64, primary_key=True)
    state = fields.CharField(max_length=8)
    fingerprint = fields.CharField(max_length=64, null=True)
    answer_type = fields.CharField(max_length=64)
    answer = fields.TextField()
    created_at = fields.DatetimeField()
    changed_at = fields.DatetimeField()

    class Meta:
        """Tortoise's place for the table's name and comment."""

        table = "saga_step"
        table_description = "what became of a saga in this service"
        # The janitor's way to what is still open, and to what may be forgotten, the oldest first.
        indexes = (("state", "changed_at"),)


class CommandRecord(Model):
    """The outcome of a command that is no saga, kept under its id so that a repeat repeats it."""

    command_id = fields.CharField(max_length=64, primary_key=True)
    fingerprint = fields.CharField(max_length=64)
    answer_type = fields.CharField(max_length=64)
    answer = fields.TextField()
    created_at = fields.DatetimeField()

    class Meta:
        """Tortoise's place for the table's name and comment."""

        table = "command_record"
        table_description = "outcomes of commands that are no sagas"


class Refused(Protocol):
    """A refusal, as each service's domain defines its own: a value, not an error."""

    @property
    def reason(self) -> str:
        """A stable code of the saga table."""
        ...

    @property
    def detail(self) -> str:
        """For the person who was refused."""
        ...


@dataclass(frozen=True, slots=True)
class Broken:
    """What a service answers to a failure that the protocol rules out: nothing is touched, a person looks."""

    detail: str


@dataclass(slots=True)
class _Row:
    """A saga's row while its batch is decided: `loaded` is what the database said."""

    saga_id: str
    loaded: State | None
    changed_at: datetime
    state: State | None = None
    fingerprint: str | None = None
    answer_type: str = ""
    answer: str = ""

    @property
    def created_at(self) -> datetime:
        """A row is created when it is first changed; only new rows are asked."""
        return self.changed_at


class Barrier:
    """The rows of all sagas and commands that one batch touches, loaded once, saved once."""

    def __init__(self, service: str, now: datetime, outbox: Outbox) -> None:
        self._step = saga.step_of(service)
        self._now = now
        self._outbox = outbox
        self._failing: set[str] = set()
        self._rows: dict[str, _Row] = {}
        self._commands: dict[str, CommandRecord] = {}
        self._new_commands: list[CommandRecord] = []

    @classmethod
    async def load(
        cls,
        service: str,
        messages: Sequence[Message],
        *,
        now: datetime,
        outbox: Outbox,
        beside: Reads | None = None,
        unknown: Collection[str] = (),
    ) -> Barrier:
        """Read the rows of every saga and command in `messages`, and, at once with them, what `beside` asks for.

        `unknown`: sagas that are taken to have no row, and are not looked for. All that is decided about them must
        insert the row, which fails if there is one (IntegrityError).
        """
        barrier = cls(service, now, outbox)
        sagas, commands = set[str](), set[str]()
        for message in messages:
            if isinstance(message.body, Settled):
                sagas.update(message.body.payment_ids)
            else:
                (sagas if saga.is_of_a_saga(message.type) else commands).add(message.key)
        barrier._failing = {
            message.key for message in messages if saga.binding_of(message.type) == saga.ANY_FAILED
        }
        reads = beside or Reads()
        steps = reads.find(SagaStep, sagas.difference(unknown))
        records = reads.find(CommandRecord, commands)
        await reads.fetch()
        for row in steps:
            state = State(row.state)
            barrier._rows[row.saga_id] = _Row(
                row.saga_id, state, now, state, row.fingerprint, row.answer_type, row.answer
            )
        for record in records:
            barrier._commands[record.command_id] = record
        return barrier

    def said(self, saga_id: str) -> Body | None:
        """What this service said when it did its part; None unless its part is done."""
        row = self._row(saga_id)
        return decode_stored(row.answer_type, row.answer) if row.state is State.DONE and row.answer else None

    def is_settled(self, message: Message) -> bool:
        """Whether this is the message of a saga that is settled here, and not other content under its id."""
        row = self._rows.get(message.key)
        return row is not None and row.state is State.SETTLED and not self._is_other_content(row, message)

    def to_undo(self) -> list[Body]:
        """What this service said in the sagas that the batch's failures end: what undoing them will touch."""
        return [said for saga_id in sorted(self._failing) if (said := self.said(saga_id))]

    def forward(self, message: Message, do: Callable[[], Body | Refused | None]) -> Outcome:
        """Do this service's part exactly once, or say again what was said.

        `do` returns the event that tells of it, a refusal, or None where the event comes later.
        """
        row = self._row(message.key)
        deed = Deed.REPEATED
        if self._is_other_content(row, message):
            return self._conflict(message)
        if TABLE[row.state, Kind.FORWARD] is Action.DO:
            deed = Deed.DID
            result = do()
            if result is not None and not isinstance(result, Body):
                return Dead(result.reason, result.detail)
            row.fingerprint = _fingerprint(message)
            self._become(row, State.DONE, self._step.emits if result else "", result)
        self._say(row, message)
        return Done(deed)

    def failure(
        self,
        message: Message,
        *,
        undo: Callable[[], Body | Broken | None],
        close: Callable[[], None] | None = None,
    ) -> Outcome:
        """Undo this service's part, or remember never to do it.

        `undo` returns the event that tells of the compensation, None where there is nothing to undo, or
        `Broken`. `close` runs when the saga is closed before it got here.
        """
        if not saga.may_fail(message.type):
            return Parked(PROTOCOL_BROKEN, f"{message.type} cannot exist: that step may not fail")
        row = self._row(message.key)
        deed = Deed.IGNORED
        match TABLE[row.state, Kind.FAILURE]:
            case Action.CLOSE:
                deed = Deed.CLOSED
                if close is not None:
                    close()
                self._end(row, State.CLOSED, message.body)
            case Action.UNDO:
                event = undo()
                if isinstance(event, Broken):
                    return Parked(PROTOCOL_BROKEN, event.detail)
                if event is not None:
                    deed = Deed.UNDID
                    assert self._step.compensation is not None
                    self._stage(self._step.compensation, event.encode(), message)
                    self._end(row, State.UNDONE, message.body)
            case Action.BREAK:
                return Parked(PROTOCOL_BROKEN, f"{message.key} is settled here; nothing can fail after the pivot")
            case Action.NOTHING:
                pass
            case other:
                raise AssertionError(f"a failure never makes a service {other.name}")
        return Done(deed)

    def settlement(self, message: Message) -> Outcome:
        """Note which sagas are settled; those that cannot be are put before a person."""
        assert isinstance(message.body, Settled)
        torn = []
        for saga_id in message.body.payment_ids:
            row = self._row(saga_id)
            match TABLE[row.state, Kind.SETTLEMENT]:
                case Action.SETTLE:
                    row.state = State.SETTLED
                case Action.BREAK:
                    torn.append(saga_id)
        if torn:
            known = ", ".join(f"{saga_id} ({self._row(saga_id).state or 'unknown'})" for saga_id in torn[:5])
            more = f" and {len(torn) - 5} more" if len(torn) > 5 else ""
            self._outbox.park(
                message.type,
                message.key,
                Settled(payment_ids=torn).encode(),
                reason=PROTOCOL_BROKEN,
                detail=f"complete for payment, but not done here: {known}{more}; was this database restored?",
            )
        return Done()

    def has_settled(self, saga_id: str) -> bool:
        """Whether nothing can change a saga here any more."""
        return self._row(saga_id).state == State.SETTLED

    def dead_letter(self, letter: DeadLetter) -> Outcome:
        """Decide a terminal failure: end the saga here, unless this service's part is done or closed."""
        message = letter.message
        body = message.body
        if not isinstance(body, Pay | ForwardEvent):
            return self._dead_command(letter)
        if message.type != self._step.on:
            return Parked(PROTOCOL_BROKEN, f"{message.type} is not what this service does its part on")
        row = self._row(message.key)
        if self._is_other_content(row, message):
            return self._conflict(message)
        deed = Deed.IGNORED
        if TABLE[row.state, Kind.DEAD_LETTER] is Action.FAIL:
            deed = Deed.FAILED
            failed = Failed(
                payment_id=body.payment_id,
                user_id=body.user_id,
                service=self._step.service,
                reason=letter.reason,
                detail=letter.detail,
                attempts=letter.attempts,
            )
            row.fingerprint = _fingerprint(message)
            self._end(row, State.FAILED, failed)
            self._say(row, message)
        return Done(deed)

    def command(self, message: Message, do: Callable[[], Body | Refused]) -> Outcome:
        """Do a command that is no saga exactly once, and record and tell its outcome."""
        record = self._commands.get(message.key)
        deed = Deed.REPEATED if record else Deed.ANSWERED
        if record is None:
            result = do()
            if isinstance(result, Body):
                answer = next(command.answer for command in saga.COMMANDS if command.on == message.type)
                record = self._record(message, answer, result)
            else:
                record = self._record_rejection(message, result.reason, result.detail)
        elif record.fingerprint != message.body.fingerprint():
            return self._conflict(message)
        self._stage(record.answer_type, record.answer, message)
        return Done(deed)

    def _dead_command(self, letter: DeadLetter) -> Outcome:
        """Decide the terminal failure of a command that is no saga: reject it, unless it is answered."""
        message = letter.message
        record = self._commands.get(message.key)
        deed = Deed.REPEATED if record else Deed.FAILED
        if record is None:
            record = self._record_rejection(message, letter.reason, letter.detail)
        elif record.fingerprint != message.body.fingerprint():
            return self._conflict(message)
        self._stage(record.answer_type, record.answer, message)
        return Done(deed)

    def save(self, writes: Writes) -> None:
        """Note what changed: to write it fails if another replica was first (LostRaceError, IntegrityError)."""
        changed = [row for _, row in sorted(self._rows.items()) if row.state is not row.loaded]
        writes.insert(SagaStep, [row for row in changed if row.loaded is None])
        writes.insert(CommandRecord, sorted(self._new_commands, key=lambda record: record.command_id))
        undone = [row for row in changed if row.loaded is not None]
        writes.update(SagaStep, undone, "state", "answer_type", "answer", "changed_at", only_if="loaded")

    def _row(self, saga_id: str) -> _Row:
        row = self._rows.get(saga_id)
        if row is None:
            row = self._rows[saga_id] = _Row(saga_id, loaded=None, changed_at=self._now)
        return row

    def _become(self, row: _Row, state: State, answer_type: str, answer: Body | None) -> None:
        row.state = state
        row.answer_type = answer_type
        row.answer = answer.encode() if answer else ""

    def _end(self, row: _Row, state: State, failed: Body) -> None:
        """The saga is over for this service; a step that may not fail has nothing to say about it."""
        self._become(row, state, self._step.failed if self._step.refusals else "", failed)

    def _say(self, row: _Row, message: Message) -> None:
        if row.answer_type:
            self._stage(row.answer_type, row.answer, message)

    def _stage(self, type_: str, body: str, message: Message) -> None:
        self._outbox.stage(type_, message.key, body, message.traceparent, cause=message.type)

    def _is_other_content(self, row: _Row, message: Message) -> bool:
        return row.fingerprint is not None and _fingerprint(message) not in {None, row.fingerprint}

    def _conflict(self, message: Message) -> Outcome:
        """The same id with other content: the first stays untouched, the second is answered and parked."""
        detail = f"{message.key} was used before with other content; choose another id"
        rejection = Rejected(id=message.key, reason=saga.IDEMPOTENCY_CONFLICT, detail=detail)
        self._stage(saga.rejected(self._step.service), rejection.encode(), message)
        return Parked(saga.IDEMPOTENCY_CONFLICT, detail)

    def _record_rejection(self, message: Message, reason: str, detail: str) -> CommandRecord:
        rejection = Rejected(id=message.key, reason=reason, detail=detail)
        return self._record(message, saga.rejected(self._step.service), rejection)

    def _record(self, message: Message, answer_type: str, answer: Body) -> CommandRecord:
        record = CommandRecord(
            command_id=message.key,
            fingerprint=message.body.fingerprint(),
            answer_type=answer_type,
            answer=answer.encode(),
            created_at=self._now,
        )
        self._commands[message.key] = record
        self._new_commands.append(record)
        return record


async def bury(service: str, batch: Batch[DeadLetter]) -> list[Outcome]:
    """Decide the dead letters of a service against its own rows, inside the transaction it is given."""
    messages = [letter.message for letter in batch.messages]
    barrier = await Barrier.load(service, messages, now=batch.now, outbox=batch.outbox)
    outcomes = [barrier.dead_letter(letter) for letter in batch.messages]
    barrier.save(batch.writes)
    return outcomes


def _fingerprint(message: Message) -> str | None:
    """The content of the command that opens a saga; every other message follows from it."""
    return message.body.fingerprint() if isinstance(message.body, Pay) else None
