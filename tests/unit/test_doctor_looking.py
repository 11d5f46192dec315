"""How the doctor looks: at the management API, at databases, and what it makes of answers that lack half of it."""

from __future__ import annotations

import asyncio
import socket
import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import BasicAuth, web

from common import saga
from common.history import Entry, Record
from common.recovery import Deed
from common.tls import Files
from common.topology import EVENTS, Binding
from ops import postgres
from ops.doctor import databases, looking
from ops.doctor.facts import Consumer, Permission
from ops.management import Management, RefusedError
from ops.output import CannotLookError

QUEUE = {"name": "point.events", "durable": True, "arguments": {"x-queue-type": "quorum"}}
ANSWERS: dict[str, Any] = {
    "/api/overview": {"product_name": "RabbitMQ", "product_version": "3.10.8"},
    "/api/queues/my%2Fshop": [QUEUE],
    "/api/exchanges/my%2Fshop": [{"name": EVENTS, "type": "topic", "durable": True, "policy": "ae"}],
    "/api/bindings/my%2Fshop": [
        {"source": EVENTS, "routing_key": "a", "destination": "point.events", "destination_type": "queue"},
        {"source": EVENTS, "routing_key": "#", "destination": "copy", "destination_type": "exchange"},
    ],
    "/api/consumers/my%2Fshop": [
        {"queue": {"name": "point.events"}, "channel_details": {"connection_name": "1 -> 2", "user": "saga"}},
        {"queue": {"name": "point.dead"}, "channel_details": []},
    ],
    "/api/vhosts/my%2Fshop/connections": [
        {"name": "1 -> 2", "user": "saga", "client_properties": {"connection_name": "point consume"}},
    ],
    "/api/policies/my%2Fshop": [{"name": "ae", "definition": {"alternate-exchange": "all"}}],
    "/api/permissions": [
        {"user": "saga", "vhost": "my/shop", "configure": "", "write": "w", "read": "r"},
        {"user": "ann", "vhost": "/", "configure": "", "write": "", "read": ""},
    ],
    "/api/nodes": [{"name": "rabbit@one", "running": False, "fd_used": "unknown"}],
}

Serve = Callable[..., str]


@pytest_asyncio.fixture
async def serve() -> AsyncIterator[Serve]:
    """A management API that answers what a test says, on a port of its own; gives its address."""
    answers: dict[str, Any] = {}
    headers: dict[str, str] = {}

    async def answer(request: web.Request) -> web.StreamResponse:
        login = BasicAuth.decode(request.headers["Authorization"])
        if (login.login, login.password) != ("ann", "hu:sh/"):
            return web.json_response({"error": "not_authorised"}, status=401)
        found = answers.get(request.raw_path.partition("?")[0], 404)
        if isinstance(found, int):
            return web.Response(status=found)
        if isinstance(found, str):
            return web.Response(text=found, content_type="text/html")
        return web.json_response(found, headers=headers)

    application = web.Application()
    application.add_routes([web.get("/{path:.*}", answer)])
    runner = web.AppRunner(application)
    await runner.setup()
    server = web.TCPSite(runner, "127.0.0.1", 0)
    await server.start()
    port = runner.addresses[0][1]

    def start(told: Mapping[str, Any], *, login: str = "ann:hu%3Ash%2F", **more: str) -> str:
        answers.update(told)
        headers.update(more)
        return f"http://{login}@127.0.0.1:{port}/?vhost=my%2Fshop"

    yield start
    await runner.cleanup()


async def test_the_api_is_asked_with_login_and_virtual_host_of_its_address(serve: Serve) -> None:
    """A password may hold any character, and so may the name of a virtual host."""
    async with Management(serve(ANSWERS)) as management:
        assert (await management.get("/api/queues/{vhost}", columns="name"))[0]["name"] == "point.events"
        assert management.vhost == "my/shop"
        assert "ann" not in management.address


async def test_the_clock_of_the_broker_is_told_by_its_answers(serve: Serve) -> None:
    """Nothing else of a broker tells its time."""
    late = format_datetime(datetime.now(UTC) - timedelta(minutes=5), usegmt=True)
    async with Management(serve(ANSWERS, Date=late)) as management:
        await management.get("/api/overview")
        assert management.ahead is not None
        assert abs(management.ahead + timedelta(minutes=5)) < timedelta(seconds=3)


@pytest.mark.parametrize("date", ["", "yesterday"])
async def test_a_date_that_cannot_be_read_tells_no_time(serve: Serve, date: str) -> None:
    """A proxy in between may write what it likes."""
    async with Management(serve(ANSWERS, Date=date)) as management:
        await management.get("/api/overview")
        assert management.ahead is None


