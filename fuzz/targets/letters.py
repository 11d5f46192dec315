"""Letters: an operator can look at whatever lies in a dead or parked queue, and what is shown is harmless."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Mapping
from typing import Any

from common import saga, wire
from common.personal import Masks
from fuzz.inputs import letter
from ops import output
from ops.letters import telling
from ops.letters.letter import Kind, Letter, Properties, at, read

_STEERING = set(map(chr, (*range(0x20), *range(0x7F, 0xA0), 0x202E, 0x2066))) - {"\n", "\t"}


def run(data: bytes) -> None:
    """One input: a delivery, as it lies in the queue."""
    wire.install()
    told = letter(data)
    service = told.service if told.service in saga.SERVICES else saga.SERVICES[0]
    properties = wire.read_properties(b"\0\x3c\0\0" + bytes(8) + told.properties)
    is_shown(service, told.body, properties, properties.headers or {})


def is_shown(service: str, body: bytes, properties: Any, headers: Mapping[str, Any]) -> None:  # noqa: ANN401 - pamqp's
    """The ways in which `saga dead` and `saga parked` show a letter."""
    told = Properties(
        message_id=properties.message_id,
        correlation_id=properties.correlation_id,
        content_type=properties.content_type,
        content_encoding=properties.content_encoding,
        user=properties.user_id,
        published_at=at(properties.timestamp),
    )
    found = [read(kind, service, body, told, headers) for kind in Kind]
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        _show(found)
    assert not _STEERING & set(shown.getvalue()), "a stranger's text would steer the terminal"
    shown.getvalue().encode()


def _show(found: list[Letter]) -> None:
    telling.tell_groups(telling.groups(found), "letters")
    telling.tell_each(found, "letters")
    for each in found:
        assert each.id
        for masks in (Masks(), None):
            telling.tell_whole(each, masks)
        output.tell_json(telling.document(each, None, whole=True))
        json.dumps(telling.document(each, Masks(), whole=True), default=str)
