"""Prometheus itself with the configuration of deploy/: what it scrapes, what it answers, and when it rings."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from common import saga
from containers.books import settled
from containers.labels import TESTS, engine
from containers.system import HEALTH_TOKEN, System
from tests.e2e.sales import Sales
from tests.support import dashboard
from tests.support.eventually import eventually
from tests.support.tools import missing
from tools import images
from tools.docker_engine import SetupError
from tools.loopback import ask, free_ports

pytestmark = pytest.mark.container

#: Panels that have nothing to show unless a compensation fails for minutes.
_ONLY_IN_TROUBLE = ("saga_slowest_retries_total",)


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A running Prometheus."""

    url: str

    async def get(self, path: str) -> Any:  # noqa: ANN401 - JSON
        """What its API answers; AssertionError unless it is content."""
        status, told = await asyncio.to_thread(ask, f"{self.url}/api/v1/{path}")
        assert status == 200, (path, status, told)
        return told["data"]

    async def answer(self, expression: str) -> list[dict[str, Any]]:
        """What it answers to a question."""
        result: list[dict[str, Any]] = (await self.get(f"query?query={quote(expression)}"))["result"]
        return result

    async def alerts(self) -> dict[str, str]:
        """What is about to ring, or rings."""
        return {alert["labels"]["alertname"]: alert["state"] for alert in (await self.get("alerts"))["alerts"]}


def _with_token(home: Path) -> Path:
    """The folder of the configuration, with a token for the services: what it says of one, taken at its word."""
    folder = home / "prometheus"
    shutil.copytree(dashboard.OBSERVABILITY / "prometheus", folder)
    configuration = folder / "prometheus.yml"
    told, count = re.subn(
        r"(?m)^    # (authorization:|  type: |  credentials_file: )", r"    \1", configuration.read_text()
    )
    assert count == 3
    configuration.write_text(told)
    (folder / "health-token").write_text(f"{HEALTH_TOKEN}\n")
    # Prometheus is nobody in there.
    folder.chmod(0o755)
    return folder


@pytest.fixture
def prometheus(system: System, tmp_path: Path) -> Iterator[Prometheus]:
    """Prometheus in the services' network, as compose starts it; it brings the token that they want."""
    try:
        image = images.prometheus()
    except SetupError as error:
        missing("Prometheus", f"PROMETHEUS_IMAGE names its image, and none could be had: {error}")
    (port,) = free_ports(1)
    with contextlib.closing(engine()) as client:
        running = client.containers.run(
            image,
            ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"],
            detach=True,
            labels=dict(TESTS),
            network=system.network,
            ports={"9090/tcp": ("127.0.0.1", port)},
            volumes={str(_with_token(tmp_path)): {"bind": "/etc/prometheus", "mode": "ro"}},
        )
        try:
            yield Prometheus(f"http://127.0.0.1:{port}")
        finally:
            running.remove(force=True, v=True)


@pytest.mark.timeout(600)  # on a new machine the image is built first
async def test_prometheus_scrapes_all_answers_every_panel_and_rings(
    prometheus: Prometheus, system: System, sales: Sales
) -> None:
    """Rules and panels can be right one by one and still find nothing: names, labels and targets must meet."""
    good, poor, stuck = sales.payment(), sales.payment(points=1), sales.payment()
    await sales.prepared()

    async def scraped() -> None:
        targets = (await prometheus.get("targets"))["activeTargets"]
        assert {target["health"] for target in targets} == {"up"}, targets
        jobs = [(target["labels"]["job"], target["labels"].get("service")) for target in targets]
        assert sorted(jobs, key=str) == sorted(
            [*(("saga", service) for service in saga.SERVICES), ("rabbitmq", None), ("rabbitmq-queues", None)],
            key=str,
        )
        # A rate needs a counter's first value before the second.
        assert len(await prometheus.answer("saga_started_total")) == 1

    await eventually(scraped, seconds=60)
    await system.publish(good, poor, ("payment.pay", b'{"payment_id": "no more"}'))
    await settled(system, sales.mark, sales.ids([good, poor]))

    async def answered() -> None:
        silent = []
        for expression in dashboard.expressions():
            if not any(name in expression for name in _ONLY_IN_TROUBLE):
                found = await prometheus.answer(dashboard.asked(expression))
                silent += [] if found else [expression]
        assert not silent, silent

    await eventually(answered, seconds=60)

    await system.services["point"].kill()
    await system.publish(stuck)

    async def began_long_ago() -> None:
        longer = "UPDATE payment SET paid_at = paid_at - interval '1 hour' WHERE payment_id = $1 RETURNING 1"
        assert await system.query("payment", longer, stuck.payment_id)

    await eventually(began_long_ago)

    async def rings() -> None:
        alerts = await prometheus.alerts()
        assert alerts.get("SagaParked") == "firing", alerts
        assert alerts.get("SagaStuck") in {"pending", "firing"}, alerts
        assert alerts.get("SagaServiceDown") in {"pending", "firing"}, alerts

    await eventually(rings, seconds=60)
