"""What a client writes, read as the broker reads it: messages with their properties, acks, and everything else."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any

import pamqp.frame
from pamqp import commands as spec
from pamqp.base import Frame

from common import wire
from proof.broker.core import Refused
from proof.broker.message import Message

_FRAME = struct.Struct(">BHI")
_LONG = struct.Struct(">I")
_LONG_LONG = struct.Struct(">Q")
_HEADER, _BODY = 2, 3
_PUBLISH = _LONG.pack(0x003C0028)


@dataclass(frozen=True, slots=True)
class Published:
    """A message as its publisher wrote it."""

    exchange: str
    key: str
    body: bytes
    properties: spec.Basic.Properties
    mandatory: bool

    def message(self) -> Message:
        """The message as the broker keeps it; Refused with 406 if it is none."""
        properties = self.properties
        headers = properties.headers
        keys: tuple[str, ...] = (self.key,)
        hidden = 0
        if headers and ("CC" in headers or "BCC" in headers):
            copies, blind = _keys(headers, "CC"), _keys(headers, "BCC")
            keys, hidden = keys + copies + blind, len(blind)
            headers = {name: value for name, value in headers.items() if name != "BCC"}
        return Message(self.body, self.exchange, keys, headers, self._expiration(), properties, hidden)

    def _expiration(self) -> int | None:
        text = self.properties.expiration
        if text is None:
            return None
        if not text.isdecimal():
            raise Refused(406, f"PRECONDITION_FAILED - invalid expiration '{text}'")
        return int(text)


def _keys(headers: Mapping[str, Any], name: str) -> tuple[str, ...]:
    keys = headers.get(name, [])
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise Refused(406, f"PRECONDITION_FAILED - unacceptable type or value in header {name}")
    return tuple(keys)


def read(payload: bytes) -> Iterator[tuple[int, Frame | Published]]:
    """The channel and the meaning of each thing in what a client wrote at once."""
    at = 0
    publish: tuple[str, str, bool] | None = None
    properties = spec.Basic.Properties()
    body: list[bytes] = []
    missing = 0
    while at < len(payload):
        kind, channel, size = _FRAME.unpack_from(payload, at)
        start, end = at + _FRAME.size, at + _FRAME.size + size
        if kind == _BODY:
            body.append(payload[start:end])
            missing -= size
        elif kind == _HEADER:
            (missing,) = _LONG_LONG.unpack_from(payload, start + 4)
            properties = wire.read_properties(payload[start:end])
            body = []
        else:
            method = payload[start:end]
            if method.startswith(_PUBLISH):
                publish, missing = _to(method), 1
            else:
                _, _, frame = pamqp.frame.unmarshal(payload[at : end + 1])
                assert isinstance(frame, Frame)
                yield channel, frame
        at = end + 1
        if publish is not None and missing == 0:
            exchange, key, mandatory = publish
            yield channel, Published(exchange, key, b"".join(body), properties, mandatory)
            publish = None


def _to(method: bytes) -> tuple[str, str, bool]:
    """Exchange, routing key and `mandatory` of a publish."""
    middle = 7 + method[6]
    end = middle + 1 + method[middle]
    return method[7:middle].decode(), method[middle + 1 : end].decode(), bool(method[end] & 1)


def delivered(message: Message, count: int) -> spec.Basic.Properties:
    """The properties as they are delivered: the publisher's, and in the headers what became of the message."""
    published: spec.Basic.Properties = message.properties
    if not count and message.headers is published.headers:
        return published
    headers = dict(message.headers or {})
    if count:
        headers["x-delivery-count"] = count
    expiration = None if message.expiration is None else published.expiration
    told = copy(published)
    told.headers, told.expiration = headers, expiration
    return told
