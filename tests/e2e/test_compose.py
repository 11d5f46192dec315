"""compose.yaml, as the README tells people to use it: up, pay with rabbitmqadmin, look, down."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from common import saga
from common.settings import addresses
from containers.labels import PROJECT, ROOT, engine, of_project, tidy_project
from containers.recipes import PASSWORD, USER
from tests.support.eventually import eventually
from tools.images import Images
from tools.loopback import ask, free_ports

pytestmark = pytest.mark.container

#: Who sits at the terminal; in the container everybody has the same login name.
OPERATOR = "kim"


class Compose:
    """The system of compose.yaml under a name of its own, on ports and images chosen by its variables."""

    def __init__(self, images: Images) -> None:
        amqp, self.ui_port = free_ports(2)
        ports = {"RABBITMQ_PORT": str(amqp), "RABBITMQ_UI_PORT": str(self.ui_port)}
        self._environment = os.environ | images.environment() | ports | {"SAGA_BY": OPERATOR}

    async def __call__(self, *arguments: str, seconds: float = 180) -> str:
        """Run a command of compose; what it said. AssertionError if it fails."""
        command = ["docker", "compose", "-p", PROJECT, "-f", str(ROOT / "compose.yaml"), *arguments]
        done = await asyncio.to_thread(
            lambda: subprocess.run(
                command, capture_output=True, text=True, check=False, env=self._environment, timeout=seconds
            )
        )
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    async def rabbitmqadmin(self, key: str, **body: object) -> str:
        """Publish a command as a person would, with whichever rabbitmqadmin the image has."""
        payload = json.dumps(body)
        spoken = await self("exec", "-T", "rabbitmq", "rabbitmqadmin", "--help")
        if "--use-tls" in spoken:  # version 2 of the tool, which came with RabbitMQ 4
            words = ["--username", USER, "--password", PASSWORD, "publish", "message", "--exchange", "saga.events"]
            words += ["--routing-key", key, "--payload", payload]
        else:
            words = ["-u", USER, "-p", PASSWORD, "publish", "exchange=saga.events"]
            words += [f"routing_key={key}", f"payload={payload}"]
        return await self("exec", "-T", "rabbitmq", "rabbitmqadmin", *words)

    async def operator(self, *words: str) -> Any:  # noqa: ANN401 - JSON
        """Run `saga` as an operator does who has compose alone; what it told. AssertionError if it fails."""
        return json.loads(await self("run", "--rm", "-T", "saga", *words, "--json"))

    async def psql(self, service: str, query: str) -> str:
        """Ask a service's database."""
        said = await self("exec", "-T", "postgres", "psql", "-U", "postgres", "-d", service, "-tAc", query)
        return said.strip()


@pytest.fixture
async def compose(stand: Images) -> AsyncIterator[Compose]:
    """The system of compose.yaml, started from nothing, and gone without a trace afterwards."""
    run = Compose(stand)
    try:
        await run("up", "--detach", "--wait", "--wait-timeout", "150")
        yield run
    finally:
        tidy_project(PROJECT)


async def test_a_payment_typed_with_rabbitmqadmin_completes_under_compose(compose: Compose) -> None:
    """The first thing that anybody will try."""
    type_in = compose.rabbitmqadmin
    said = [
        await type_in("reservation.hold", reservation_id="r-1", user_id="ann", seat="A-1", price=300),
        await type_in("point.top_up", top_up_id="t-1", user_id="ann", amount=1000),
        await type_in("queue.enter", token="k-1", user_id="ann"),
    ]

    async def prepared() -> None:
        assert await compose.psql("reservation", "SELECT count(*) FROM reservation") == "1"
        assert await compose.psql("point", "SELECT balance FROM wallet") == "1000"
        assert await compose.psql("queue", "SELECT count(*) FROM token") == "1"

    await eventually(prepared)
    said.append(
        await type_in(
            "payment.pay", payment_id="p-1", user_id="ann", reservation_id="r-1", token="k-1", amount=300
        )
    )
    assert not [answer for answer in said if "NOT" in answer or "not routed" in answer.lower()]

    async def completed() -> None:
        assert await compose.psql("payment", "SELECT state FROM payment") == "COMPLETED"
        for service in saga.SERVICES:
            told = await compose.psql(
                service, "SELECT (SELECT state FROM saga_step), (SELECT count(*) FROM outbox)"
            )
            assert told in {"done|0", "settled|0"}

    await eventually(completed)
    assert await compose.psql("point", "SELECT balance FROM wallet") == "700"
    assert await compose.psql("notify", "SELECT kind FROM notice") == "completed"

    # Every service logged in under its own name, and nothing was refused or parked for it.
    status, queues = ask(f"http://127.0.0.1:{compose.ui_port}/api/queues", user=USER, password=PASSWORD)
    assert status == 200
    depths = {queue["name"]: queue.get("messages", 0) for queue in queues}
    assert [depths[f"{service}.parked"] for service in saga.SERVICES] == [0] * len(saga.SERVICES)
    status, connections = ask(f"http://127.0.0.1:{compose.ui_port}/api/connections", user=USER, password=PASSWORD)
    assert {connection["user"] for connection in connections} == set(saga.SERVICES)
    await _the_operators_command_sees_all_of_it(compose)
    await _nobody_in_a_container_may_more_than_need_be(compose)
    await _users_of_the_broker_are_looked_after_without_a_checkout(compose)

    # The passwords that `rights` made go with it only if its profile is named.
    await compose("--profile", "tools", "down", "--volumes", "--timeout", "15")
    with contextlib.closing(engine()) as client:
        assert not client.containers.list(all=True, filters=of_project(PROJECT))
        assert not client.volumes.list(filters=of_project(PROJECT))


