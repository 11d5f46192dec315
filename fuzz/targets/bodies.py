"""Bodies: `decode` gives a message that says itself again in the same words, or a reason fit for a header."""

from __future__ import annotations

import re

from common.messages import MAX_DETAIL, Body, Malformed, UnknownType, decode, decode_stored, printable
from fuzz.inputs import split

_CODE = re.compile(r"[a-z0-9_]{1,64}")
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def run(data: bytes) -> None:
    """One input: type, content type and content encoding on a line, and the body."""
    (type_, content_type, encoding), body = split(data, 3)
    try:
        content = decode(type_, body, content_type=content_type or None, content_encoding=encoding or None)
    except Malformed as finding:
        _is_clear(finding.reason, finding.detail)
    except UnknownType:
        pass
    else:
        _is_sound(type_, content)


def _is_clear(reason: str, detail: str) -> None:
    """It goes into logs and headers, and is read by a person."""
    assert _CODE.fullmatch(reason), reason
    assert detail == printable(detail)
    assert len(detail) <= MAX_DETAIL


def _is_sound(type_: str, content: Body) -> None:
    """What was accepted can be stored, published and read again, and stays what it was."""
    assert _ID.fullmatch(content.key)
    again = content.encode()
    assert decode_stored(type_, again).encode() == again, "a service reads what it has stored"
    assert decode(type_, again.encode()).encode() == again, "another service reads what this one says"
    assert content.fingerprint() == decode(type_, again.encode()).fingerprint()
