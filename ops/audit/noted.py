"""An audit, put on record in the history: by whom, why, and what it found.

It changes nothing, and it is needed most where much is broken. So it is put down after it was made, and where that
cannot be it counts all the same, and says so.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from datetime import UTC, datetime

from common import topology
from common.bus import user_of
from ops import where
from ops.audit.report import Report
from ops.broker import connected
from ops.output import CannotLookError, counted
from ops.recording import Book, Signature, entry_of, record_of

#: The type of the entries that tell of audits.
ACT = "audit"
_SECONDS = 5.0


async def note(report: Report, signature: Signature, *, databases_named: bool) -> str:
    """Put an audit on record; why that could not be, or nothing. `databases_named`: not those of `make up`."""
    if databases_named and not _names_a_broker(os.environ):
        # A broker that happens to be here may be another system's, and would be told of strangers.
        return "nobody says which broker these databases belong to (RABBITMQ_URL)"
    now = datetime.now(UTC)
    record = record_of(entry_of(ACT, signature, reason=_verdict(report), detail=_found(report)), now=now)
    url = where.broker_url()
    try:
        async with asyncio.timeout(_SECONDS), connected(url) as connection:
            book = await Book.open(connection, user_of(url))
            return "" if await book.keep(record) else f"{topology.HISTORY} does not take it"
    except CannotLookError as error:
        return str(error)
    except TimeoutError:
        return "the broker does not answer"


def databases_are_named(given: Mapping[str, str]) -> bool:
    """Whether somebody says where databases are: by an option, or by a variable of the environment."""
    return bool(given) or any(name.startswith("DATABASE_URL_") and os.environ[name] for name in os.environ)


def _names_a_broker(environment: Mapping[str, str]) -> bool:
    return bool(environment.get("RABBITMQ_URL") or environment.get("RABBITMQ_URL_FILE"))


def _verdict(report: Report) -> str:
    return "clean" if report.clean else "violations"


def _found(report: Report) -> str:
    found = f"{counted(report.counts.sagas, 'saga')}, {counted(len(report.violations), 'violation')}"
    under_way = len(report.under_way)
    return found + (f", {under_way:,} under way" if under_way else "")
