"""What the history is told of an operator's act; a letter that was discarded is kept whole in there.

The records of services are never confirmed. These are, and before the letter goes: who did what, and why, is all
that is left of it. What is kept stands beside the entry, under `kept`, where `common.history` does not look.
"""

from __future__ import annotations

import base64
import json
from datetime import datetime
from enum import StrEnum
from typing import Any

from common import recovery
from common.messages import printable
from common.telemetry import valid_traceparent
from ops.letters.letter import Letter
from ops.recording import Signature, entry_of, record_of

#: Bytes of a body that are kept; no message of the language is longer.
KEPT_BYTES = 64 * 1024
_OWN_HEADERS = (
    recovery.TYPE,
    recovery.ATTEMPT,
    recovery.REASON,
    recovery.DETAIL,
    recovery.FIRST_FAILED_AT,
    recovery.FAILED_IN,
    "traceparent",
)


class Act(StrEnum):
    """What an operator does to a letter."""

    REPLAY = "replay"
    DISCARD = "discard"
    REVEAL = "reveal"
    """To see what in it is about a person."""


def of_act(act: Act, letter: Letter, signature: Signature, *, now: datetime) -> bytes:
    """The record of an act, as the stream holds it; made before the act."""
    entry = entry_of(
        act,
        signature,
        about=letter.key,
        reason=printable(letter.reason) if letter.reason else "no_reason",
        detail=f"{letter.type} in {letter.queue}, message {letter.id}",
        attempt=letter.attempt,
        trace=valid_traceparent(letter.headers.get("traceparent")) or "",
    )
    told = json.loads(record_of(entry, now=now))
    if act is Act.DISCARD:
        told["kept"] = _kept(letter)
    return json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _kept(letter: Letter) -> dict[str, Any]:
    """A letter's body, and what was written on it."""
    body = letter.body[:KEPT_BYTES]
    try:
        text, encoding = body.decode(), "utf-8"
    except UnicodeDecodeError:
        text, encoding = base64.b64encode(body).decode(), "base64"
    return {
        "queue": letter.queue,
        "type": letter.type[:255],
        "message_id": letter.id,
        "headers": {
            name: value[:512] if isinstance(value, str) else value
            for name in _OWN_HEADERS
            if isinstance(value := letter.headers.get(name), str | int)
        },
        "encoding": encoding,
        "body": text,
        "bytes": len(letter.body),
    }
