"""The contract of today, for tests."""

from __future__ import annotations

import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft7Validator

from tools import generate
from tools.contracts import asyncapi
from tools.contracts.compare import resolved

SCHEMA = Path(__file__).with_name("asyncapi-3.0.0.schema.json.gz")


def made() -> dict[str, Any]:
    """The contract as the code makes it now, whatever is checked in."""
    return asyncapi.document(generate._REFUSALS, generate._MACHINERY)


@cache
def reader(type_: str, part: str) -> Draft7Validator:
    """What judges the payload, or the headers, of a message by its published schema."""
    document = made()
    return Draft7Validator(_for_python(resolved(document["components"]["messages"][type_][part], document)))


def _for_python(schema: Any) -> Any:  # noqa: ANN401 - JSON
    """ECMA-262's `$` is the end of a text; Python's would let the end of a line pass."""
    if isinstance(schema, dict):
        return {
            name: f"{value[:-1]}\\Z" if name == "pattern" else _for_python(value) for name, value in schema.items()
        }
    return [_for_python(value) for value in schema] if isinstance(schema, list) else schema


@cache
def official() -> Draft7Validator:
    """AsyncAPI's own JSON schema."""
    return Draft7Validator(json.loads(gzip.decompress(SCHEMA.read_bytes())))
