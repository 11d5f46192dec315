"""What the five databases say, and whether all of it happened or none of it did."""

from __future__ import annotations

import asyncio
import importlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from common import saga
from containers.patience import eventually
from containers.system import System

Row = dict[str, Any]

_TABLES = {
    "payment": ("payment", "payment_id"),
    "reservation": ("reservation", "reservation_id"),
    "seat": ("reservation", "seat"),
    "wallet": ("point", "user_id"),
    "ledger_entry": ("point", "saga_id"),
    "token": ("queue", "token"),
    "notice": ("notify", "saga_id"),
}


@dataclass(frozen=True, slots=True)
class Books:
    """The rows of one test: those whose ids begin with its mark."""

    steps: Mapping[str, Mapping[str, Row]]
    """Of each service: each saga's row."""
    tables: Mapping[str, Mapping[str, Row]]
    """Of each table with a key of its own: its rows by that key."""
    ledger: Mapping[str, list[Row]]
    """Of each payment or top-up: its ledger entries."""
    unpublished: Mapping[str, list[Row]]
    """Of each service: what is still in its outbox."""

    def row(self, table: str, key: str) -> Row:
        """One row; AssertionError if it is not there."""
        assert key in self.tables[table], f"no {table} {key}"
        return self.tables[table][key]

    def states(self, payment_id: str) -> tuple[str | None, ...]:
        """What became of a saga in each service, in the order of the table; a part that is settled is done."""
        return tuple(as_done(self.steps[service].get(payment_id, {}).get("state")) for service in saga.SERVICES)

    def completed(self, payment_ids: Iterable[str]) -> list[str]:
        """Which of these payments are complete."""
        payments = self.tables["payment"]
        return [key for key in payment_ids if key in payments and payments[key]["state"] == "COMPLETED"]

    def failure(self, payment_id: str) -> tuple[str, str]:
        """Where and why a saga failed, as the step that failed it tells whoever asks again."""
        failing = next(service for service in saga.SERVICES if self._state(service, payment_id) == "failed")
        answer = json.loads(self.steps[failing][payment_id]["answer"])
        return answer["service"], answer["reason"]

    def _state(self, service: str, payment_id: str) -> str | None:
        row = self.steps[service].get(payment_id)
        return row["state"] if row else None

    def balance(self, user_id: str) -> int:
        """Points of a user."""
        return int(self.row("wallet", user_id)["balance"])


def as_done(state: str | None) -> str | None:
    """What a row says of its part, whether or not the whole saga is known to be complete by now."""
    return "done" if state == "settled" else state


#: The five endings of a saga: all of it happened, or it failed at a step and all before it was undone.
ALL_DONE = ("done",) * len(saga.SERVICES)
FAILED_AT = {
    step.service: ("undone",) * at + ("failed",) + ("closed",) * (len(saga.SAGA) - at - 1)
    for at, step in enumerate(saga.SAGA)
    if step.refusals
}
ENDINGS = {ALL_DONE, *FAILED_AT.values()}


async def read(system: System, mark: str) -> Books:
    """Read all rows of one test."""
    like = f"{mark}%"
    wanted = {
        **{("saga_step", service): (service, "saga_step", "saga_id") for service in saga.SERVICES},
        **{("outbox", service): (service, "outbox", "key") for service in saga.SERVICES},
        **{("table", table): (service, table, key) for table, (service, key) in _TABLES.items()},
    }
    # One service after another would show a saga that moves meanwhile as it never was; so does this, but less.
    found = dict(
        zip(
            wanted,
            await asyncio.gather(
                *(
                    system.query(service, f"SELECT * FROM {table} WHERE {table}.{key} LIKE $1", like)
                    for service, table, key in wanted.values()
                )
            ),
            strict=True,
        )
    )
    ledger: dict[str, list[Row]] = defaultdict(list)
    for entry in found["table", "ledger_entry"]:
        ledger[entry["saga_id"]].append(entry)
    return Books(
        steps={service: {row["saga_id"]: row for row in found["saga_step", service]} for service in saga.SERVICES},
        tables={
            table: {row[key]: row for row in found["table", table]}
            for table, (_, key) in _TABLES.items()
            if table != "ledger_entry"
        },
        ledger=ledger,
        unpublished={service: found["outbox", service] for service in saga.SERVICES},
    )


async def settled(system: System, mark: str, payment_ids: Iterable[str], *, seconds: float = 60) -> Books:
    """Wait until every one of these sagas has ended, all is as it must be, and nothing is left to publish."""
    wanted = list(payment_ids)

    async def have_ended() -> Books:
        books = await read(system, mark)
        moving = {key: books.states(key) for key in wanted if books.states(key) not in ENDINGS}
        assert not moving, f"{len(moving)} of {len(wanted)} still move: {dict(list(moving.items())[:3])}"
        # Tables are read one after another, so what is half-way now may only have been read half-way.
        wrong = violations(books)
        assert not wrong, f"{len(wrong)} things are wrong: {wrong[:3]}"
        return books

    return await eventually(have_ended, seconds=seconds)


