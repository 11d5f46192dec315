"""The audit reads servers as it reads SQLite's files: it sees one moment, and it cannot write."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from common import saga
from ops.audit import reading, snapshots
from ops.audit.look import Report, audit
from ops.output import CannotLookError
from tests.support.bench import Databases
from tests.support.databases import ask, empty
from tests.support.written import OPEN, WHOLE, write

pytestmark = pytest.mark.server_only

Urls = dict[str, str]


@pytest.fixture
async def urls(database: Databases) -> AsyncIterator[Urls]:
    """Five databases with one payment of each ending, and an open one; empty again afterwards."""
    found = {service: database(service) for service in saga.SERVICES}
    for url in found.values():
        await empty(url)
    await write(found)
    yield found
    for url in found.values():
        await empty(url)


async def _look(urls: Urls, *, after: timedelta = timedelta(hours=1)) -> Report:
    return await audit(urls, now=datetime.now(UTC) + after, pause=timedelta(0))


async def test_right_books_are_clean_and_an_open_saga_is_under_way(
    urls: Urls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that SQLite's files are asked must be asked of servers in words that they understand too."""
    monkeypatch.setattr(snapshots, "PAGE", 2)
    report = await _look(urls, after=timedelta(0))
    assert report.clean, report.violations
    assert [(it.saga_id, it.waits_for) for it in report.under_way] == [(OPEN, ("point",))]
    assert (report.counts.completed, report.counts.undone, report.counts.failed) == (1, 3, 1)


async def test_what_is_wrong_is_found_again_when_it_is_read_again(urls: Urls) -> None:
    """The second reading asks by key, which each vendor does in its own way."""
    await ask(urls["payment"], f"UPDATE payment SET state = 'CANCELLED' WHERE payment_id = '{WHOLE}'")
    await ask(urls["point"], "UPDATE wallet SET balance = balance + 1 WHERE user_id = 'whole'")
    found = {(it.saga_id, it.rule, it.evidence) for it in (await _look(urls)).violations if it.saga_id != OPEN}
    assert found == {
        (WHOLE, "payment", "payment is done, but the payment is CANCELLED"),
        ("whole", "wallet", "the wallet holds 971 points, its ledger says 970"),
    }


async def test_the_audit_sees_one_moment_and_cannot_write(urls: Urls) -> None:
    """Otherwise a busy service would look torn, and an auditor could tear it."""
    async with reading.open_books(urls) as books:
        await ask(urls["payment"], "UPDATE payment SET state = 'PAID'")
        (whole,) = await books.pick([WHOLE])
        assert whole.payment is not None
        assert whole.payment.state == "COMPLETED"
        with pytest.raises(CannotLookError, match=r"(?i)read.only transaction"):
            await books.select("payment", "DELETE FROM payment RETURNING 1")


async def test_options_of_the_services_driver_do_not_keep_the_audit_out(urls: Urls) -> None:
    """An operator gives the audit the very URL that the service has."""
    given = urls | {"point": urls["point"] + "?minsize=2&maxsize=9"}
    assert (await _look(given, after=timedelta(0))).clean


async def test_a_wrong_database_is_told_without_its_password(urls: Urls) -> None:
    """What cannot be read must not pass as clean, and no secret belongs into a message."""
    scheme, _, rest = urls["queue"].partition("://")
    address = rest.rpartition("@")[2].rpartition("/")[0]
    wrong = urls | {"queue": f"{scheme}://postgres:s3cret@{address}/not_there"}
    with pytest.raises(CannotLookError, match="the queue database: ") as told:
        await _look(wrong)
    assert "s3cret" not in str(told.value)