async def test_a_refusal_says_what_the_user_lacks_and_no_password(serve: Serve) -> None:
    """The most common mistakes: a wrong password, and a user without the tag."""
    async with Management(serve(ANSWERS, login="ann:wrong-one")) as management:
        with pytest.raises(RefusedError, match=r"user ann .*monitoring") as refused:
            await management.get("/api/overview")
    assert refused.value.status == 401
    assert "wrong-one" not in str(refused.value)


async def test_what_is_not_there_is_told_apart_from_what_may_not_be_seen(serve: Serve) -> None:
    """A mistyped virtual host looks like an empty broker otherwise."""
    async with Management(serve({})) as management:
        with pytest.raises(RefusedError, match="is the virtual host right") as refused:
            await management.get("/api/queues/{vhost}")
    assert refused.value.status == 404


async def test_another_program_on_that_port_is_recognised(serve: Serve) -> None:
    """Port 15672 may be somebody else's."""
    async with Management(serve({"/api/overview": "<html>"})) as management:
        with pytest.raises(CannotLookError, match="is not RabbitMQ's management API"):
            await management.get("/api/overview")


async def test_nobody_at_that_address_is_one_clear_sentence() -> None:
    """Not a traceback, and not the password that stands in the address."""
    async with Management("http://ann:hush@127.0.0.1:1") as management:
        with pytest.raises(
            CannotLookError, match=r"No management API answers at http://127\.0\.0\.1:1 "
        ) as failed:
            await management.get("/api/overview")
    assert "hush" not in str(failed.value)


async def test_a_broker_that_does_not_answer_is_not_waited_for_long() -> None:
    """An overloaded broker accepts a connection and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        async with Management(address, seconds=0.05) as management:
            with pytest.raises(CannotLookError, match="does not answer in time"):
                await management.get("/api/overview")


@pytest.mark.parametrize(
    "address", ["ftp://ann:hush@h", "http://ann:hush@", "http://ann:hush@h:0", "http://h:hush", "hush"]
)
def test_an_address_that_is_none_is_told_and_not_repeated(address: str) -> None:
    """It may hold a password in the wrong place."""
    with pytest.raises(CannotLookError, match="RABBITMQ_MANAGEMENT_URL") as failed:
        Management(address)
    assert "hush" not in str(failed.value)


async def test_a_sparse_answer_is_read_as_far_as_it_goes(serve: Serve) -> None:
    """Brokers differ in what they tell: statistics may be switched off, and a down queue has little to say."""
    async with Management(serve(ANSWERS)) as management:
        broker = await looking._ask(management)
    assert broker.release == (3, 10)
    queue = broker.queues["point.events"]
    assert (queue.messages, queue.least, queue.acks, queue.leader) == (0, None, None, None)
    assert broker.bindings == {Binding(EVENTS, "a", "point.events")}
    assert broker.elsewhere == {Binding(EVENTS, "#", "copy")}
    assert broker.exchanges[EVENTS].policy == {"alternate-exchange": "all"}
    assert broker.consumers == (
        Consumer("point.events", "point consume", "saga"),
        Consumer("point.dead", "", ""),
    )
    assert broker.permissions == {"saga": Permission("", "w", "r")}
    assert broker.topic_permissions is None
    assert [(node.running, node.files_used) for node in broker.nodes] == [(False, 0)]


async def test_figures_of_the_last_minute_are_read(serve: Serve) -> None:
    """They tell what waits long, without anybody waiting for it."""
    samples = [{"sample": count, "timestamp": 0} for count in (7, 3, 5)]
    busy = QUEUE | {
        "messages": 7,
        "messages_details": {"samples": samples},
        "message_stats": {"ack_details": {"avg_rate": 1.5}},
        "effective_policy_definition": [],
        "messages_dlx": 2,
        "leader": "rabbit@one",
    }
    idle = busy | {"name": "point.dead", "message_stats": {}}
    async with Management(serve(ANSWERS | {"/api/queues/my%2Fshop": [busy, idle]})) as management:
        queues = (await looking._ask(management)).queues
    queue = queues["point.events"]
    assert (queue.messages, queue.least, queue.acks, queue.stranded) == (7, 3, 1.5, 2)
    assert queues["point.dead"].acks == 0.0


async def test_a_user_who_may_not_see_permissions_sees_the_rest(serve: Serve) -> None:
    """Who watches needs no rights to administrate."""
    forbidden = dict.fromkeys(("/api/permissions", "/api/vhosts/my%2Fshop/connections"), 401)
    async with Management(serve(ANSWERS | forbidden)) as management:
        broker = await looking._ask(management)
    assert broker.permissions is None
    assert broker.connections is None
    assert broker.queues


async def test_a_database_file_tells_its_migrations_and_its_outbox(tmp_path: Path) -> None:
    """Read-only, beside the service that writes it."""
    file = tmp_path / "point.sqlite3"
    with sqlite3.connect(file) as made:
        made.execute("CREATE TABLE tortoise_migrations (name TEXT)")
        made.execute("INSERT INTO tortoise_migrations VALUES ('0001_first')")
        made.execute("CREATE TABLE outbox (staged_at TEXT)")
        made.execute("INSERT INTO outbox VALUES ('2026-11-22 16:00:00+00:00'), ('2026-11-22 15:00:00+00:00')")
    made.close()
    found = (await databases.look({"point": f"sqlite://{file}?synchronous=FULL"}))["point"]
    assert found.refusal == ""
    assert found.applied == ("0001_first",)
    assert found.unpublished == 2
    assert found.oldest == datetime(2026, 11, 22, 15, tzinfo=UTC)
    assert found.ahead is None


@pytest.mark.parametrize("service", saga.SERVICES)
async def test_the_migrations_of_a_service_are_those_of_its_package(service: str) -> None:
    """What a checkout has is what the doctor misses in the database."""
    found = (await databases.look({service: "sqlite:///nowhere/at.all"}))[service]
    assert "there is no file" in found.refusal
    assert "0001_first" in databases._wanted(service)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("mysql://ann:hush@host/point", "no way to read 'mysql'"),
        ("postgres://ann:hush@127.0.0.1:1/point", "127.0.0.1"),
        ("postgres://ann:hush@[::1/point", "Invalid IPv6 URL"),
        ("", "no way to read ''"),
    ],
)
async def test_a_database_that_cannot_be_read_says_why_and_no_password(url: str, told: str) -> None:
    """One of five may be down; the other four are of interest all the same."""
    found = (await databases.look({"point": url}))["point"]
    assert told in found.refusal
    assert "hush" not in repr(found)


async def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    """Somebody may have mistyped the path."""
    file = tmp_path / "notes.txt"
    file.write_text("no database, but long enough to be taken for one " * 20)
    found = (await databases.look({"point": f"sqlite://{file}"}))["point"]
    assert "not a database" in found.refusal


def test_options_that_only_the_services_know_do_not_reach_the_driver() -> None:
    """A service's URL works for the doctor as it is."""
    address, options = postgres.address_of(
        "postgres://ann:x@host:1/point?maxsize=9&schema=shop&cafile=ca.pem", "saga-doctor"
    )
    assert address == "postgresql://ann:x@host:1/point"
    assert options["server_settings"]["search_path"] == "shop"
    assert options["ssl"].files == Files("ca.pem")


