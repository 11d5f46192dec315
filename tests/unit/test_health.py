"""Health and metrics over HTTP: who is told what."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from common import health, runner
from common.health import Health
from common.settings import Settings, load
from tools.loopback import free_ports

TOKEN = "correct-horse-battery"
BRINGS_IT = {"Authorization": f"Bearer {TOKEN}"}


@asynccontextmanager
async def _served(token: str = "", host: str = "127.0.0.1") -> AsyncIterator[aiohttp.ClientSession]:
    (port,) = free_ports(1)
    known = Health("point", broker="ACCESS_REFUSED for user point at broker.internal", database="ok")
    async with (
        health.serve(known, lambda: b"saga_open 1\n", host, port, token=lambda: token),
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client,
    ):
        yield client


async def test_without_a_token_everything_is_told() -> None:
    """The default, on this machine's own address."""
    async with _served() as client:
        async with client.get("/metrics") as answer:
            assert (answer.status, await answer.text()) == (200, "saga_open 1\n")
        async with client.get("/ready") as answer:
            assert answer.status == 503
            assert "broker.internal" in await answer.text()


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer wrong-wrong-wrong", f"Basic {TOKEN}", TOKEN])
async def test_whoever_does_not_bring_the_token_learns_whether_and_nothing_else(header: str | None) -> None:
    """Probes of Docker and Kubernetes bring none; errors name hosts and users."""
    headers = {} if header is None else {"Authorization": header}
    async with _served(TOKEN) as client:
        async with client.get("/metrics", headers=headers) as answer:
            assert answer.status == 401
            assert answer.headers["WWW-Authenticate"] == "Bearer"
            assert "saga_open" not in await answer.text()
        async with client.get("/ready", headers=headers) as answer:
            assert (answer.status, await answer.json()) == (503, {"service": "point", "ready": False})
        async with client.get("/live", headers=headers) as answer:
            assert (answer.status, await answer.json()) == (200, {"service": "point", "ready": False})


async def test_whoever_brings_the_token_is_told_everything() -> None:
    """As Prometheus does with `authorization`."""
    async with _served(TOKEN) as client:
        async with client.get("/metrics", headers=BRINGS_IT) as answer:
            assert (answer.status, await answer.text()) == (200, "saga_open 1\n")
        async with client.get("/live", headers=BRINGS_IT) as answer:
            assert "broker.internal" in await answer.text()


@pytest.mark.parametrize("path", ["/live", "/ready", "/metrics"])
async def test_a_page_with_a_name_of_its_own_for_this_machine_reads_nothing(path: str) -> None:
    """DNS rebinding: the browser of somebody at this machine would read it out to the page's owner."""
    async with (
        _served() as client,
        client.get(path, headers={"Host": "stranger.example:8080"}) as answer,
    ):
        assert answer.status == 421
        assert "point" not in await answer.text()


async def test_beyond_this_machine_any_name_is_right() -> None:
    """Prometheus may ask by whatever name its network has; there a token keeps strangers out."""
    async with (
        _served(host="0.0.0.0") as client,
        client.get("/metrics", headers={"Host": "point.saga.svc:8080"}) as answer,
    ):
        assert answer.status == 200


def test_the_token_is_read_anew_and_without_its_file_nobody_is_let_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A token changes without a stop; and a file that is gone must not open the door."""
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    monkeypatch.setenv("HEALTH_TOKEN_FILE", str(file))
    settings = load(Settings)
    assert runner._health_token(settings) == TOKEN
    assert TOKEN not in repr(settings)
    file.write_text("another-token-of-some-length")
    assert runner._health_token(settings) == "another-token-of-some-length"
    file.unlink()
    first, second = runner._health_token(settings), runner._health_token(settings)
    assert len(first) > 16
    assert first != second, "nobody can have it"
    assert "HEALTH_TOKEN_FILE" in capsys.readouterr().out


@pytest.mark.parametrize("token", ["short", "x" * 15, "fifteen and blanks", "x" * 600])
def test_a_token_that_can_be_guessed_stops_the_service(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one line that does not repeat it."""
    monkeypatch.setenv("HEALTH_TOKEN", token)
    with pytest.raises(SystemExit) as left:
        load(Settings)
    assert "HEALTH_TOKEN" in str(left.value)
    assert token not in str(left.value)
