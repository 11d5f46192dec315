"""Which differences between two JSON schemas hurt whom, by the direction in which the messages travel.

Only as much of JSON Schema as the contract uses. A rule that is not known here, and differs, is told as a
difference: silence would be a promise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

_Schema = Mapping[str, Any]


class Direction(Enum):
    """Which way messages travel, as the services see it."""

    READ = auto()
    """Others write them: what was accepted must stay accepted."""
    SAID = auto()
    """Others read them: what is said must be what they learnt to expect."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference that somebody would notice: where (empty: the whole), what, and what to do instead."""

    at: str
    what: str
    instead: str


#: Rules that say nothing about which values are right.
_WORDS = {"description", "title", "examples"}
_UPPER = {"maximum": "the largest value", "maxLength": "the longest text", "maxItems": "the longest list"}
_LOWER = {"minimum": "the smallest value", "minLength": "the shortest text", "minItems": "the shortest list"}
_BY_KIND = {"type", "anyOf", "enum", "const"}
_BY_FIELD = {"properties", "required", "additionalProperties"}

_READ_ON = "Go on accepting what was accepted: existing programs publish it."
_SAY_ON = "Go on saying what was said: existing programs read it."
_OPTIONAL = "Make it optional, with a default for those who do not say it."
_IGNORE = "Keep it, optional, and ignore it."


def differences(old: _Schema, new: _Schema, direction: Direction, at: str = "") -> Iterator[Difference]:
    """Every difference by which `new` would surprise those who know `old`. References are resolved before."""
    old, new = _flat(old), _flat(new)
    yield from _kinds(old, new, direction, at)
    yield from _bounds(old, new, direction, at)
    yield from _others(old, new, direction, at)
    if "properties" in old or "properties" in new:
        yield from _fields(old, new, direction, at)
    if "items" in old and "items" in new:
        yield from differences(old["items"], new["items"], direction, f"{at}[]")


def _flat(schema: _Schema) -> dict[str, Any]:
    """A schema with "this, or null" as one list of types."""
    kinds = [one for one in schema.get("anyOf", ()) if one != {"type": "null"}]
    if len(kinds) == 1 and len(schema["anyOf"]) == 2:
        rest = {name: value for name, value in schema.items() if name != "anyOf"}
        return rest | dict(kinds[0]) | {"type": [*_types(kinds[0]), "null"]}
    return dict(schema)


def _types(schema: _Schema) -> list[str]:
    kind = schema.get("type", [])
    return [kind] if isinstance(kind, str) else list(kind)


def _values(schema: _Schema) -> set[str] | None:
    """The only values that a schema allows, as text; None if it does not list them."""
    if "const" in schema:
        return {repr(schema["const"])}
    return {repr(value) for value in schema["enum"]} if "enum" in schema else None


def _wide(kinds: set[str]) -> set[str]:
    """Every whole number is a number, too."""
    return kinds | ({"integer"} if "number" in kinds else set())


def _kinds(old: _Schema, new: _Schema, direction: Direction, at: str) -> Iterator[Difference]:
    narrow, wide = (old, new) if direction is Direction.READ else (new, old)
    # No type at all allows any, unless the values are listed.
    untyped = not _types(narrow) and _values(narrow) is None
    if _types(wide) and (untyped or not set(_types(narrow)) <= _wide(set(_types(wide)))):
        yield _surprise(at, f"was {_told(old)}, is {_told(new)}", direction)
    allowed, used = _values(wide), _values(narrow)
    if allowed is not None and (used is None or not used <= allowed):
        yield _surprise(at, f"its values were {_listed(old)}, are {_listed(new)}", direction)
    if ("anyOf" in old or "anyOf" in new) and old.get("anyOf") != new.get("anyOf"):
        yield _surprise(at, "its alternatives changed, which is not judged here", direction)


def _bounds(old: _Schema, new: _Schema, direction: Direction, at: str) -> Iterator[Difference]:
    for rule, words in (_UPPER | _LOWER).items():
        before, now = old.get(rule), new.get(rule)
        if before == now:
            continue
        # Without a bound everything is allowed; a larger upper or a smaller lower bound allows more.
        allows_more = now is None or (before is not None and (now > before) == (rule in _UPPER))
        if allows_more == (direction is Direction.SAID):
            yield _surprise(at, f"{words} was {_bound(before)}, is {_bound(now)}", direction)


def _others(old: _Schema, new: _Schema, direction: Direction, at: str) -> Iterator[Difference]:
    """Rules whose strictness cannot be compared: a new one is narrower, a lost one wider, a changed one both."""
    known = _WORDS | _BY_KIND | _BY_FIELD | _UPPER.keys() | _LOWER.keys()
    if "items" in old and "items" in new:
        known |= {"items"}
    for rule in sorted((old.keys() | new.keys()) - known):
        if old.get(rule) == new.get(rule):
            continue
        if rule not in new:
            hurts = direction is Direction.SAID
        elif rule not in old:
            hurts = direction is Direction.READ
        else:
            hurts = True
        if hurts:
            yield _surprise(at, f"its {rule} was {old.get(rule)}, is {new.get(rule)}", direction)


def _fields(old: _Schema, new: _Schema, direction: Direction, at: str) -> Iterator[Difference]:
    before, now = old.get("properties", {}), new.get("properties", {})
    needed, needs = set(old.get("required", ())), set(new.get("required", ()))
    for name in before:
        place = f"{at}.{name}" if at else name
        if name in now:
            yield from differences(before[name], now[name], direction, place)
        elif direction is Direction.SAID:
            yield Difference(place, "is gone, and existing programs read it", _SAY_ON)
        elif new.get("additionalProperties") is False:
            yield Difference(place, "is gone, so that messages with it are refused", _IGNORE)
    for name in now:
        place = f"{at}.{name}" if at else name
        if direction is Direction.READ and name in needs - needed:
            said = "is required now" if name in before else "is new and required"
            yield Difference(place, f"{said}, and existing programs do not say it", _OPTIONAL)
        if direction is Direction.SAID and name in needed - needs:
            yield Difference(place, "may be missing now, and existing programs count on it", _SAY_ON)
    closes = old.get("additionalProperties", True) is not False and new.get("additionalProperties") is False
    if closes and direction is Direction.READ:
        yield Difference(at, "refuses unknown fields now", _READ_ON)


def _surprise(at: str, what: str, direction: Direction) -> Difference:
    return Difference(at, what, _READ_ON if direction is Direction.READ else _SAY_ON)


def _told(schema: _Schema) -> str:
    return " or ".join(_types(schema)) or "of any type"


def _listed(schema: _Schema) -> str:
    values = _values(schema)
    return "not listed" if values is None else ", ".join(sorted(values))


def _bound(value: float | None) -> str:
    return "not limited" if value is None else f"{value:,}"
