"""No secret comes out: not in logs, tracebacks, health pages, letters' headers, the list of processes, a report.

Real services and commands with real passwords and keys, each read from a file, where all is well and where login
or certificate are refused; then all that they said is searched for all of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from common import saga, topology
from common.messages import TopUp
from tests.support import encrypted
from tests.support.eventually import eventually
from tests.support.rights import DELAYS, GRANTS, House, house
from tests.support.saga import SABOTAGE
from tools.broker import PrivateBroker
from tools.stack import ROOT, Service, Stack

pytestmark = pytest.mark.broker

_UNKNOWN = "t-unexpected"


@dataclass(slots=True)
class Search:
    """What was said, by where; and what nobody may say."""

    marks: set[str]
    said: dict[str, str] = field(default_factory=dict)

    def hear(self, where: str, text: str) -> None:
        """Keep what was said."""
        self.said[where] = self.said.get(where, "") + text

    def look_at_processes(self) -> None:
        """What `ps` would show to anybody on this machine."""
        for file in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                self.hear("ps", file.read_bytes().replace(b"\0", b" ").decode(errors="replace"))

    def found(self) -> list[str]:
        """Where a secret was said."""
        return [where for where, text in self.said.items() if any(mark in text for mark in self.marks)]


@dataclass(frozen=True, slots=True)
class Vault:
    """Files with secrets in them, and all the secrets."""

    home: Path
    search: Search

    def file(self, content: str) -> str:
        """A file with this content, for its owner alone."""
        file = self.home / secrets.token_hex(4)
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
            opened.write(content)
        return str(file)

    def secret(self) -> str:
        """A password that is good for nothing, and must not be said either."""
        mark = secrets.token_hex(12)
        self.search.marks.add(mark)
        return mark


@pytest.fixture(scope="module")
def stage(node: PrivateBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Users and objects, and no services."""
    with house(node.broker.amqp_url, node.broker.management_url, tmp_path_factory.mktemp("rights")) as opened:
        yield opened


@pytest.fixture(scope="module")
def database() -> Iterator[encrypted.Guarded]:
    """PostgreSQL, encrypted."""
    with tempfile.TemporaryDirectory() as home, encrypted.guarded(Path(home)) as server:
        yield server


@pytest.fixture
def vault(node: PrivateBroker, stage: House, database: encrypted.Guarded, tmp_path: Path) -> Vault:
    """All secrets of broker and database are marks."""
    marks = {stage.secrets.password(one.user.name) for one in GRANTS} | {node.broker.password, database.password}
    for key in database.authority.home.glob("*.key"):
        marks |= {line for line in key.read_text().splitlines() if "PRIVATE" not in line}
    assert all(len(mark) >= 16 for mark in marks)
    return Vault(tmp_path, Search(marks))


async def test_no_secret_comes_out_of_a_service(stage: House, database: encrypted.Guarded, vault: Vault) -> None:
    """Neither while it works and fails, nor while it waits for a broker or a database that refuses it."""
    broker, here = stage.url("point"), database.url()
    place = urlsplit(broker)
    ways = {
        "taking messages": (broker, here),
        "ACCESS_REFUSED": (broker.replace(stage.secrets.password("point"), vault.secret()), here),
        "the broker takes no encrypted connections": (place._replace(scheme="amqps").geturl(), here),
        "the database refuses the login": (broker, here.replace(database.password, vault.secret())),
        "is for another host": (broker, database.url(host="127.0.0.1")),
        "certfile and keyfile": (broker, database.url(keyfile=database.authority.home / "ca.key")),
        "Traceback": (broker, database.url(nonsense="1")),
    }
    stacks = {told: Stack(vault.home / f"stack-{number}") for number, told in enumerate(ways)}
    started: dict[str, Service] = {}
    try:
        for told, (amqp, postgres) in ways.items():
            started[told] = stacks[told].start(
                "point",
                "",
                RABBITMQ_URL_FILE=vault.file(amqp),
                DATABASE_URL="",
                DATABASE_URL_FILE=vault.file(postgres),
                DECLARE_TOPOLOGY="false",
                RETRY_DELAYS=",".join(map(str, DELAYS)),
                LOG_LEVEL="DEBUG",
                LOG_FORMAT="json",
                PYTHONPATH=f"{SABOTAGE}:{ROOT}",
                SABOTAGE=f"point={stage.stack.home / 'point'}.faults",
            )
        for told, stack in stacks.items():
            await eventually(partial(_says, stack, told))
            vault.search.look_at_processes()
            for page in ("live", "ready", "metrics"):
                vault.search.hear(page, _page(f"http://127.0.0.1:{started[told].port}/{page}"))
        await _fails_and_parks(stage, stacks["taking messages"])
        for service in saga.SERVICES:
            for queue in (topology.dead_queue(service), topology.parked_queue(service)):
                vault.search.hear("letters", json.dumps(stage.peek(queue)))
    finally:
        for told, stack in stacks.items():
            assert stack.down() == ()
            vault.search.hear(f"log: {told}", stack.log("point").read_text())
    assert "sabotaged by a test" in vault.search.said["log: taking messages"]
    assert "headers" in vault.search.said["letters"]
    assert "point_svc" in vault.search.said["ps"]
    assert vault.search.found() == []


