"""The history: what each service tells of what it did, so that people can see a saga which nobody conducts.

What was done within a fifth of a second is one message, published to a stream and never confirmed: if the history
is switched off, full or gone, no saga notices. The databases stay the truth; whoever reads the history must expect
holes and repetitions.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import accumulate
from typing import Any

from common.telemetry import log

_VERSION = 1
#: No number of ours is larger; what is can neither be drawn nor divided.
_LARGEST = 2**63
#: How long a record may wait for others, and how many entries are not to wait for more. A crash loses them.
_SECONDS_TO_GATHER = 0.2
_MANY = 200
#: How this process is told from its twins.
REPLICA = f"{socket.gethostname()}-{os.getpid()}"
#: The service of a record that tells what an operator did.
OPERATOR = "operator"
#: The type of the entries that tell of notices, which are no messages.
NOTICE = "notice"


class Became(StrEnum):
    """What became of a message."""

    DONE = "done"
    RETRY = "retry"
    DEAD = "dead"
    PARKED = "parked"


@dataclass(slots=True, kw_only=True)
class Entry:
    """What became of one message in one service.

    `saga` is its key, empty if it could not be read. `deed` (see `common.recovery.Deed`) tells what `done` was.
    `said` are the events that it caused, each with its traceparent; `trace` is the one it came with. `waited_ms`:
    how long it was on its way, 0 if nobody knows. `lasted_ms`: where the first service sees a saga end, how long
    after it began. An operator's act has the act as its `type`, and `by` and `why`.
    """

    saga: str
    type: str
    became: str = Became.DONE
    deed: str = ""
    reason: str = ""
    detail: str = ""
    attempt: int = 1
    delay_ms: int = 0
    waited_ms: int = 0
    lasted_ms: int = 0
    said: Sequence[tuple[str, str]] = ()
    trace: str = ""
    by: str = ""
    why: str = ""


@dataclass(slots=True, kw_only=True)
class Record:
    """What one service did in one batch. `at` is when it was settled, `took_ms` how long it took."""

    service: str
    replica: str
    at: datetime
    took_ms: float
    entries: Sequence[Entry]


Observe = Callable[[Record], None]


class Observers:
    """Whoever looks on, told of every batch once it is settled. None of them can hold it up or hurt it."""

    def __init__(self) -> None:
        self._observers: list[Observe] = []

    def __bool__(self) -> bool:
        return bool(self._observers)

    @contextlib.contextmanager
    def joined_by(self, observe: Observe) -> Iterator[None]:
        """Tell `observe`, too, for a while. It must not wait."""
        self._observers.append(observe)
        try:
            yield
        finally:
            self._observers.remove(observe)

    def tell(self, make: Callable[[], Record]) -> None:
        """Tell all of them of a batch, if there are any; `make` is asked for the record."""
        if not self._observers:
            return
        try:
            record = make()
        except Exception:  # noqa: BLE001 - what was done is done, whoever stumbles over it
            log.exception("what was done could not be told")
            return
        for observe in self._observers:
            try:
                observe(record)
            except Exception:  # noqa: BLE001 - as above
                log.exception("an observer stumbled")


class Gathered:
    """Records that wait to be told together, in order: a message costs the broker the same, whatever is in it."""

    def __init__(self, tell: Callable[[Sequence[Record]], None]) -> None:
        """`tell` is given what was gathered; it must not wait, and not raise."""
        self._tell = tell
        self._records: list[Record] = []
        self._entries = 0
        self._due: asyncio.TimerHandle | None = None

    def add(self, record: Record) -> None:
        """Gather one more; all of them are told when they are many, or when the first has waited long enough."""
        self._records.append(record)
        self._entries += len(record.entries)
        if self._entries >= _MANY:
            self.tell()
        elif self._due is None:
            self._due = asyncio.get_running_loop().call_later(_SECONDS_TO_GATHER, self.tell)

    def tell(self) -> None:
        """Tell what is there, if anything is."""
        if self._due is not None:
            self._due.cancel()
        records, self._records, self._entries, self._due = self._records, [], 0, None
        if records:
            self._tell(records)


def encode(record: Record, *later: Record) -> bytes:
    """Records of one service as the stream holds them: JSON, without what is empty.

    Several are told as if they were one, whose time is that of the last; `batches` says how many entries were of
    each, and when.
    """
    records = (record, *later)
    told: dict[str, Any] = {
        "v": _VERSION,
        "service": record.service,
        "replica": record.replica,
        "at": records[-1].at.isoformat(),
        "took_ms": round(records[-1].took_ms, 3),
        "entries": [_told(entry) for one in records for entry in one.entries],
    }
    if later:
        told["batches"] = [[len(one.entries), one.at.isoformat(), round(one.took_ms, 3)] for one in records]
    return json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _told(entry: Entry) -> dict[str, Any]:
    told: dict[str, Any] = {"saga": entry.saga, "type": entry.type, "became": entry.became}
    # Written out rather than looped over: this runs for each message.
    if entry.deed:
        told["deed"] = entry.deed
    if entry.reason:
        told["reason"] = entry.reason
        told["detail"] = entry.detail
    if entry.attempt != 1:
        told["attempt"] = entry.attempt
    if entry.delay_ms:
        told["delay_ms"] = entry.delay_ms
    if entry.waited_ms:
        told["waited_ms"] = entry.waited_ms
    if entry.lasted_ms:
        told["lasted_ms"] = entry.lasted_ms
    if entry.said:
        told["said"] = entry.said
    if entry.trace:
        told["trace"] = entry.trace
    if entry.by:
        told["by"], told["why"] = entry.by, entry.why
    return told


def decode(body: bytes) -> list[Record]:
    """Read the records that were told together; ValueError if they are none. Anybody may write to a stream."""
    try:
        told = json.loads(body)
        if told["v"] != _VERSION:
            raise ValueError(f"version {told['v']!r} of the history is unknown; use a newer program")
        entries = [_entry(entry) for entry in told["entries"]]
        batches = told.get("batches", [[len(entries), told["at"], told["took_ms"]]])
        sizes = [_size(size) for size, _, _ in batches]
        if sum(sizes) != len(entries):
            raise ValueError(f"{len(entries)} entries are not {sum(sizes)}")
        return [
            Record(
                service=_text(told, "service"),
                replica=_text(told, "replica"),
                at=_moment(at),
                took_ms=_duration(took_ms),
                entries=entries[end - size : end],
            )
            for size, end, (_, at, took_ms) in zip(sizes, accumulate(sizes), batches, strict=True)
        ]
    except (KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise ValueError(f"no record of the history: {type(error).__name__}: {error}") from None


def _entry(told: Mapping[str, Any]) -> Entry:
    said = tuple((str(type_), str(trace)) for type_, trace in told.get("said", ()))
    return Entry(
        saga=_text(told, "saga"),
        type=_text(told, "type"),
        became=Became(told["became"]),
        deed=_text(told, "deed"),
        reason=_text(told, "reason"),
        detail=_text(told, "detail"),
        attempt=_number(told, "attempt", 1),
        delay_ms=_number(told, "delay_ms", 0),
        waited_ms=_number(told, "waited_ms", 0),
        lasted_ms=_number(told, "lasted_ms", 0),
        said=said,
        trace=_text(told, "trace"),
        by=_text(told, "by"),
        why=_text(told, "why"),
    )


def _size(size: object) -> int:
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise TypeError(f"{size!r} is no number of entries")
    return size


def _moment(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError(f"{text!r} has no offset")
    return at


def _text(told: Mapping[str, Any], name: str) -> str:
    value = told.get(name, "")
    if not isinstance(value, str):
        raise TypeError(f"{name} is no text")
    return value


def _number(told: Mapping[str, Any], name: str, default: int) -> int:
    value = told.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _LARGEST:
        raise TypeError(f"{name} is no number, or out of range")
    return value


def _duration(value: object) -> float:
    # Also false for NaN, which would spoil every mean that it gets into.
    if not isinstance(value, int | float) or not 0 <= value <= _LARGEST:
        raise TypeError("took_ms is no number, or out of range")
    return float(value)
