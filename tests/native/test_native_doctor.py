"""The doctor at a real broker: nothing is found in a healthy system, then each thing that is broken by hand."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from common.settings import Delay
from common.topology import EVENTS
from ops.doctor.checks import examine
from ops.doctor.finding import Bad, Finding
from ops.doctor.looking import look
from tests.support.eventually import eventually
from tests.support.saga import DELAYS, Theatre, theatre
from tools.broker import PrivateBroker
from tools.stack import ROOT

pytestmark = pytest.mark.broker


@pytest.fixture
def ward(node: PrivateBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Theatre]:
    """Five services of its own, since they are going to be hurt; `saga` finds them by the environment."""
    with theatre(node, tmp_path) as opened:
        opened.start()
        broker = opened.broker
        monkeypatch.setenv("RABBITMQ_URL", broker.amqp_url)
        monkeypatch.setenv("RABBITMQ_MANAGEMENT_URL", broker.management_url)
        monkeypatch.setenv("RETRY_DELAYS", DELAYS)
        for service, url in opened.stack.database_urls().items():
            monkeypatch.setenv(f"DATABASE_URL_{service.upper()}", url)
        yield opened


async def _findings() -> dict[str, Finding]:
    """What the doctor says that is not well, by what is found."""
    findings = examine(await look([Delay.parse(delay) for delay in DELAYS.split(",")]))
    return {finding.what: finding for finding in findings if finding.bad is not Bad.OK}


async def _saga(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command itself, as a person does."""
    command = [sys.executable, "-m", "ops", *arguments]
    return await asyncio.to_thread(subprocess.run, command, cwd=ROOT, capture_output=True, text=True, check=False)


async def test_a_healthy_system_is_well_and_what_is_broken_by_hand_is_found(ward: Theatre) -> None:
    """From here on nobody has to know five services and thirty queues by heart to see what is missing."""

    async def well() -> None:
        # The broker counts connections and consumers every few seconds.
        assert await _findings() == {}

    await eventually(well)
    healthy = await _saga("doctor", "--json")
    assert (healthy.returncode, healthy.stderr) == (0, "")
    assert json.loads(healthy.stdout)["well"] is True

    binding = "/api/bindings/{v}/e/" + quote(EVENTS) + "/q/payment.events"
    ward.api("DELETE", f"{binding}/queue.expired")
    ward.api("POST", binding, {"routing_key": "payment.paid"})
    ward.api("DELETE", "/api/queues/{v}/point.parked")
    ward.api("DELETE", "/api/queues/{v}/point.retry.400ms")
    classic = {"durable": True, "arguments": {"x-queue-type": "classic"}}
    ward.api("PUT", "/api/queues/{v}/point.retry.400ms", classic)
    ward.stack.stop("notify")

    expected = {
        "payment.events does not get queue.expired": "restart any service",
        "payment.events still gets payment.paid": f"`rabbitmqadmin -V {ward.vhost} delete binding source={EVENTS}",
        "point.parked is missing": "restart any service",
        "point.retry.400ms has other arguments: x-dead-letter-exchange is not set": "`rabbitmqctl delete_queue",
        "point.retry.400ms does not get point.retry.400ms": "restart any service",
        "notify is not connected: nobody reads notify.events, notify.dead": "`make up`",
    }

    async def ill() -> None:
        findings = await _findings()
        assert {it.bad for it in findings.values()} == {Bad.WRONG}, findings
        found = {told: it for told in expected for what, it in findings.items() if what.startswith(told)}
        assert found.keys() == expected.keys(), findings
        assert len(findings) == len(expected), findings
        for told, mend in expected.items():
            assert mend in found[told].mend

    await eventually(ill)

    # And the mends mend: the queue is deleted by hand, a service that starts does all the rest.
    ward.api("DELETE", "/api/queues/{v}/point.retry.400ms")
    ward.start("notify")
    await eventually(well)


async def test_without_a_broker_the_databases_are_looked_at_all_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The more is broken, the more one wants to know of the rest."""
    monkeypatch.setenv("RABBITMQ_URL", "amqp://ann:hush@127.0.0.1:1/")
    monkeypatch.delenv("RABBITMQ_MANAGEMENT_URL", raising=False)
    monkeypatch.delenv("RETRY_DELAYS", raising=False)
    monkeypatch.setenv("DATABASE_URL_PAYMENT", f"sqlite://{tmp_path}/none.sqlite3")
    run = await _saga("doctor", "--quiet", "--json")
    assert run.returncode == 1
    told = " ".join(finding["what"] for finding in json.loads(run.stdout)["findings"])
    assert "No broker answers at 127.0.0.1:1 (user ann)" in told
    assert "payment's, sqlite" in told
    assert "hush" not in run.stdout + run.stderr