def _says(stack: Stack, told: str) -> bool:
    return told in stack.log("point").read_text()


async def _fails_and_parks(stage: House, stack: Stack) -> None:
    """Have the service meet what it does not expect, and what it cannot read."""
    stage.faults("point").make(raises=[_UNKNOWN])
    async with stage.person("client") as client:
        for body in (TopUp(top_up_id=_UNKNOWN, user_id="ann", amount=1), b'{"top_up_id": 1}'):
            assert await client.publish(topology.EVENTS, "point.top_up", body) == "done"

    def known() -> None:
        assert "sabotaged by a test" in stack.log("point").read_text()
        assert len(stage.peek(topology.parked_queue("point"))) >= 1

    await eventually(known)


def _page(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.read().decode()
    except OSError:
        return ""  # it has ended


async def test_no_secret_comes_out_of_a_command(stage: House, database: encrypted.Guarded, vault: Vault) -> None:
    """The doctor reads broker, management API and databases, and tells what is wrong with each."""
    operator, administrator = stage.url("operator"), stage.broker.url
    refused = operator.replace(stage.secrets.password("operator"), vault.secret())
    plain = urlsplit(operator)._replace(scheme="amqps").geturl()
    api = urlsplit(administrator)
    nobody = api._replace(netloc=f"nobody:{vault.secret()}@{api.netloc.rpartition('@')[2]}").geturl()
    wrong_host = database.url(host="127.0.0.1")
    wrong_login = database.url().replace(database.password, vault.secret())
    doctor, apply = ("ops", "doctor"), ("tools.rights", "apply", "--secrets", str(vault.home / "users"))
    runs = {
        "RabbitMQ": _run(vault, operator, administrator, database.url(), *doctor),
        '"findings"': _run(vault, operator, administrator, database.url(), *doctor, "--json"),
        "refuses the login": _run(vault, refused, nobody, wrong_login, *doctor),
        "takes no encrypted connections": _run(vault, plain, administrator, wrong_host, *doctor),
        "the login is wrong": _run(vault, operator, nobody, wrong_host, *apply),
        "for another host": _run(vault, operator, administrator, wrong_host, "ops", "audit"),
    }
    for told, text in zip(runs, await asyncio.gather(*runs.values()), strict=True):
        vault.search.hear(told, text)
        assert told in text
    assert vault.search.found() == []


async def _run(vault: Vault, broker: str, management: str, database: str, *words: str) -> str:
    """Run a command whose secrets are in files; all that it said."""
    named: Mapping[str, str] = {
        "RABBITMQ_URL_FILE": vault.file(broker),
        "RABBITMQ_MANAGEMENT_URL_FILE": vault.file(management),
        **{f"DATABASE_URL_{service.upper()}_FILE": vault.file(database) for service in saga.SERVICES},
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *words),
        env=os.environ | named,
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    vault.search.look_at_processes()
    text, _ = await process.communicate()
    return text.decode()
