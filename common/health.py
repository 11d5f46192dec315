"""Health over HTTP: `/live` (the process works) and `/ready` (it takes messages); and `/metrics` for Prometheus.

With a token, whoever does not bring it (`Authorization: Bearer ...`) is told only whether the service lives and is
ready, which is what probes ask for. On a loopback address no page in a browser gets in by a name of its own.

`python -m common.health` asks the service on HEALTH_PORT and exits 0 when it is ready: a container's health check.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from common import door

if TYPE_CHECKING:  # see `serve`
    from aiohttp import web

    _Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(slots=True)
class Health:
    """What a service knows of its own health. It is ready when it reaches both broker and database."""

    service: str
    broker: str = "connecting"
    database: str = "opening"
    outbox: int = 0
    sessions: int = 0
    """Sessions opened with the broker since this process began."""
    database_waits: int = 0
    """How often the database was found away."""
    offered_again: int = 0
    """Sagas that stayed open too long, so that their event was said again."""
    forgotten: int = 0
    """Sagas whose rows were deleted, since they were over long ago."""
    notices: Mapping[str, int] | None = None
    """Notices that are not sent, by state; None where there are none to send."""
    open_sagas: int | None = None
    """Payments neither completed nor cancelled; None where nobody knows."""
    oldest_open_saga: datetime | None = None

    @property
    def is_ready(self) -> bool:
        """Whether messages are being taken."""
        return self.broker == "ok" and self.database == "ok"


@contextlib.asynccontextmanager
async def serve(
    health: Health, metrics: Callable[[], bytes], host: str, port: int, *, token: Callable[[], str] = lambda: ""
) -> AsyncIterator[None]:
    """Answer `/live`, `/ready` and `/metrics` while the context is open; port 0: do not.

    `token` is asked each time, since the file that holds it may change; empty: everybody may know everything.
    """
    if not port:
        yield
        return
    from aiohttp import web  # noqa: PLC0415 - the health check below starts every few seconds, and needs none of it

    runner = web.AppRunner(_site(health, metrics, host, token), access_log=None)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise SystemExit(f"HEALTH_PORT {port} on {host} cannot be used: {error.strerror}") from None
        yield
    finally:
        await runner.cleanup()


def _site(health: Health, metrics: Callable[[], bytes], host: str, token: Callable[[], str]) -> web.Application:
    from aiohttp import web  # noqa: PLC0415 - as above

    def may_know(request: web.Request) -> bool:
        secret = token()
        return not secret or door.is_same(secret, door.bearer(request.headers.get("Authorization")))

    def told(request: web.Request, status: int) -> web.Response:
        facts = asdict(health) if may_know(request) else {"service": health.service, "ready": health.is_ready}
        return web.json_response(facts, status=status, dumps=_dumps)

    async def live(request: web.Request) -> web.Response:
        return told(request, 200)

    async def ready(request: web.Request) -> web.Response:
        return told(request, 200 if health.is_ready else 503)

    async def scraped(request: web.Request) -> web.Response:
        if not may_know(request):
            raise web.HTTPUnauthorized(text="HEALTH_TOKEN is wanted.\n", headers={"WWW-Authenticate": "Bearer"})
        return web.Response(body=metrics(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    is_private = door.is_loopback(host)

    @web.middleware
    async def check_name(request: web.Request, handler: _Handler) -> web.StreamResponse:
        if is_private and not door.answers_to(host, request.headers.get("Host")):
            raise web.HTTPMisdirectedRequest(text="This service does not answer to that name.\n")
        return await handler(request)

    site = web.Application(middlewares=[check_name])
    site.add_routes([web.get("/live", live), web.get("/ready", ready), web.get("/metrics", scraped)])
    return site


def _dumps(value: object) -> str:
    return json.dumps(value, default=str)


def check(port: str) -> int:
    """Ask the service on this machine whether it is ready: 0 yes, 1 no."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=3) as answer:
            sys.stdout.write(json.dumps(json.load(answer)) + "\n")
    except urllib.error.HTTPError as error:
        sys.stdout.write(error.read().decode() + "\n")
        return 1
    except OSError as error:
        sys.stdout.write(f"no answer on port {port}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(check(os.environ.get("HEALTH_PORT", "8080")))
