"""A service's own life: how it starts, what stops it, and how it leaves."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from common import saga
from common.messages import TopUp
from tests.support.eventually import eventually
from tests.support.saga import Theatre, run_alone, visit
from tools.loopback import ask, free_ports
from tools.stack import ROOT

pytestmark = pytest.mark.broker


@contextlib.contextmanager
def process(service: str, log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A service as a child of this process, so that its exit code can be asked; gone afterwards."""
    with log.open("wb") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", f"{service}_svc"],
            env=os.environ | {"PYTHONUNBUFFERED": "1"} | environment,
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            yield child
        finally:
            child.kill()
            child.wait(10)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_service_leaves_with_exit_code_0_when_it_is_asked_to(
    empty: Theatre, tmp_path: Path, number: signal.Signals
) -> None:
    """A supervisor takes any other code for a crash."""
    log = tmp_path / "said"
    with process("point", log, RABBITMQ_URL=empty.url, DATABASE_URL=f"sqlite://{tmp_path}/point.sqlite3") as child:
        await eventually(lambda: "taking messages" in log.read_text())
        child.send_signal(number)
        assert child.wait(10) == 0
    assert "Traceback" not in log.read_text()


async def test_a_service_without_a_broker_lives_and_is_not_ready(tmp_path: Path) -> None:
    """A supervisor that took it for dead would start it again and again, and mend nothing."""
    port, nobody = free_ports(2)
    where = {"RABBITMQ_URL": f"amqp://127.0.0.1:{nobody}/", "DATABASE_URL": f"sqlite://{tmp_path}/point.sqlite3"}
    with process("point", tmp_path / "said", **where, HEALTH_PORT=str(port)):
        await eventually(lambda: ask(f"http://127.0.0.1:{port}/live")[0] == 200)

        def opened_its_database() -> None:
            status, health = ask(f"http://127.0.0.1:{port}/ready")
            assert (status, health["database"]) == (503, "ok")
            assert health["broker"] != "ok"

        await eventually(opened_its_database)


async def test_a_service_that_knows_several_nodes_takes_one_that_answers(empty: Theatre, tmp_path: Path) -> None:
    """A node of a cluster may be lost for ever; whoever knows only that one is lost with it."""
    log = tmp_path / "said"
    nobody = [f"amqp://guest:guest@127.0.0.1:{port}/" for port in free_ports(3)]
    urls = ",".join([*nobody, empty.url])
    with process("point", log, RABBITMQ_URL=urls, DATABASE_URL=f"sqlite://{tmp_path}/point.sqlite3"):
        await eventually(lambda: "taking messages" in log.read_text())


async def test_a_service_leaves_while_it_waits_for_the_broker(tmp_path: Path) -> None:
    """A broker that never comes must not keep a service from being stopped."""
    log = tmp_path / "said"
    (port,) = free_ports(1)
    with process(
        "point",
        log,
        RABBITMQ_URL=f"amqp://guest:guest@127.0.0.1:{port}/",
        DATABASE_URL=f"sqlite://{tmp_path}/point.sqlite3",
    ) as child:
        await eventually(lambda: "the broker is away" in log.read_text())
        child.send_signal(signal.SIGTERM)
        assert child.wait(10) == 0


async def test_a_service_leaves_while_it_waits_for_its_database(empty: Theatre, tmp_path: Path) -> None:
    """Nor may a database that somebody else has locked."""
    log, path = tmp_path / "said", tmp_path / "point.sqlite3"
    with (
        contextlib.closing(sqlite3.connect(path, isolation_level=None)) as blocker,
        process("point", log, RABBITMQ_URL=empty.url, DATABASE_URL=f"sqlite://{path}") as child,
    ):
        blocker.execute("BEGIN EXCLUSIVE")
        await eventually(lambda: "the database is away" in log.read_text())
        child.send_signal(signal.SIGTERM)
        assert child.wait(10) == 0