async def _the_operators_command_sees_all_of_it(compose: Compose) -> None:
    """It has to know broker and databases by itself, and to get by with an operator's rights."""
    wrong = [finding for finding in (await compose.operator("doctor"))["findings"] if finding["bad"] != "ok"]
    assert {finding["subject"] for finding in wrong} <= {"permissions"}, wrong
    (listed,) = (await compose.operator("list"))["sagas"]
    assert (listed["id"], listed["phase"]) == ("p-1", "completed")
    outcome = await compose.operator("outcome", "p-1")
    assert (outcome["ending"], outcome["told_by"]) == ("completed", "services")
    assert (await compose.operator("audit"))["violations"] == []
    await compose.rabbitmqadmin("payment.pay", payment_id="p-2")

    async def parked() -> None:
        (letter,) = (await compose.operator("parked", "show", "p-2"))["letters"]
        assert letter["reason"] == "invalid_fields"

    await eventually(parked)
    (gone,) = (await compose.operator("parked", "discard", "p-2", "--why", "no fields", "--yes"))["letters"]
    assert gone["outcome"] == "done"
    acts = {act["act"]: act for act in (await compose.operator("acts"))["acts"]}
    assert {name: act["by"] for name, act in acts.items()} == {"audit": OPERATOR, "discard": OPERATOR}
    assert (acts["audit"]["found"], acts["discard"]["why"]) == ("clean", "no fields")


async def _nobody_in_a_container_may_more_than_need_be(compose: Compose) -> None:
    """Seen from inside, as whoever took a service over would see it."""
    look = (
        "grep -E '^(Uid|Gid|Cap|NoNewPrivs|Seccomp:)' /proc/1/status; "
        "for it in / /app /app/common /app/var /venv /etc; do touch $it/x 2>/dev/null && echo wrote $it; done; "
        "touch /tmp/x && echo tmp"
    )
    for service in saga.SERVICES:
        said = await compose("exec", "-T", service, "sh", "-c", look)
        told = {name.strip(":"): values for name, *values in map(str.split, said.splitlines())}
        assert told.pop("tmp") == []
        assert "wrote" not in told, said
        assert set(told.pop("Uid")) == {"10001"}
        assert set(told.pop("Gid")) == {"10001"}
        assert told.pop("NoNewPrivs") == ["1"]
        assert told.pop("Seccomp") == ["2"]
        # What it may, what it may hand on, and what it could ever have.
        assert set(told) == {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"}, said
        assert {int(value, 16) for (value,) in told.values()} == {0}, said
        health = json.loads(await compose("ps", "--format", "json", service))["Health"]
        assert health == "healthy"


async def _users_of_the_broker_are_looked_after_without_a_checkout(compose: Compose) -> None:
    """Whoever runs the system has the image and the compose file: no Python, no pip, no sources."""

    async def rights(*words: str) -> str:
        return await compose("run", "--rm", "-T", "rights", *words)

    changes = await rights("apply", "--broker", "amqp://rabbitmq:5672/")
    assert "point: password or tags changed" in changes
    # With the password that was just made, out of its file.
    await rights("declare")
    await rights("rotate", "point")
    assert await rights("apply", "--broker", "amqp://rabbitmq:5672/") == "nothing to change\n"


def test_the_cluster_is_three_brokers_that_every_service_knows(stand: Images) -> None:
    """A service that knows one node, or a node that keeps no data, makes three of them worth less than one."""
    files = ["-f", "compose.yaml", "-f", "compose.cluster.yaml"]
    command = ["docker", "compose", *files, "--profile=tools", "config", "--format=json"]
    environment = os.environ | stand.environment()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, env=environment)
    services = json.loads(done.stdout)["services"]
    nodes = {name for name, found in services.items() if found["image"] == stand.rabbitmq}
    assert nodes == {"rabbitmq-1", "rabbitmq-2", "rabbitmq-3"}
    for name in nodes:
        assert {volume["source"].rsplit("_")[-1] for volume in services[name]["volumes"]} >= {name}
        assert services[name]["hostname"] == name
    for name in (*saga.SERVICES, "saga"):
        urls = addresses(services[name]["environment"]["RABBITMQ_URL"])
        assert {urlsplit(url).hostname for url in urls} == nodes
