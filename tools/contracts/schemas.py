"""What every message looks like, as JSON Schema that others can use, with an example each.

The models of `common.messages` say it all but for two things: that a text holds no control characters, and what a
time looks like. Here these are said, in the regular expressions of ECMA-262, which JSON Schema speaks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from common import messages, saga
from common.messages import TYPES, Body

Schema = dict[str, Any]

KINDS = "#/components/schemas/"

#: Kinds of values that have a name: what the models say of them, and what a reader is told besides.
_KINDS: Mapping[str, tuple[Any, Schema]] = {
    "Id": (messages.Id, {"description": "Compared byte by byte."}),
    "Amount": (messages.Amount, {"description": "A whole number of points, written without a fraction."}),
    "Time": (
        messages.Time,
        {
            "description": "RFC 3339 with an offset.",
            "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}"
            r"(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})$",
        },
    ),
    "Text": (
        messages.Text,
        {
            "description": "For people; its words may change. No control characters, no lone surrogates.",
            "pattern": r"^[^\u0000-\u001f\u007f-\u009f\u2028\u2029]*$",
        },
    ),
    "Code": (messages.Code, {"description": "Stable, for programs. A later version may know more of them."}),
    "ServiceName": (messages.ServiceName, {"description": "One of the services of the saga."}),
}

#: An example's values by the name of their field; a field without one cannot be published.
_EXAMPLES: Mapping[str, Any] = {
    "payment_id": "p-1",
    "user_id": "ann",
    "reservation_id": "r-1",
    "token": "k-1",
    "top_up_id": "t-1",
    "seat": "A-1",
    "amount": 300,
    "price": 300,
    "balance": 700,
    "attempts": 1,
    "state": "HELD",
    "kind": "completed",
    "expires_at": "2026-11-22T10:10:00Z",
    "held_until": "2026-11-22T10:10:00Z",
    "payment_ids": ["p-1", "p-2"],
    "paid_at": "2026-11-22T10:00:00.100000Z",
    "confirmed_at": "2026-11-22T10:00:00.200000Z",
    "deducted_at": "2026-11-22T10:00:00.300000Z",
    "expired_at": "2026-11-22T10:00:00.400000Z",
    "completed_at": "2026-11-22T10:00:00.500000Z",
    "sent_at": "2026-11-22T10:00:00.600000Z",
    "restored_at": "2026-11-22T10:00:00.700000Z",
    "reverted_at": "2026-11-22T10:00:00.700000Z",
    "cancelled_at": "2026-11-22T10:00:00.700000Z",
}


def kinds() -> dict[str, Schema]:
    """The named kinds of values."""
    return {name: _plain(TypeAdapter(kind).json_schema()) | more for name, (kind, more) in _KINDS.items()}


def payload(type_: str, *, open_ended: bool) -> Schema:
    """The schema of a message's body; `open_ended`: whoever reads it must be ready for fields it does not know."""
    schema = TYPES[type_].model_json_schema()
    required = schema["required"]
    return {
        "type": "object",
        "required": required,
        "properties": {name: _field(field) for name, field in schema["properties"].items()},
        "additionalProperties": open_ended,
    }


def passes_on(type_: str) -> bool:
    """Whether a service that reads such a message passes on the fields it does not know."""
    return TYPES[type_].model_config.get("extra") == "allow"


def description(type_: str) -> str:
    """What a message means, in the words of its model."""
    text = " ".join((TYPES[type_].__doc__ or "").split()).partition(": ")[2]
    return text[:1].upper() + text[1:]


def key_field(type_: str) -> str | None:
    """The field of the body that holds the saga's id, or the command's own; None for what tells of many sagas."""
    return TYPES[type_].key_field if TYPES[type_].key_field in TYPES[type_].model_fields else None


def key(type_: str) -> str:
    """The key of the example."""
    return TYPES[type_].model_validate(example(type_)).key


def example(type_: str) -> dict[str, Any]:
    """A message of this type as it may really travel; KeyError for a field that has no example yet."""
    service = type_.partition(".")[0]
    told: dict[str, Any] = {}
    for name, field in TYPES[type_].model_fields.items():
        if name == "service":
            told[name] = service
        elif name == "reason":
            told[name] = _refusal(type_)
        elif name == "detail":
            told[name] = f"{_refusal(type_).replace('_', ' ')}: an example"
        elif name == "id":
            told[name] = _rejected_id(service)
        elif field.is_required() or not _is_command(TYPES[type_]):
            told[name] = _EXAMPLES[name]
    return told


def _is_command(model: type[Body]) -> bool:
    return any(TYPES[key] is model for service in saga.SERVICES for key in saga.command_keys(service))


def _refusal(type_: str) -> str:
    service = type_.partition(".")[0]
    if type_ == saga.rejected(service):
        command = next((one for one in saga.COMMANDS if one.service == service), None)
        return command.refusals[0] if command and command.refusals else saga.IDEMPOTENCY_CONFLICT
    return (*saga.step_of(service).refusals, saga.RETRIES_SPENT)[0]


def _rejected_id(service: str) -> str:
    key = next((one.key for one in saga.COMMANDS if one.service == service), Body.key_field)
    return str(_EXAMPLES[key])


def _field(schema: Schema) -> Schema:
    """A field's schema: a reference, where its kind has a name."""
    if "anyOf" in schema:
        (kind,) = (one for one in schema["anyOf"] if one != {"type": "null"})
        return {"anyOf": [_field(kind), {"type": "null"}]}
    if "items" in schema:
        return _plain(schema) | {"items": _field(schema["items"])}
    plain = _plain(schema)
    for name, (kind, _) in _KINDS.items():
        if plain == _plain(TypeAdapter(kind).json_schema()):
            return {"$ref": f"{KINDS}{name}"}
    return plain


def _plain(schema: Schema) -> Schema:
    """A schema without pydantic's titles, and with the end of a text as ECMA-262 writes it."""
    kept = {name: value for name, value in schema.items() if name not in {"title", "default"}}
    if "pattern" in kept:
        kept["pattern"] = kept["pattern"].replace(r"\z", "$")
    return dict(sorted(kept.items(), key=lambda item: item[0] != "type"))
