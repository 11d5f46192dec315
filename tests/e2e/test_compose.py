"""compose.yaml, as the README tells people to use it: up, pay with rabbitmqadmin, look, down."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
from collections.abc import AsyncIterator

import pytest

from common import saga
from tests.e2e.system import PASSWORD, PROJECT, ROOT, USER, engine, of_project, tidy
from tests.support.eventually import eventually
from tools.images import Images
from tools.loopback import ask, free_ports

pytestmark = pytest.mark.container


class Compose:
    """The system of compose.yaml under a name of its own, on ports and images chosen by its variables."""

    def __init__(self, images: Images) -> None:
        amqp, self.ui_port = free_ports(2)
        ports = {"RABBITMQ_PORT": str(amqp), "RABBITMQ_UI_PORT": str(self.ui_port)}
        self._environment = os.environ | images.environment() | ports

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
        tidy(PROJECT)


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
            assert await compose.psql(service, "SELECT state FROM saga_step") == "done"
            assert await compose.psql(service, "SELECT count(*) FROM outbox") == "0"

    await eventually(completed)
    assert await compose.psql("point", "SELECT balance FROM wallet") == "700"
    assert await compose.psql("notify", "SELECT kind FROM notice") == "completed"

    status, queues = ask(f"http://127.0.0.1:{compose.ui_port}/api/queues", user=USER, password=PASSWORD)
    assert status == 200
    assert {f"{service}.events" for service in saga.SERVICES} <= {queue["name"] for queue in queues}

    await compose("down", "--volumes", "--timeout", "15")
    with contextlib.closing(engine()) as client:
        assert not client.containers.list(all=True, filters=of_project(PROJECT))
        assert not client.volumes.list(filters=of_project(PROJECT))
