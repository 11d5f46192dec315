"""docs/asyncapi.yaml: the whole contract as AsyncAPI 3, from the saga table, the topology and the models.

A channel is a routing key of the one exchange, but for `<service>.failed`: whoever undoes its part binds
`*.failed`, so the failures are one channel with a parameter. Whatever AsyncAPI has no word for stands under
`x-saga`: which step an operation does, what it emits, with which reasons it refuses, and what undoes it.
"""

from __future__ import annotations

import textwrap
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from common import saga, topology
from common.outbox import is_mandatory
from tools.contracts import schemas, speech
from tools.contracts.speech import BINDING

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/asyncapi.yaml"

_NOTE = "# Written by `python -m tools.generate`. Change the code, not this file."
_FAILURES = "failed"
_Object = dict[str, Any]

_INTRODUCTION = f"""
A person pays for a held concert seat. Five services own a step each; they meet on the topic exchange
`{topology.EVENTS}` and never call one another. The routing key is the message's type. Clients publish commands
and may listen to events; a saga's id is its `payment_id`, and the client chooses it.

Delivery is at least once, in no promised order between sagas. Publishing the same command once more does nothing
twice and repeats the answer; the same id with other content is refused (`{saga.IDEMPOTENCY_CONFLICT}`).

Commands are read strictly: fields that are not listed here are refused. Readers of events ignore fields, and
accept reason codes, that they do not know, because a later version may add some; it removes and changes none.
"""


def page(reasons: Mapping[str, str], any_time: Mapping[str, str]) -> str:
    """docs/asyncapi.yaml; `reasons` explains the codes of the saga table, `any_time` those of any step."""
    text = yaml.dump(
        document(reasons, any_time), Dumper=_Plain, sort_keys=False, allow_unicode=True, width=110, indent=2
    )
    return f"{_NOTE}\n{text}"


def document(reasons: Mapping[str, str], any_time: Mapping[str, str]) -> _Object:
    """The contract as AsyncAPI's own objects; KeyError for a reason, or a field, that has no words yet."""
    types = [key for key in saga.vocabulary() if not key.endswith(".failed") or saga.may_fail(key)]
    return {
        "asyncapi": "3.0.0",
        "id": "urn:concert-saga",
        "info": {
            "title": "Concert Saga",
            "version": tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"],
            "description": _wrapped(_INTRODUCTION),
            "contact": {"name": "The maintainers of Concert Saga"},
            "tags": [{"name": service, "description": _role(service)} for service in saga.SERVICES],
            "x-reasons-of-any-step": dict(any_time),
        },
        "defaultContentType": "application/json",
        "servers": {"broker": _server()},
        "channels": _channels(types),
        "operations": _operations(reasons),
        "components": {
            "securitySchemes": {
                "user": {
                    "type": "userPassword",
                    "description": "A RabbitMQ user. Give clients the right to publish commands only.",
                }
            },
            "messages": {type_: speech.message(type_, reasons) for type_ in types},
            "schemas": speech.schemas_of(types),
            "channelBindings": {"topic": {"amqp": _topic()}},
            "operationTraits": _operation_traits(),
        },
    }


def _wrapped(text: str) -> str:
    """Markdown as lines that a person can read."""
    return "\n\n".join(textwrap.fill(paragraph, 100) for paragraph in text.strip().split("\n\n")) + "\n"


# Where


def _server() -> _Object:
    return {
        "host": "{host}:{port}",
        "pathname": "/{vhost}",
        "protocol": "amqp",
        "protocolVersion": "0.9.1",
        "description": "RabbitMQ 3.10 or newer. `make up` starts one on this machine and prints its address.",
        "variables": {
            "host": {"default": "localhost"},
            "port": {"default": "5672"},
            "vhost": {
                "default": "%2F",
                "description": "The virtual host, percent-encoded; the default one is `/`.",
            },
        },
        "security": [{"$ref": "#/components/securitySchemes/user"}],
    }


def _channels(types: Iterable[str]) -> _Object:
    channels: _Object = {}
    for type_ in types:
        channel = channels.setdefault(_channel(type_), _new_channel(type_))
        channel["messages"][type_] = {"$ref": f"#/components/messages/{type_}"}
    return channels


def _new_channel(type_: str) -> _Object:
    channel: _Object = {"address": type_, "title": type_}
    if type_.endswith(".failed"):
        services = [step.service for step in saga.SAGA if step.refusals]
        parameter = {"enum": services, "description": "Where the saga failed, or was found to have failed."}
        channel = {
            "address": f"{{service}}.{_FAILURES}",
            "title": saga.ANY_FAILED,
            "description": "The way back: each service that hears a failure undoes its own part, alone.",
            "parameters": {"service": parameter},
        }
    return channel | {
        "messages": {},
        "servers": [{"$ref": "#/servers/broker"}],
        "bindings": {"$ref": "#/components/channelBindings/topic"},
        "x-bound-queues": {
            binding.queue: binding.key
            for binding in topology.derive(()).bindings
            if binding.exchange == topology.EVENTS and binding.key == saga.binding_of(type_)
        },
    }


