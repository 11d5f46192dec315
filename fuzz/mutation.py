"""Small changes of an input that keep it readable, so that a search gets past the first check.

The guide of a coverage-guided fuzzer sees Python, but not the JSON scanner nor pydantic, which are compiled:
changes of JSON as JSON, and of headers as headers, take its place there.
"""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from typing import Any

from common.messages import TYPES
from fuzz import samples
from fuzz.inputs import join, letter, of_letter, split

_VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        0,
        -1,
        1,
        2**63,
        -(2**63) - 1,
        10**300,
        0.5,
        -0.0,
        1e300,
        "",
        "a",
        "p-1",
        [],
        {},
        [[]],
        {"": {}},
    ),
    *("\ud800", "\x00", "\x1b[0m", "\u202e", "\N{SNOWMAN}", "x" * 600, "2026-11-22T10:00:00Z", "9" * 20),
    *("0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2026-11-22t10:00:00.123456789z"),
    *(float("nan"), float("inf"), -(10**400), 10**4000),
)
#: The types of fields that RabbitMQ knows, and how many bytes each takes; the others tell their length.
_SIZES = {
    b"t": 1,
    b"b": 1,
    b"B": 1,
    b"s": 2,
    b"u": 2,
    b"i": 4,
    b"I": 4,
    b"l": 8,
    b"f": 4,
    b"d": 8,
    b"D": 5,
    b"T": 8,
}
_KINDS = (*_SIZES, b"V", b"S", b"A", b"F", b"x")


def mutated(target: str, data: bytes, chance: random.Random) -> bytes:
    """One changed input of a target; the same chance makes the same change."""
    return _WAYS[target](data, chance)


def _body(data: bytes, chance: random.Random) -> bytes:
    words, body = split(data, 3)
    if chance.random() < 0.1:
        words[0] = chance.choice(sorted(TYPES))
        return join(*words, rest=samples.body(words[0]))
    if chance.random() < 0.1:
        words[chance.randrange(1, 3)] = chance.choice(["", "application/json", "utf-8", "gzip", "\ufffd"])
    return join(*words, rest=json_changed(body, chance))


def _letter(data: bytes, chance: random.Random) -> bytes:
    told = letter(data)
    match chance.randrange(4):
        case 0:
            told = told._replace(body=json_changed(told.body, chance))
        case 1:
            told = told._replace(properties=properties_changed(told.properties, chance))
        case 2:
            keys = [*TYPES, f"{told.service}.return", f"{told.service}.dead", told.routing_key + "x", "", "\x00"]
            told = told._replace(routing_key=chance.choice(keys))
        case _:
            told = told._replace(properties=noisy(told.properties, chance), body=noisy(told.body, chance))
    return of_letter(told._replace(properties=told.properties[:0xFFFF]))


def json_changed(data: bytes, chance: random.Random) -> bytes:
    """A JSON text with one thing changed; what is no JSON gets noise."""
    try:
        document = json.loads(data)
        for _ in range(chance.randrange(1, 3)):
            document = _node_changed(document, chance)
        text = json.dumps(document, ensure_ascii=chance.random() < 0.5)
    except (ValueError, RecursionError):
        return noisy(data, chance)
    if chance.random() < 0.1 and text.endswith("}") and len(text) > 2:
        text = f"{text[:-1]}, {text[1:]}"
    return text.encode("utf-8", "surrogatepass")


def _node_changed(node: Any, chance: random.Random) -> Any:  # noqa: ANN401 - JSON
    if chance.random() < 0.25 or not node or not isinstance(node, dict | list):
        return chance.choice(_VALUES)
    if isinstance(node, list):
        place = chance.randrange(len(node))
        return [*node[:place], _node_changed(node[place], chance), *node[place + chance.randrange(2) :]]
    changed = dict(node)
    name = chance.choice(list(changed))
    match chance.randrange(5):
        case 0:
            del changed[name]
        case 1:
            changed[str(chance.choice(_VALUES))] = chance.choice(_VALUES)
        case 2:
            changed[name] = [changed[name]] if chance.random() < 0.5 else {name: changed[name]}
        case _:
            changed[name] = _node_changed(changed[name], chance)
    return changed


def properties_changed(data: bytes, chance: random.Random) -> bytes:
    """Other properties, with a table of headers of any types."""
    if chance.random() < 0.3:
        return noisy(data, chance)
    given: dict[str, bytes] = {}
    for name in chance.sample(sorted(set(samples.FLAGS) - {"headers"}), chance.randrange(4)):
        given[name] = chance.choice([b"", b"a", b"\xff", b"saga-point", chance.randbytes(9), b"x" * 255])
    for name, size in (("timestamp", 8), ("delivery_mode", 1), ("priority", 1)):
        if name in given:
            given[name] = chance.randbytes(size)
    return samples.properties(_table(chance, 3), **given)


def _table(chance: random.Random, depth: int) -> bytes:
    names = [b"x-type", b"x-attempt", b"x-reason", b"x-death", b"x-delivery-count", b"traceparent", b"CC", b"a"]
    return b"".join(
        samples.entry(chance.choice(names), *_field(chance, depth)) for _ in range(chance.randrange(4))
    )


def _field(chance: random.Random, depth: int) -> tuple[bytes, bytes]:
    kind = chance.choice(_KINDS) if chance.random() < 0.95 else b"?"
    if kind in {b"S", b"A", b"F", b"x"}:
        inside = chance.choice([b"", b"payment.pay", b"\xff", b"1", chance.randbytes(12)])
        if kind == b"F":
            inside = _table(chance, depth - 1) if depth else b""
        if kind == b"A":
            few = range(chance.randrange(3) if depth else 0)
            inside = b"".join(b"".join(_field(chance, depth - 1)) for _ in few)
        return kind, samples.long(inside)
    value = chance.choice([struct.pack(">Q", 2**62), bytes(8), b"\xff" * 8, b"\1\2\3\4\5\6\7\x08"])
    return kind, value[: _SIZES.get(kind, 0)]


def noisy(data: bytes, chance: random.Random) -> bytes:
    """Some bytes changed, put in, taken out or said twice."""
    changed = bytearray(data)
    for _ in range(chance.randrange(1, 5)):
        at = chance.randrange(len(changed) + 1)
        match chance.randrange(4):
            case 0:
                changed[at:at] = chance.randbytes(chance.randrange(1, 5))
            case 1:
                del changed[at : at + chance.randrange(1, 9)]
            case 2:
                changed[at : at + 1] = chance.randbytes(1)
            case _:
                changed[at:at] = changed[at : at + chance.randrange(1, 33)]
    return bytes(changed)


_WAYS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "bodies": _body,
    "wire": properties_changed,
    "deliveries": _letter,
    "letters": _letter,
    "records": json_changed,
    "frames": noisy,
}