WRONG: dict[str, tuple[str, dict[str, str], str]] = {
    "batch-size": ("payment", {"BATCH_SIZE": "0"}, "BATCH_SIZE"),
    "delays-shrink": ("point", {"RETRY_DELAYS": "5s,1s"}, "RETRY_DELAYS"),
    "no-delay": ("point", {"RETRY_DELAYS": "soon"}, "RETRY_DELAYS"),
    "limit": ("payment", {"PAYMENT_LIMIT": "a lot"}, "PAYMENT_LIMIT"),
    "hold": ("reservation", {"HOLD_SECONDS": "-1"}, "HOLD_SECONDS"),
    "log-level": ("queue", {"LOG_LEVEL": "LOUD"}, "LOG_LEVEL"),
    "port": ("queue", {"HEALTH_PORT": "99999"}, "HEALTH_PORT"),
    "notify-url": ("notify", {"NOTIFY_URLS": "nonsense://secret"}, "NOTIFY_URLS"),
    "broker-url": ("point", {"RABBITMQ_URL": "nonsense"}, "RABBITMQ_URL"),
    "broker-scheme": ("point", {"RABBITMQ_URL": "http://guest:guest@127.0.0.1:1/"}, "RABBITMQ_URL"),
    "database-url": ("point", {"DATABASE_URL": "nonsense"}, "DATABASE_URL"),
    "database-scheme": ("point", {"DATABASE_URL": "oracle://ann:secret@host/name"}, "DATABASE_URL"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_setting_stops_the_service_with_one_clear_line(tmp_path: Path, wrong: str) -> None:
    """Whoever sets it reads which one is wrong and why, not a traceback, and no secret."""
    service, settings, name = WRONG[wrong]
    (port,) = free_ports(1)
    try:
        code, said = run_alone(
            service, tmp_path, seconds=8, **({"RABBITMQ_URL": f"amqp://a:b@127.0.0.1:{port}/"} | settings)
        )
    except subprocess.TimeoutExpired as still_running:
        pytest.fail(
            f"it did not stop: {(still_running.stdout or b'')[-300:]!r} {(still_running.stderr or b'')[-300:]!r}"
        )
    assert code == 1
    lines = said.strip().splitlines()
    assert len(lines) == 1, said
    assert name in lines[0]
    assert "secret" not in said


def test_a_health_port_that_is_taken_stops_the_service_with_a_clear_line(tmp_path: Path) -> None:
    """Two services on one port is the commonest mistake of all."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        try:
            code, said = run_alone("point", tmp_path, seconds=8, HEALTH_PORT=str(taken.getsockname()[1]))
        except subprocess.TimeoutExpired as waits:
            pytest.fail(f"it did not stop: {waits.stderr!r}")
    assert code == 1
    assert "Traceback" not in said
    assert "HEALTH_PORT" in said


async def test_a_second_process_on_the_same_file_is_refused(empty: Theatre, tmp_path: Path) -> None:
    """SQLite serves one replica of a service: the second one says so and leaves the first alone."""
    log, url = tmp_path / "said", f"sqlite://{tmp_path}/alone.sqlite3"
    with process("point", log, RABBITMQ_URL=empty.url, DATABASE_URL=url) as child:
        await eventually(lambda: "taking messages" in log.read_text())
        code, said = run_alone("point", tmp_path, seconds=8, RABBITMQ_URL=empty.url)
        assert code == 1
        assert "in use by another process" in said
        assert len(said.strip().splitlines()) == 1
        assert child.poll() is None


@pytest.mark.parametrize("kind", ["below-a-file", "a-directory", "not-a-database"])
def test_a_database_that_cannot_be_used_is_told_in_one_line(tmp_path: Path, kind: str) -> None:
    """A wrong path is a wrong setting: the service stops, and says what is wrong with which file."""
    path = tmp_path / "point.sqlite3"
    match kind:
        case "below-a-file":
            (tmp_path / "file").touch()
            path = tmp_path / "file" / "point.sqlite3"
        case "a-directory":
            path.mkdir()
        case _:
            path.write_bytes(b"this is no database" * 100)
    (port,) = free_ports(1)
    url = f"amqp://a:b@127.0.0.1:{port}/"
    try:
        code, said = run_alone("point", tmp_path, seconds=8, DATABASE_URL=f"sqlite://{path}", RABBITMQ_URL=url)
    except subprocess.TimeoutExpired as waits:
        pytest.fail(f"it did not stop: {waits.stderr!r}")
    assert code == 1
    assert "Traceback" not in said, said[-800:]
    assert str(path) in said
    assert len(said.strip().splitlines()) == 1, said


async def test_a_database_locked_by_another_process_is_waited_for(empty: Theatre, tmp_path: Path) -> None:
    """Somebody copies the file, or looks at it with a lock: no attempt is burnt, the work is done afterwards."""
    path, log = tmp_path / "point.sqlite3", tmp_path / "said"
    with process("point", log, RABBITMQ_URL=empty.url, DATABASE_URL=f"sqlite://{path}") as child:
        await eventually(lambda: "taking messages" in log.read_text())
        async with visit(empty) as here:
            blocker = sqlite3.connect(path, isolation_level=None)
            with contextlib.closing(blocker):
                blocker.execute("BEGIN EXCLUSIVE")
                gift = TopUp(top_up_id=f"{here.mark}-gift", user_id="ann", amount=5)
                await here.publish("point.top_up", gift)
                await eventually(lambda: "the database is away" in log.read_text(), seconds=20)
                blocker.execute("ROLLBACK")
            (answer,) = await here.ask(gift)
            assert answer.key == "point.topped_up"
            assert not here.copies
        assert "the database is back" in log.read_text()
        assert child.poll() is None


def test_importing_a_service_does_and_says_nothing() -> None:
    """An import with a side effect would show here first."""
    for service in saga.SERVICES:
        code = subprocess.run(
            [sys.executable, "-W", "error", "-c", f"import {service}_svc.__main__"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        assert (code.returncode, code.stdout, code.stderr) == (0, "", "")
