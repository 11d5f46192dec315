"""Properties and headers: whatever a content header holds, reading it gives properties and never an exception."""

from __future__ import annotations

from pamqp import commands as spec

from common import wire
from fuzz.samples import FLAGS

_TEXTS = [name for name in FLAGS if name not in {"headers", "delivery_mode", "priority", "timestamp"}]


def run(data: bytes) -> None:
    """One input: flags and properties."""
    wire.install()
    properties = wire.read_properties(b"\0\x3c\0\0" + bytes(8) + data)
    assert isinstance(properties, spec.Basic.Properties)
    for name in _TEXTS:
        value = getattr(properties, name)
        assert value is None or isinstance(value.encode(), bytes), name
    headers = properties.headers
    assert headers is None or isinstance(headers, dict)
    for name in headers or {}:
        assert isinstance(name, str), name