async def test_all_databases_are_asked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five that do not answer cost the patience for one."""
    together = asyncio.Barrier(len(saga.SERVICES))

    async def meet(_: str) -> dict[str, Any]:
        await together.wait()
        return {"vendor": "SQLite"}

    monkeypatch.setattr(databases, "_sqlite", meet)
    found = await asyncio.wait_for(databases.look(dict.fromkeys(saga.SERVICES, "sqlite:///x")), timeout=10)
    assert all(not it.refusal for it in found.values())


def _history(*records: Record) -> Callable[..., AsyncGenerator[Record, None]]:
    async def read(*, since: datetime) -> AsyncGenerator[Record, None]:
        assert since.tzinfo
        for record in records:
            yield record

    return read


def _record(*entries: Entry) -> Record:
    return Record(service="point", replica="point-1", at=datetime.now(UTC), took_ms=1, entries=entries)


async def test_clocks_are_compared_by_what_was_done_for_the_first_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that is repeated may come long after it was heard, and would blame a good clock."""
    done = Entry(saga="p-1", type="reservation.confirmed", deed=Deed.DID, said=[("point.deducted", "00-1")])
    again = Entry(saga="p-2", type="reservation.confirmed", deed=Deed.REPEATED, said=[("point.deducted", "00-2")])
    monkeypatch.setattr(looking, "records", _history(_record(done, again)))
    (told,) = await looking._told()
    assert (told.service, told.saga, told.type, told.said) == (
        "point",
        "p-1",
        "reservation.confirmed",
        ("point.deducted",),
    )


async def test_a_long_history_is_read_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy system tells enough in seconds; nobody waits for ten minutes of it."""
    entry = Entry(saga="p-1", type="payment.paid", deed=Deed.DID)
    monkeypatch.setattr(looking, "records", _history(*[_record(entry)] * (looking._RECORDS + 5)))
    assert len(await looking._told()) == looking._RECORDS


async def test_a_history_that_cannot_be_read_is_no_reason_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its queue, or the login, is told by other checks."""

    async def read(*, since: datetime) -> AsyncGenerator[Record, None]:
        yield _record(Entry(saga="p-1", type="payment.paid", deed=Deed.DID))
        raise CannotLookError(f"the stream was lost, read since {since}")

    monkeypatch.setattr(looking, "records", read)
    assert await looking._told() == ()
