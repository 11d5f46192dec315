"""Encrypted connections to a server of databases, with certificates on both sides; and what is told without."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from common import db
from ops.audit.snapshots import looking_at, open_snapshot
from ops.doctor import databases as doctor
from ops.output import CannotLookError
from tests.support import encrypted
from tests.support.bench import SERVICES
from tests.support.databases import VENDOR, Server
from tests.support.encrypted import USER, Guarded
from tests.support.eventually import eventually
from tools.certs import Authority

pytestmark = pytest.mark.server_only

_NOT_ACCEPTED = "the database does not accept this certificate (certfile)"
_LOGIN = "the database refuses the login: the password or the certificate (certfile) is not this user's"
_ENCRYPTED = {
    "postgres": "SELECT ssl::text AS told FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
    "mariadb": "SELECT IF(variable_value = '', 'false', 'true') AS told FROM information_schema.session_status "
    "WHERE variable_name = 'Ssl_cipher'",
}


@pytest.fixture(scope="module")
def guarded() -> Iterator[Guarded]:
    """A server of its own."""
    with tempfile.TemporaryDirectory() as home, encrypted.guarded(Path(home)) as server:
        yield server


@pytest.fixture
def plain() -> Iterator[Server]:
    """A server that knows no encryption."""
    with encrypted.plain() as server:
        yield server


@contextlib.asynccontextmanager
async def opened(url: str) -> AsyncIterator[None]:
    """The service's database, as the service opens it."""
    service = SERVICES[USER]
    async with db.open_database(url, service.modules, service.migrations):
        yield


async def refusal(url: str) -> str:
    """What a service is told that cannot open its database; AssertionError if it can."""
    refused: Exception | None = None
    try:
        async with opened(url):
            pass
    except Exception as error:  # noqa: BLE001 - each client has kinds of its own; the text is what counts
        refused = error
    assert refused is not None, "the database was opened"
    assert db.classify(refused) is db.Fault.AWAY, "a person mends it while the service waits"
    return str(refused)


async def test_a_service_reaches_its_database_over_an_encrypted_connection(guarded: Guarded) -> None:
    """With certificates on both sides it migrates and works as it does without."""
    async with opened(guarded.url()), db.unit() as unit:
        ((row),) = await unit.execute_query_dict(_ENCRYPTED[VENDOR])
    assert row["told"] == "true"


async def test_a_database_that_is_not_who_it_should_be_is_told_nothing(guarded: Guarded, tmp_path: Path) -> None:
    """Somebody in between would read every password and every row."""
    other = Authority(tmp_path)
    not_ours = "the database's certificate is not signed by an authority that is trusted here (cafile)"
    assert (await refusal(guarded.url(cafile=other.certificate))).startswith(not_ours)
    assert (await refusal(guarded.url(cafile="", tls="true"))).startswith(not_ours)
    told = await refusal(guarded.url(host="127.0.0.1"))
    assert told.startswith("the database's certificate is for another host: use a name that is in it")


async def test_the_databases_certificate_is_renewed_while_both_run(guarded: Guarded) -> None:
    """Expired, it is refused by the next connection; the new one is seen by the one after that."""
    async with opened(guarded.url()):
        await asyncio.to_thread(guarded.shows, "DNS:localhost", days=-1)

        async def told() -> None:
            refused = await refusal(guarded.url())
            assert refused.startswith("the database's certificate has expired: renew it there")

        # PostgreSQL reads it when it comes to it.
        await eventually(told)
        assert not await db.answers()
        await asyncio.to_thread(guarded.shows, "DNS:localhost")
        await eventually(db.answers)


@pytest.mark.parametrize("what", ["none", "expired", "stranger", "another"])
async def test_a_password_alone_opens_no_database(guarded: Guarded, tmp_path: Path, what: str) -> None:
    """Somebody may have seen it; nor does another service's certificate."""
    home = guarded.authority.home
    if what == "expired":
        guarded.authority.issue(what, days=-1)
    elif what == "another":
        guarded.authority.issue(what)
    elif what == "stranger":
        for file in Authority(tmp_path).issue(what):
            (home / file.name).write_bytes(file.read_bytes())
    expected = {
        "none": f"{_NOT_ACCEPTED}: there is none" if VENDOR == "postgres" else _LOGIN,
        "expired": f"{_NOT_ACCEPTED}: it has expired",
        "stranger": f"{_NOT_ACCEPTED}: it is not signed by an authority that the database trusts",
        "another": _LOGIN,
    }

    async def told() -> None:
        assert await refusal(guarded.url(certificate=None if what == "none" else what)) == expected[what]

    # What it says before it hangs up may be lost with the connection.
    await eventually(told)


async def test_a_services_certificate_is_renewed_while_it_runs(guarded: Guarded) -> None:
    """The files are read for each connection: nobody restarts a service for them."""
    async with opened(guarded.url()):
        guarded.authority.issue(USER, days=-1)
        assert not await db.answers()
        guarded.authority.issue(USER)
        assert await db.answers()


async def test_a_server_that_cannot_encrypt_is_told_no_password(plain: Server) -> None:
    """Whoever asks for encryption gets it, or nothing."""
    told = await refusal(f"{plain.named(USER)}?tls=true")
    assert told == "the database takes no encrypted connections at this port: switch them on there"


async def test_doctor_and_audit_look_as_the_service_does(guarded: Guarded) -> None:
    """Over the same connections, and refused in the same words."""
    async with opened(guarded.url()):
        pass
    found = await doctor.look({USER: guarded.url()})
    assert not found[USER].refusal
    async with open_snapshot(guarded.url()) as snapshot:
        assert await snapshot.select("SELECT COUNT(*) FROM wallet") == [(0,)]
    elsewhere = guarded.url(host="127.0.0.1")
    expected = "the database's certificate is for another host"
    found = await doctor.look({USER: elsewhere})
    assert found[USER].refusal.startswith(expected)
    with pytest.raises(CannotLookError, match=expected), looking_at(USER):
        async with open_snapshot(elsewhere):
            pass


async def test_no_refusal_repeats_a_secret(guarded: Guarded, tmp_path: Path) -> None:
    """They stand in logs, on terminals, and in tickets."""
    addresses = [
        guarded.url(host="127.0.0.1"),
        guarded.url(cafile=tmp_path / "nowhere.pem"),
        guarded.url(keyfile=guarded.authority.home / "ca.key"),
        guarded.url(certificate=None),
        guarded.url(certificate=None, cafile=""),
        guarded.url().replace(guarded.password, f"{guarded.password}x"),
    ]
    for url in addresses:
        told = await refusal(url)
        assert "\n" not in told
        assert guarded.password not in told
        assert guarded.password not in repr(await doctor.look({USER: url}))
