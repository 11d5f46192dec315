"""Encrypted connections with certificates on both sides, on RabbitMQ 3 on this machine."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.eventually import eventually
from tests.support.tls_scenarios import AUTHORITY, CERTIFICATE, KEY, SCENARIOS, Guarded, show
from tools.broker import start_private
from tools.certs import Authority
from tools.loopback import free_ports
from tools.stack import Stack

pytestmark = pytest.mark.broker


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A broker of its own."""
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to the broker's user
        shown = Path(folder)
        authority = Authority(tmp_path_factory.mktemp("certificates"))
        authority.issue("point")
        show(authority, shown, "DNS:localhost")
        (port,) = free_ports(1)
        settings = {
            "listeners.ssl.1": f"127.0.0.1:{port}",
            "ssl_options.cacertfile": str(shown / AUTHORITY),
            "ssl_options.certfile": str(shown / CERTIFICATE),
            "ssl_options.keyfile": str(shown / KEY),
            "ssl_options.verify": "verify_peer",
            "ssl_options.fail_if_no_peer_cert": "true",
        }
        node = start_private(tmp_path_factory.mktemp("broker"), settings=settings)

        def reread() -> None:
            node.ctl("eval", "ssl:clear_pem_cache().")

        try:
            yield Guarded(authority, shown, f"{node.broker.user}:{node.broker.password}", port, reread)
        finally:
            node.remove()


@pytest.mark.parametrize("name", SCENARIOS)
async def test_it_holds_that(guarded: Guarded, tmp_path: Path, name: str) -> None:
    """Who listens on the wire learns nothing, and who has but a password enters nowhere."""
    await SCENARIOS[name](guarded, tmp_path)


async def test_a_service_waits_for_its_certificate_and_tells_why(guarded: Guarded, tmp_path: Path) -> None:
    """Renewed, it is used by the next session: nobody has to restart anything."""
    guarded.authority.issue("late", days=-1)
    stack = Stack(tmp_path)
    try:
        service = stack.start("point", guarded.url(certificate="late"))

        def tells() -> None:
            assert "the broker does not accept this certificate" in stack.log("point").read_text()

        await eventually(tells)
        assert not service.ready
        guarded.authority.issue("late")
        await eventually(lambda: _true(service.ready))
        assert guarded.password not in stack.log("point").read_text()
    finally:
        assert stack.down() == ()


def _true(value: object) -> None:
    assert value
