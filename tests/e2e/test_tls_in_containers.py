"""Encrypted connections with certificates on both sides, on RabbitMQ 4 as compose.tls.yaml configures it."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import pytest
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network
from testcontainers.core.wait_strategies import HealthcheckWaitStrategy

from containers.labels import ROOT, TESTS
from ops.management import Management
from ops.output import CannotLookError
from tests.support.tls_scenarios import SCENARIOS, Guarded, show
from tools.certs import Authority
from tools.images import Images
from tools.loopback import free_ports
from tools.rights.running import Broker, RefusedError

pytestmark = pytest.mark.container

_SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Contained:
    """The broker, and the port of its management API."""

    guarded: Guarded
    management: int

    def api(self, *, host: str = "localhost", **options: str | Path) -> str:
        """The management API's address."""
        return f"https://{self.guarded.login}@{host}:{self.management}?{urlencode(options)}"


@pytest.fixture(scope="module")
def contained(stand: Images, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Contained]:
    """A broker of its own."""
    testcontainers_config.ryuk_disabled = True
    with tempfile.TemporaryDirectory() as folder:
        shown = Path(folder)
        authority = Authority(tmp_path_factory.mktemp("certificates"))
        authority.issue("point")
        show(authority, shown, "DNS:localhost")
        amqp, management = free_ports(2)
        password = secrets.token_hex(8)
        check = {"test": ["CMD", "bash", "-c", ": < /dev/tcp/127.0.0.1/5671"], "interval": _SECOND // 2}
        check |= {"timeout": 5 * _SECOND, "start_period": 120 * _SECOND, "retries": 60}
        # Published ports are for this machine alone.
        only_here = {"com.docker.network.bridge.host_binding_ipv4": "127.0.0.1"}
        network = Network(docker_network_kw={"labels": dict(TESTS), "options": only_here})
        container = (
            DockerContainer(stand.rabbitmq)
            .with_envs(RABBITMQ_DEFAULT_USER="saga", RABBITMQ_DEFAULT_PASS=password)
            .with_volume_mapping(ROOT / "deploy" / "tls" / "rabbitmq.conf", "/etc/rabbitmq/conf.d/30-tls.conf")
            .with_volume_mapping(shown, "/run/secrets")
            .with_bind_ports(5671, amqp)
            .with_bind_ports(15671, management)
            .with_network(network)
            .with_kwargs(labels=dict(TESTS), healthcheck=check)
            .waiting_for(HealthcheckWaitStrategy().with_startup_timeout(180).with_poll_interval(0.1))
        )
        with network, container:

            def reread() -> None:
                raw = container.get_wrapped_container()
                done = raw.exec_run(["rabbitmqctl", "eval", "ssl:clear_pem_cache()."], user="rabbitmq")
                assert done.exit_code == 0, done.output

            yield Contained(Guarded(authority, shown, f"saga:{password}", amqp, reread), management)


@pytest.mark.parametrize("name", SCENARIOS)
async def test_it_holds_that(contained: Contained, tmp_path: Path, name: str) -> None:
    """Who listens on the wire learns nothing, and who has but a password enters nowhere."""
    await SCENARIOS[name](contained.guarded, tmp_path)


async def test_the_management_api_is_asked_over_an_encrypted_connection(
    contained: Contained, tmp_path: Path
) -> None:
    """The doctor and `python -m tools.rights` send a password there, an administrator's too."""
    ours = contained.guarded.authority.certificate
    for cafile, host, told in (
        (ours, "localhost", ""),
        (Authority(tmp_path).certificate, "localhost", "is not signed by an authority that is trusted here"),
        (ours, "127.0.0.1", "is for another host"),
    ):
        url = contained.api(host=host, cafile=cafile)
        if not told:
            async with Management(url) as management:
                assert (await management.get("/api/overview"))["node"]
            assert Broker(url).ask("GET", "overview")["node"]
            continue
        with pytest.raises(CannotLookError, match=told) as refused:
            async with Management(url) as management:
                await management.get("/api/overview")
        assert contained.guarded.password not in str(refused.value)
        with pytest.raises(RefusedError, match=told):
            Broker(url).ask("GET", "overview")
