"""What travels, as AsyncAPI's message objects: body, headers, key, reasons, and what undoes what.

Whatever AsyncAPI has no word for stands in extensions: `x-reasons`, `x-compensates`, `x-compensated-by`, and in
`x-unknown-fields` what a service that reads the message does with fields that it does not know.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from common import saga
from common.outbox import message_id
from tools.contracts import schemas
from tools.contracts.schemas import Schema

BINDING = "0.3.0"
_COMMAND_HEADERS = "CommandHeaders"
_TRACE = {"type": "string", "pattern": "^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$"}
_Object = dict[str, Any]


def message(type_: str, reasons: Mapping[str, str]) -> _Object:
    """A message object; its schemas are those of `schemas_of`."""
    example = schemas.example(type_)
    key = schemas.key_field(type_)
    told_of_all: _Object = {
        "name": type_,
        "title": type_,
        "summary": schemas.description(type_),
        "contentType": "application/json",
        "payload": {"$ref": f"{schemas.KINDS}{_body(type_)}"},
        "bindings": {"amqp": {"messageType": type_, "bindingVersion": BINDING}},
    }
    if key is not None:
        told_of_all["correlationId"] = {
            "description": "The saga's id, or the command's own; the AMQP property `correlation_id` of events.",
            "location": f"$message.payload#/{key}",
        }
    if _is_command(type_):
        own: _Object = {
            "headers": {"$ref": f"{schemas.KINDS}{_COMMAND_HEADERS}"},
            "examples": [{"name": "as it is typed", "payload": example}],
        }
    else:
        own = {
            "description": _properties(type_),
            "headers": {"$ref": f"{schemas.KINDS}{_head(type_)}"},
            "examples": [
                {"name": "as it travels", "headers": _headers(type_, schemas.key(type_)), "payload": example}
            ],
        }
    return told_of_all | own | _extensions(type_, reasons)


def schemas_of(types: Iterable[str]) -> dict[str, Schema]:
    """The schemas that messages of these types refer to, by name."""
    listed = list(types)
    heads = {_head(type_): _header_schema(type_) for type_ in listed if not _is_command(type_)}
    command_headers: Schema = {
        "type": "object",
        "description": "None is needed. With a `traceparent` the saga joins the trace of its client.",
        "properties": {"traceparent": _TRACE},
    }
    bodies = {_body(type_): schemas.payload(type_, open_ended=not _is_command(type_)) for type_ in listed}
    return {_COMMAND_HEADERS: command_headers} | heads | schemas.kinds() | bodies


def told(codes: Iterable[str], reasons: Mapping[str, str]) -> dict[str, str]:
    """Codes with what they mean; KeyError for one that has no words yet."""
    return {code: reasons[code] for code in codes}


def _extensions(type_: str, reasons: Mapping[str, str]) -> _Object:
    extensions: _Object = {"x-unknown-fields": _unknown_fields(type_)}
    for step in saga.SAGA:
        if type_ == step.failed:
            extensions["x-reasons"] = told(step.refusals, reasons)
        if type_ == step.compensation:
            extensions["x-compensates"] = step.emits
        if type_ == step.emits and step.compensation:
            extensions["x-compensated-by"] = step.compensation
        if type_ == saga.rejected(step.service):
            commands = [command for command in saga.COMMANDS if command.service == step.service]
            codes = [code for command in commands for code in command.refusals]
            extensions["x-reasons"] = told(codes, reasons)
    return extensions


def _properties(type_: str) -> str:
    """How an event travels, as far as AsyncAPI's binding has no field for it."""
    service = _sender(type_)
    return (
        "AMQP properties: `message_id` (always the same for the same saga and type), `correlation_id`, "
        f"`type` {type_}, `app_id` {service}, `timestamp`, and `user_id`, which the broker vouches for. "
        "A CloudEvent 1.0 in binary mode; `traceparent` is W3C's."
    )


def _unknown_fields(type_: str) -> str:
    """What becomes of a field that this version does not know."""
    if not (_is_command(type_) or saga.is_awaited(type_)):
        return "never read by a service"
    return "passed on" if schemas.passes_on(type_) else "refused"


def _headers(type_: str, key: str) -> dict[str, str]:
    """The headers of an example event: CloudEvents 1.0 in binary mode, and W3C's trace context."""
    return {
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "cloudEvents_specversion": "1.0",
        "cloudEvents_id": message_id(key, type_),
        "cloudEvents_source": _source(type_),
        "cloudEvents_type": type_,
        "cloudEvents_subject": key,
        "cloudEvents_time": "2026-11-22T10:00:00.654321+00:00",
    }


def _source(type_: str) -> str:
    return f"/concert-saga/{_sender(type_)}"


def _header_schema(type_: str) -> Schema:
    """Headers that every event of this type has."""
    properties: Schema = {
        "traceparent": _TRACE,
        "cloudEvents_specversion": {"const": "1.0"},
        "cloudEvents_id": {"type": "string", "format": "uuid"},
        "cloudEvents_source": {"const": _source(type_)},
        "cloudEvents_type": {"const": type_},
        "cloudEvents_subject": {"$ref": f"{schemas.KINDS}Id"},
        "cloudEvents_time": {"$ref": f"{schemas.KINDS}Time"},
    }
    return {"type": "object", "required": list(properties), "properties": properties}


def _sender(type_: str) -> str:
    return next(service for service in saga.SERVICES if type_ in saga.emitted_keys(service))


def _is_command(type_: str) -> bool:
    return any(type_ in saga.command_keys(service) for service in saga.SERVICES)


def _body(type_: str) -> str:
    return f"{type_}.body"


def _head(type_: str) -> str:
    return f"{type_}.headers"
