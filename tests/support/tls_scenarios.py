"""What must hold between a service and a broker that wants to see certificates: scenarios for any version of it.

Each is given a broker that it may show other certificates; a scenario leaves it with a good one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import aiormq
import pytest

from common import bus, tls
from ops.broker import connected
from ops.output import CannotLookError
from tools.certs import Authority

#: The files from which a broker reads what it shows, in a folder that it may enter.
AUTHORITY, CERTIFICATE, KEY = "ca.pem", "server.pem", "server.key"


@dataclass(frozen=True, slots=True)
class Guarded:
    """A broker that takes encrypted connections and wants to see a certificate."""

    authority: Authority
    shown: Path
    login: str
    port: int
    reread: Callable[[], object]

    @property
    def password(self) -> str:
        """What nobody may be told."""
        return self.login.partition(":")[2]

    def url(self, *, host: str = "localhost", ca: Path | None = None, certificate: str | None = "point") -> str:
        """The address with these certificates."""
        options = {"cafile": ca or self.authority.certificate}
        if certificate is not None:
            home = self.authority.home
            options |= {"certfile": home / f"{certificate}.pem", "keyfile": home / f"{certificate}.key"}
        return f"amqps://{self.login}@{host}:{self.port}/?{urlencode(options)}"

    def shows(self, *hosts: str, days: int = 90) -> None:
        """Give the broker another certificate, while it runs."""
        show(self.authority, self.shown, *hosts, days=days)
        self.reread()

    async def told(self, url: str) -> str | None:
        """What a service would be told about a connection; None if it is made."""
        try:
            async with bus.open_session(url, "point"):
                return None
        except (OSError, aiormq.exceptions.AMQPError) as error:
            return tls.why(error, url) or f"no word of certificates: {error!r}"


def show(authority: Authority, shown: Path, *hosts: str, days: int = 90) -> None:
    """Put a certificate for these hosts where the broker, which is another user, reads it."""
    shown.chmod(0o755)
    certificate, key = authority.issue("server", *hosts, days=days)
    for file, name in ((authority.certificate, AUTHORITY), (certificate, CERTIFICATE), (key, KEY)):
        (shown / name).write_bytes(file.read_bytes())
        (shown / name).chmod(0o644)


async def with_certificates_on_both_sides_a_session_opens(guarded: Guarded, _: Path) -> None:
    """The same session as without."""
    assert await guarded.told(guarded.url()) is None


async def a_broker_of_another_authority_is_not_trusted(guarded: Guarded, tmp_path: Path) -> None:
    """Somebody between us and the broker would be one."""
    other = Authority(tmp_path)
    reason = await guarded.told(guarded.url(ca=other.certificate))
    assert reason is not None
    assert reason.startswith("the broker's certificate is not signed by an authority that is trusted here")


async def a_broker_at_another_host_is_not_trusted(guarded: Guarded, _: Path) -> None:
    """A certificate of the same authority, stolen from elsewhere; an operator is told in the same words."""
    reason = await guarded.told(guarded.url(host="127.0.0.1"))
    assert reason is not None
    assert reason.startswith("the broker's certificate is for another host")
    with pytest.raises(CannotLookError, match="is for another host") as refused:
        async with connected(guarded.url(host="127.0.0.1")):
            pass
    assert guarded.password not in str(refused.value)


async def the_brokers_certificate_is_renewed_while_it_runs(guarded: Guarded, _: Path) -> None:
    """An expired one is refused; the new one is shown to whoever connects next."""
    await asyncio.to_thread(guarded.shows, "DNS:localhost", days=-1)
    reason = await guarded.told(guarded.url())
    assert reason is not None
    assert reason.startswith("the broker's certificate has expired")
    await asyncio.to_thread(guarded.shows, "DNS:localhost")
    assert await guarded.told(guarded.url()) is None


async def without_a_certificate_a_service_is_refused(guarded: Guarded, _: Path) -> None:
    """A password alone, which somebody may have seen, opens nothing."""
    _refused(await guarded.told(guarded.url(certificate=None)), "there is none")


async def with_an_expired_certificate_a_service_is_refused(guarded: Guarded, _: Path) -> None:
    """Whoever found it in an old backup is nobody."""
    guarded.authority.issue("expired", days=-1)
    _refused(await guarded.told(guarded.url(certificate="expired")), "it has expired")


async def with_a_strangers_certificate_a_service_is_refused(guarded: Guarded, tmp_path: Path) -> None:
    """Anybody can make one with any name."""
    for file in Authority(tmp_path).issue("stranger"):
        (guarded.authority.home / file.name).write_bytes(file.read_bytes())
    _refused(await guarded.told(guarded.url(certificate="stranger")), "an authority that the broker")


def _refused(reason: str | None, expected: str) -> None:
    assert reason is not None
    assert reason.startswith("the broker does not accept this certificate (certfile)")
    # What the broker says may be lost with the connection that it closes.
    assert expected in reason or "hung up without a word" in reason


Scenario = Callable[[Guarded, Path], Awaitable[None]]
SCENARIOS: dict[str, Scenario] = {
    scenario.__name__: scenario
    for scenario in (
        with_certificates_on_both_sides_a_session_opens,
        a_broker_of_another_authority_is_not_trusted,
        a_broker_at_another_host_is_not_trusted,
        the_brokers_certificate_is_renewed_while_it_runs,
        without_a_certificate_a_service_is_refused,
        with_an_expired_certificate_a_service_is_refused,
        with_a_strangers_certificate_a_service_is_refused,
    )
}