def _topic() -> _Object:
    exchange = {"name": topology.EVENTS, "type": "topic", "durable": True, "autoDelete": False}
    return {"is": "routingKey", "exchange": exchange, "bindingVersion": BINDING}


def _channel(type_: str) -> str:
    return _FAILURES if type_.endswith(".failed") else type_


# Who does what


def _operations(reasons: Mapping[str, str]) -> _Object:
    operations: _Object = {}
    for service in saga.SERVICES:
        for key in (*saga.command_keys(service), *saga.event_keys(service)):
            operations[f"{service}-receives-{_heard(key)}"] = _receives(service, key, reasons)
        for key in saga.emitted_keys(service):
            operations[f"{service}-sends-{key}"] = _sends(service, key)
    return operations


def _heard(key: str) -> str:
    return _FAILURES if key == saga.ANY_FAILED else key


def _receives(service: str, key: str, reasons: Mapping[str, str]) -> _Object:
    is_failure = key == saga.ANY_FAILED
    types = [step.failed for step in saga.SAGA if step.refusals] if is_failure else [key]
    return _operation("receive", service, types, "consumed", _what_it_does(service, key)) | {
        "x-saga": _part(service, key, reasons)
    }


def _sends(service: str, key: str) -> _Object:
    return _operation(
        "send", service, [key], "awaited" if is_mandatory(key) else "observed", schemas.description(key)
    )


def _operation(action: str, service: str, types: list[str], trait: str, summary: str) -> _Object:
    channel = f"#/channels/{_channel(types[0])}"
    return {
        "action": action,
        "channel": {"$ref": channel},
        "summary": summary,
        "tags": [{"name": service}],
        "traits": [{"$ref": f"#/components/operationTraits/{trait}"}],
        "messages": [{"$ref": f"{channel}/messages/{type_}"} for type_ in types],
    }


def _what_it_does(service: str, key: str) -> str:
    step = saga.step_of(service)
    if key == saga.ANY_FAILED:
        if step.compensation:
            return "Undoes its part of the saga, or remembers never to do it."
        return "Remembers never to do its part." if step.pivot else "Tells the user that the payment failed."
    if key == step.on:
        return f"Does step {saga.SAGA.index(step) + 1} of the saga."
    if key == saga.PIVOT.emits:
        return f"Completes the payment, which was provisional until now: `{saga.COMPLETED}`."
    if key == saga.SETTLED:
        return "Notes that these sagas are complete: nothing more is expected of them, and nothing can fail."
    return schemas.description(key)


def _part(service: str, key: str, reasons: Mapping[str, str]) -> _Object:
    """What AsyncAPI has no word for: the place of an operation in the saga."""
    step = saga.step_of(service)
    if key == saga.ANY_FAILED:
        undoing = {"undoes": step.emits, "emits": [step.compensation]} if step.compensation else {}
        telling = {} if step.refusals else {"emits": [step.emits]}
        return undoing or telling or {"emits": []}
    if key == step.on:
        part: _Object = {"step": saga.SAGA.index(step) + 1, "emits": [step.emits]}
        part |= {"pivot": True} if step.pivot else {}
        part |= (
            {"fails-with": step.failed, "reasons": speech.told(step.refusals, reasons)} if step.refusals else {}
        )
        return part | ({"undone-by": step.compensation} if step.compensation else {})
    if key == saga.PIVOT.emits:
        return {"emits": [saga.COMPLETED, saga.SETTLED]}
    if key == saga.SETTLED:
        return {"emits": []}
    command = next(one for one in saga.COMMANDS if one.on == key)
    answers = [command.answer, saga.rejected(service)]
    return {"emits": answers, "reasons": speech.told(command.refusals, reasons)}


def _role(service: str) -> str:
    step = saga.step_of(service)
    pivot = "; the pivot: before it everything can be undone, after it nothing is" if step.pivot else ""
    return f"Step {saga.SAGA.index(step) + 1}: on `{step.on}`, emits `{step.emits}`{pivot}."


def _operation_traits() -> _Object:
    sent = {"deliveryMode": 2, "timestamp": True, "bindingVersion": BINDING}
    return {
        "awaited": {
            "description": "Published persistently, mandatory and confirmed, since a service waits for it.",
            "bindings": {"amqp": sent | {"mandatory": True}},
        },
        "observed": {
            "description": "Published persistently and confirmed, for whoever listens; it may go nowhere.",
            "bindings": {"amqp": sent | {"mandatory": False}},
        },
        "consumed": {
            "description": "Acknowledged once it is settled: after the commit, or after its copy was confirmed.",
            "bindings": {"amqp": {"ack": True, "bindingVersion": BINDING}},
        },
    }


class _Plain(yaml.SafeDumper):
    """YAML without anchors, with indented lists and with texts of many lines as blocks."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - the signature is PyYAML's
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002 - as above
        super().increase_indent(flow, indentless=False)


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Plain.add_representer(str, _text)
