"""How one input, which is bytes and nothing else, names what a target needs: a line of words, then the rest.

A person can read what is kept, and a fuzzer that changes bytes changes words as well.
"""

from __future__ import annotations

from typing import NamedTuple

_LONGEST_LINE = 1024


def split(data: bytes, words: int) -> tuple[list[str], bytes]:
    """So many words from the first line, empty where they are missing, and all that comes after it."""
    line, _, rest = data.partition(b"\n") if b"\n" in data[:_LONGEST_LINE] else (data[:_LONGEST_LINE], b"", b"")
    told = line.decode("utf-8", "replace").split("|")
    return (told + [""] * words)[:words], rest


def join(*words: str, rest: bytes = b"") -> bytes:
    """The input that `split` takes apart like this."""
    return "|".join(words).encode() + b"\n" + rest


class Letter(NamedTuple):
    """A delivery as an input tells it: `properties` are the flags and properties of its content header."""

    service: str
    queue: str
    routing_key: str
    properties: bytes
    body: bytes


def letter(data: bytes) -> Letter:
    """The delivery that an input tells. Two bytes after the line say how long its properties are."""
    (service, queue, key), rest = split(data, 3)
    size = int.from_bytes(rest[:2], "big")
    return Letter(service, queue, key, rest[2 : 2 + size], rest[2 + size :])


def of_letter(told: Letter) -> bytes:
    """The input that `letter` reads like this."""
    size = len(told.properties).to_bytes(2, "big")
    return join(told.service, told.queue, told.routing_key, rest=size + told.properties + told.body)
