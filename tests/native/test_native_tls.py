"""Encrypted connections with certificates on both sides, to a broker; and what is told where there is none."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import aiormq
import pytest

from common import bus, tls
from ops.broker import connected
from ops.output import CannotLookError
from tests.support.eventually import eventually
from tools.broker import PrivateBroker, start_private
from tools.certs import Authority
from tools.loopback import free_ports
from tools.stack import Stack

pytestmark = pytest.mark.broker


@dataclass
class Guarded:
    """A broker that takes encrypted connections and wants to see a certificate."""

    node: PrivateBroker
    authority: Authority
    port: int

    def url(self, *, host: str = "localhost", ca: Path | None = None, certificate: str | None = "point") -> str:
        """The address with these certificates."""
        options = {"cafile": ca or self.authority.certificate}
        if certificate is not None:
            home = self.authority.home
            options |= {"certfile": home / f"{certificate}.pem", "keyfile": home / f"{certificate}.key"}
        login = urlsplit(self.node.broker.amqp_url).netloc.rpartition("@")[0]
        return f"amqps://{login}@{host}:{self.port}/?{urlencode(options)}"

    def shows(self, *hosts: str, days: int = 90) -> None:
        """Give the broker another certificate, while it runs."""
        self.authority.issue("broker", *hosts, days=days)
        readable(self.authority.home)
        self.node.ctl("eval", "ssl:clear_pem_cache().")


def readable(home: Path) -> None:
    """Let the broker, which is another user, read its key."""
    home.chmod(0o755)
    (home / "broker.key").chmod(0o644)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A broker of its own."""
    with tempfile.TemporaryDirectory() as home:  # pytest's own folders are closed to the broker's user
        authority = Authority(Path(home))
        authority.issue("broker", "DNS:localhost")
        authority.issue("point")
        readable(authority.home)
        (port,) = free_ports(1)
        settings = {
            "listeners.ssl.1": f"127.0.0.1:{port}",
            "ssl_options.cacertfile": str(authority.certificate),
            "ssl_options.certfile": str(authority.home / "broker.pem"),
            "ssl_options.keyfile": str(authority.home / "broker.key"),
            "ssl_options.verify": "verify_peer",
            "ssl_options.fail_if_no_peer_cert": "true",
        }
        node = start_private(tmp_path_factory.mktemp("broker"), settings=settings)
        try:
            yield Guarded(node, authority, port)
        finally:
            node.remove()


async def told(url: str) -> str | None:
    """What a service would be told about a connection; None if it is made."""
    try:
        async with bus.open_session(url, "point"):
            return None
    except (OSError, aiormq.exceptions.AMQPError) as error:
        return tls.why(error, url) or f"no word of certificates: {error!r}"


async def test_with_certificates_on_both_sides_a_session_opens(guarded: Guarded) -> None:
    """The same session as without."""
    assert await told(guarded.url()) is None


async def test_a_broker_of_another_authority_is_not_trusted(guarded: Guarded, tmp_path: Path) -> None:
    """Somebody between us and the broker would be one."""
    other = Authority(tmp_path)
    reason = await told(guarded.url(ca=other.certificate))
    assert reason is not None
    assert reason.startswith("the broker's certificate is not signed by an authority that is trusted here")


async def test_a_broker_at_another_host_is_not_trusted(guarded: Guarded) -> None:
    """A certificate of the same authority, stolen from elsewhere."""
    reason = await told(guarded.url(host="127.0.0.1"))
    assert reason is not None
    assert reason.startswith("the broker's certificate is for another host")


async def test_the_brokers_certificate_is_renewed_while_it_runs(guarded: Guarded) -> None:
    """An expired one is refused; the new one is shown to whoever connects next."""
    guarded.shows("DNS:localhost", days=-1)
    reason = await told(guarded.url())
    assert reason is not None
    assert reason.startswith("the broker's certificate has expired")
    guarded.shows("DNS:localhost")
    assert await told(guarded.url()) is None


@pytest.mark.parametrize(
    ("who", "days", "expected"),
    [
        (None, 0, "there is none"),
        ("expired", -1, "it has expired"),
        ("stranger", 90, "an authority that the broker"),
    ],
)
async def test_a_service_without_a_good_certificate_is_refused(
    guarded: Guarded, tmp_path: Path, who: str | None, days: int, expected: str
) -> None:
    """A password alone, which somebody may have seen, opens nothing."""
    if who is not None:
        signer = Authority(tmp_path) if who == "stranger" else guarded.authority
        for file in signer.issue(who, days=days):
            if signer is not guarded.authority:
                (guarded.authority.home / file.name).write_bytes(file.read_bytes())
    reason = await told(guarded.url(certificate=who))
    assert reason is not None
    assert reason.startswith("the broker does not accept this certificate (certfile)")
    # What the broker says may be lost with the connection that it closes.
    assert expected in reason or "hung up without a word" in reason


async def test_an_operator_is_told_too(guarded: Guarded) -> None:
    """In the same words, and without the password."""
    with pytest.raises(CannotLookError, match="is for another host") as refused:
        async with connected(guarded.url(host="127.0.0.1")):
            pass
    assert guarded.node.broker.password not in str(refused.value)


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
        assert guarded.node.broker.password not in stack.log("point").read_text()
    finally:
        assert stack.down() == ()


def _true(value: object) -> None:
    assert value
