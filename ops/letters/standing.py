"""What is known of a letter's saga, or command: asked of the databases, else of the history. Neither may know.

The databases are the truth. The history is told without a confirm and forgets after a week, so it may have holes:
whoever decides over what it says must be safe with one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from common import saga
from common.history import Became, Record
from common.recovery import Deed
from ops.audit.rules import Saga
from ops.letters.letter import Letter, Role

_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
#: Ids in one statement; SQLite takes no longer ones than a million bytes.
_AT_ONCE = 1000
_STATES: Mapping[str, str] = {Deed.UNDID: "undone", Deed.CLOSED: "closed", Deed.FAILED: "failed"}


@dataclass(frozen=True, slots=True)
class Standing:
    """How a saga, or a command beside it, stands in one service.

    `source` says who was asked; empty: nobody could be, and nothing else here means anything. `state` is that of
    the service's `saga_step` row, of a command `answered`; empty: the service has not done anything about it.
    `is_other`: what the service did, it did for a command of the same id with other content. `past_pivot`: the
    saga can no longer fail. `completed`: the payment is.
    """

    source: str = ""
    state: str = ""
    is_other: bool = False
    past_pivot: bool = False
    completed: bool = False

    @property
    def is_known(self) -> bool:
        """Whether anybody could be asked."""
        return bool(self.source)


UNKNOWN = Standing()
#: The state of a command beside the saga that has its answer.
ANSWERED = "answered"


async def of_databases(letters: Sequence[Letter], databases: Mapping[str, str]) -> list[Standing]:
    """Ask the services' databases about each letter; raises CannotLookError unless all of them can be read."""
    from ops.audit.reading import open_books  # noqa: PLC0415 - it loads every vendor's driver

    asked = [letter for letter in letters if _is_asked_for(letter)]
    prints: dict[_Table, dict[str, str | None]] = {}
    async with open_books(databases) as books:
        picked = await books.pick({letter.key for letter in asked if letter.role is not Role.COMMAND})
        for table, keys in _by_table(asked).items():
            rows = prints[table] = {}
            for start in range(0, len(keys), _AT_ONCE):
                query = _prints(table, keys[start : start + _AT_ONCE])
                rows.update(map(tuple, await books.select(table.service, query)))
    sagas = {it.id: it for it in picked}
    found = []
    for letter in letters:
        if not _is_asked_for(letter):
            found.append(UNKNOWN)
            continue
        rows, it = prints[_table(letter)], sagas.get(letter.key)
        fingerprint = rows.get(letter.key)
        is_other = fingerprint is not None and _fingerprint(letter) not in {None, fingerprint}
        if letter.role is Role.COMMAND:
            found.append(Standing("databases", ANSWERED if letter.key in rows else "", is_other))
            continue
        found.append(
            Standing(
                source="databases",
                state=(it.state(letter.service) or "") if it else "",
                is_other=is_other,
                past_pivot=bool(it and is_past_the_pivot(it)),
                completed=bool(it and it.payment and it.payment.state == "COMPLETED"),
            )
        )
    return found


def is_past_the_pivot(it: Saga) -> bool:
    """Whether a saga can no longer fail: by the pivot's own row, or, where that is forgotten, by another one."""
    completed = it.payment is not None and it.payment.state == "COMPLETED"
    settled = any(it.state(service) == "settled" for service in saga.SERVICES)
    return completed or settled or it.state(saga.PIVOT.service) == "done"


def of_history(letters: Sequence[Letter], records: Iterable[Record]) -> list[Standing]:
    """Read out of the history how the saga of each letter stands; those it has not heard of are unknown."""
    asked: dict[str, set[_Table]] = {}
    for letter in letters:
        if _is_asked_for(letter):
            asked.setdefault(letter.key, set()).add(_table(letter))
    found: dict[tuple[_Table, str], Standing] = {}
    for record in records:
        for entry in record.entries if record.service in saga.SERVICES else ():
            for table in asked.get(entry.saga, ()):
                if saga.is_of_a_saga(entry.type) is table.of_commands:
                    continue
                found[table, entry.saga] = _after(
                    found.get((table, entry.saga), Standing("history")),
                    here=record.service == table.service,
                    service=record.service,
                    type_=entry.type,
                    deed=entry.deed if entry.became == Became.DONE else "",
                    conflict=entry.became == Became.PARKED and entry.reason == saga.IDEMPOTENCY_CONFLICT,
                    said=tuple(type_ for type_, _ in entry.said),
                )
    return [found.get((_table(letter), letter.key), UNKNOWN) for letter in letters]


def _after(
    before: Standing, *, here: bool, service: str, type_: str, deed: str, conflict: bool, said: tuple[str, ...]
) -> Standing:
    """How a saga stands after one more entry of the history."""
    standing = before
    if service == saga.PIVOT.service and (
        saga.PIVOT.emits in said or (type_ == saga.PIVOT.on and deed == Deed.DID)
    ):
        standing = replace(standing, past_pivot=True)
    if saga.COMPLETED in said:
        standing = replace(standing, past_pivot=True, completed=True)
    if not here:
        return standing
    if not saga.is_of_a_saga(type_):
        done = conflict or deed in {Deed.ANSWERED, Deed.REPEATED, Deed.FAILED}
        return replace(standing, state=ANSWERED) if done else standing
    step = saga.step_of(service)
    if type_ == step.on and deed in {Deed.DID, Deed.REPEATED}:
        # A row only ever goes from `done` to another end; entries of two replicas may come in the wrong order.
        over = step.failed in said
        return replace(standing, state=standing.state or ("closed" if over else "done"))
    if conflict:
        return replace(standing, state=standing.state or "done")
    return replace(standing, state=_STATES.get(deed, standing.state))


def _is_asked_for(letter: Letter) -> bool:
    """Whether anybody can know about it: it names one saga, or one command."""
    return bool(letter.key) and letter.role is not Role.SETTLEMENT


@dataclass(frozen=True, slots=True)
class _Table:
    """Where a service remembers: its sagas, or the commands beside them."""

    service: str
    of_commands: bool


def _table(letter: Letter) -> _Table:
    return _Table(letter.service, letter.role is Role.COMMAND)


def _by_table(letters: Iterable[Letter]) -> dict[_Table, list[str]]:
    """The keys to ask for, each once."""
    tables: dict[_Table, dict[str, None]] = {}
    for letter in letters:
        tables.setdefault(_table(letter), {})[letter.key] = None
    return {table: list(keys) for table, keys in tables.items()}


def _prints(table: _Table, keys: Iterable[str]) -> str:
    """The query for the fingerprints under these keys: what of a command's content was believed."""
    name, key = ("command_record", "command_id") if table.of_commands else ("saga_step", "saga_id")
    for one in keys:
        assert _ID.fullmatch(one), "a letter's key is an id, or it has none"
    listed = ", ".join(f"'{one}'" for one in keys)
    return f"SELECT {key}, fingerprint FROM {name} WHERE {key} IN ({listed})"  # noqa: S608 - ids, checked above


def _fingerprint(letter: Letter) -> str | None:
    """The content of a command; every other message follows from one."""
    is_command = letter.role is Role.COMMAND or letter.type == saga.FIRST.on
    return letter.content.fingerprint() if letter.content and is_command else None
