"""Whether a contract can take the place of another without anybody noticing: pure, over two AsyncAPI documents.

Two directions, two rules. What services *read*, clients have written down in their programs: whatever was accepted
must stay accepted. What services *say*, others have learnt to read: whatever is said must still be what they
expect. An event that a service waits for is both, since versions run side by side while they are replaced, and old
messages lie in queues. What cannot be judged counts as incompatible.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tools.contracts.narrowing import Difference, Direction, differences

_Object = Mapping[str, Any]

#: What to do about a break; ends with the way out where it is meant.
_KEEP = "Keep it as it was, or add a new message type beside it and let both live until nobody uses the old one."
_MEANT = (
    "If the break is meant, tell the operators in CHANGELOG.md, raise the version, and accept it with "
    "`python -m tools.contracts release`."
)


@dataclass(frozen=True, slots=True)
class Break:
    """A change that somebody would notice: where, what, and how to avoid it."""

    where: str
    what: str
    instead: str = _KEEP

    def __str__(self) -> str:
        return f"{self.where}: {self.what}. {self.instead}"


def told(breaks: list[Break]) -> str:
    """All breaks as text for a person, and the way out where they are meant; empty if there are none."""
    return "\n".join([*map(str, breaks), _MEANT]) if breaks else ""


def breaks(old: _Object, new: _Object) -> list[Break]:
    """Every change from one contract to another that a client, an observer or an older replica would notice."""
    at_any_step = "x-reasons-of-any-step"
    found = [*_exchange(old, new), *_reasons("any step", old["info"][at_any_step], new["info"][at_any_step])]
    before, now = old["components"]["messages"], new["components"]["messages"]
    for type_, message in before.items():
        read, said = _is(old, "receive", type_), _is(old, "send", type_)
        if type_ not in now:
            found.append(Break(type_, "is gone, but clients and observers may use it"))
            continue
        if said and not _is(new, "send", type_):
            found.append(Break(type_, "is not said any more, but somebody may wait for it"))
        if read and not _is(new, "receive", type_):
            found.append(Break(type_, "is not read any more, but somebody may publish it"))
        found += _message(type_, message, now[type_])
        if read:
            found += _schemas(type_, "payload", Direction.READ, old, new)
        if said:
            found += _schemas(type_, "payload", Direction.SAID, old, new)
        # Services need no header, so those of their own events are judged only as what is said.
        found += _schemas(type_, "headers", Direction.SAID if said else Direction.READ, old, new)
        if read and said and message["x-unknown-fields"] == "refused":
            found += _unknown_to_older_replicas(type_, old, new)
    return found


def _exchange(old: _Object, new: _Object) -> Iterator[Break]:
    for name, bindings in old["components"]["channelBindings"].items():
        now = new["components"]["channelBindings"].get(name)
        if now != bindings:
            yield Break(f"the exchange of `{name}` channels", f"was {bindings}, is {now}")


def _is(document: _Object, action: str, type_: str) -> bool:
    """Whether some service receives, or sends, messages of this type."""
    return any(
        operation["action"] == action and reference["$ref"].rpartition("/")[2] == type_
        for operation in document["operations"].values()
        for reference in operation["messages"]
    )


def _message(type_: str, old: _Object, new: _Object) -> Iterator[Break]:
    for what in ("contentType", "x-compensates", "x-compensated-by"):
        if old.get(what) != new.get(what):
            yield Break(type_, f"its {what} was {old.get(what)}, is {new.get(what)}")
    if _where(old) != _where(new):
        yield Break(type_, "its key moved to another field")
    if old["x-unknown-fields"] == "passed on" != new["x-unknown-fields"]:
        yield Break(type_, "unknown fields are not passed on any more: an older replica loses what newer ones say")
    yield from _reasons(type_, old.get("x-reasons", {}), new.get("x-reasons", {}))


def _where(message: _Object) -> str | None:
    """The field that holds the key; None for what tells of many sagas."""
    return message["correlationId"]["location"] if "correlationId" in message else None


def _reasons(where: str, old: _Object, new: _Object) -> Iterator[Break]:
    gone = [code for code in old if code not in new]
    if gone:
        yield Break(where, f"reason codes are gone: {', '.join(gone)}", "Codes are stable; keep them.")


def _schemas(type_: str, part: str, direction: Direction, old: _Object, new: _Object) -> Iterator[Break]:
    before, now = (document["components"]["messages"][type_][part] for document in (old, new))
    for difference in differences(resolved(before, old), resolved(now, new), direction):
        yield Break(_place(type_, part, difference), difference.what, difference.instead)


def _place(type_: str, part: str, difference: Difference) -> str:
    header = "header " if part == "headers" else ""
    return f"{type_}, {header}{difference.at}" if difference.at else type_


def _unknown_to_older_replicas(type_: str, old: _Object, new: _Object) -> Iterator[Break]:
    """Services that wait for an event and refuse unknown fields would park it while they are being replaced."""
    before, now = (
        resolved(document["components"]["messages"][type_]["payload"], document)["properties"]
        for document in (old, new)
    )
    for name in now:
        if name not in before:
            yield Break(
                f"{type_}, {name}",
                "is new, and services of the released version refuse fields that they do not know",
                "First release a version that lets unknown fields of this event pass; then one that says it.",
            )


def resolved(schema: Any, document: _Object) -> Any:  # noqa: ANN401 - JSON
    """A schema with its references to the document replaced by what they name."""
    if isinstance(schema, Mapping):
        if "$ref" in schema:
            target: Any = document
            for part in schema["$ref"].removeprefix("#/").split("/"):
                target = target[part]
            return resolved(target, document)
        return {name: resolved(value, document) for name, value in schema.items()}
    return [resolved(value, document) for value in schema] if isinstance(schema, list) else schema