def _unfinished(books: Books) -> Iterator[str]:
    """What is right by itself, but not yet the end."""
    for service, rows in books.unpublished.items():
        yield from (f"{service} has not published {row['type']} of {row['key']}" for row in rows)
    for key, row in books.tables["notice"].items():
        if row["state"] != "SENT":
            yield f"the notice of {key} is {row['state']}"
    for key, row in books.tables["payment"].items():
        if row["state"] == "PAID":
            yield f"payment {key} is still provisional"


def violations(books: Books) -> list[str]:
    """Everything in the rows that breaks the promise: all of it happened, or none of it did."""
    found = [f"saga {key} ended as {states}" for key, states in _endings(books) if states not in ENDINGS]
    found += _unfinished(books)
    for key, states in _endings(books):
        found += _saga(books, key, happened=states == ALL_DONE)
    found += _seats(books)
    found += _tokens(books)
    found += _wallets(books)
    return found


def _endings(books: Books) -> Iterator[tuple[str, tuple[str | None, ...]]]:
    for key in sorted(set().union(*books.steps.values())):
        yield key, books.states(key)


def _saga(books: Books, key: str, *, happened: bool) -> Iterator[str]:
    payment = books.tables["payment"].get(key)
    state = payment["state"] if payment else None
    # A payment that was refused at the first step was never recorded.
    wanted = {"COMPLETED"} if happened else {"CANCELLED", None}
    if state not in wanted:
        yield f"payment {key} is {state}, and its saga is {books.states(key)}"
    entries = Counter((entry["kind"], entry["amount"]) for entry in books.ledger.get(key, ()))
    took = {kind: -amount for (kind, amount) in entries if kind == "deduction"}
    amount = payment["amount"] if payment else 0
    allowed = (
        [{("deduction", -amount): 1}]
        if happened
        else [{}, {("deduction", -amount): 1, ("restoration", amount): 1}]
    )
    if entries not in allowed:
        yield f"the ledger of {key} holds {dict(entries)}; it took {took}"
    notice = books.tables["notice"].get(key)
    kind = "completed" if happened else "failed"
    if notice is None or notice["kind"] != kind:
        yield f"the user of {key} was told {notice and notice['kind']}, not {kind}"
    if happened and payment:
        reservation = books.tables["reservation"].get(payment["reservation_id"], {})
        if reservation.get("payment_id") != key:
            yield f"{key} is paid, its reservation belongs to {reservation.get('payment_id')}"
        token = books.tables["token"].get(payment["token"], {})
        if token.get("payment_id") != key:
            yield f"{key} is paid, its token was used by {token.get('payment_id')}"


def _seats(books: Books) -> Iterator[str]:
    for key, row in books.tables["reservation"].items():
        confirmed = row["state"] == "CONFIRMED"
        if confirmed != (row["payment_id"] is not None):
            yield f"reservation {key} is {row['state']} and names payment {row['payment_id']}"
        if confirmed and not books.completed([row["payment_id"]]):
            yield f"reservation {key} is CONFIRMED by {row['payment_id']}, which is not complete"
        seat = books.tables["seat"].get(row["seat"], {})
        if confirmed and seat.get("reservation_id") != key:
            yield f"reservation {key} is CONFIRMED, its seat names {seat.get('reservation_id')}"


def _tokens(books: Books) -> Iterator[str]:
    for key, row in books.tables["token"].items():
        used = row["state"] == "EXPIRED"
        if used != (row["payment_id"] is not None):
            yield f"token {key} is {row['state']} and names payment {row['payment_id']}"
        if used and not books.completed([row["payment_id"]]):
            yield f"token {key} was used by {row['payment_id']}, which is not complete"


def _wallets(books: Books) -> Iterator[str]:
    sums: Counter[str] = Counter()
    for entries in books.ledger.values():
        for entry in entries:
            sums[entry["user_id"]] += entry["amount"]
    for key, row in books.tables["wallet"].items():
        if row["balance"] < 0 or row["balance"] != sums[key]:
            yield f"wallet {key} holds {row['balance']}, its ledger says {sums[key]}"


async def audit(system: System, mark: str) -> list[str]:
    """What breaks the promise in the rows of one test; by the operators' own audit too, where there is one."""
    found = violations(await read(system, mark))
    try:
        operators = importlib.import_module("ops.audit.look")
    except ModuleNotFoundError:
        return found
    report = await operators.audit({service: system.database_url(service) for service in saga.SERVICES})
    return found + [told for told in map(str, report.violations) if mark in told]
