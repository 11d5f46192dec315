"""The board's web server: the page, the live events, one saga's story. It answers and takes no orders."""

from __future__ import annotations

import asyncio
import contextlib
import mimetypes
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from ops.board.feed import Feed
from ops.board.guard import HEADERS, Guard
from ops.output import CannotLookError

STATIC = Path(__file__).with_name("static")
#: Pages that may look at once. Each holds a connection; more than these is no team but a mistake, or malice.
MOST_FOLLOWERS = 64
#: A page that has not taken its news for so many seconds is gone.
_PATIENCE = 30.0

#: Find what is known of one saga, ready for JSON; None where nothing is. CannotLookError where nobody could look.
Tell = Callable[[str], Awaitable[dict[str, Any] | None]]
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def application(feed: Feed, guard: Guard, tell: Tell) -> web.Application:
    """The whole site."""
    site = web.Application(middlewares=[_door(guard)])
    site.on_response_prepare.append(_add_headers)
    site.on_shutdown.append(_closing(feed))
    site.add_routes(
        [
            *(web.get(path, _file(STATIC / name)) for path, name in _files()),
            web.get("/events", _events(feed)),
            web.get("/story", _story(tell)),
            web.get("/link", _link(guard)),
        ]
    )
    return site


@contextlib.asynccontextmanager
async def open_site(site: web.Application, host: str, port: int) -> AsyncIterator[int]:
    """Serve a site while the context is open; its port, chosen if 0. CannotLookError if it cannot be had."""
    runner = web.AppRunner(site, access_log=None, shutdown_timeout=2, handler_cancellation=True)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host.strip("[]"), port).start()
        except OSError as error:
            hint = "--port names another, 0 takes a free one"
            raise CannotLookError(
                f"The board cannot listen on {host} port {port} ({error.strerror}): {hint}"
            ) from None
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


def _files() -> list[tuple[str, str]]:
    """The board's own files, by the path under which they are asked for: no other can be had."""
    names = sorted(file.name for file in STATIC.iterdir() if file.is_file())
    return [("/" if name == "index.html" else f"/{name}", name) for name in names]


def _file(file: Path) -> _Handler:
    content = file.read_bytes()
    kind = {".js": "text/javascript", ".svg": "image/svg+xml"}.get(file.suffix) or mimetypes.guess_type(file.name)[
        0
    ]

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=content, content_type=kind or "application/octet-stream", charset="utf-8")

    return answer


def _events(feed: Feed) -> _Handler:
    followers = 0

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal followers
        if followers >= MOST_FOLLOWERS:
            raise web.HTTPServiceUnavailable(text="Too many pages look at this board; close some.\n")
        followers += 1
        try:
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await response.prepare(request)
            await response.write(b"retry: 1000\n\n")
            with contextlib.suppress(ConnectionError, TimeoutError):
                async for chunk in feed.follow():
                    async with asyncio.timeout(_PATIENCE):
                        await response.write(chunk)
        finally:
            followers -= 1
        return response

    return answer


def _story(tell: Tell) -> _Handler:
    async def answer(request: web.Request) -> web.Response:
        try:
            story = await tell(request.query.get("saga", ""))
        except CannotLookError as error:
            return web.json_response({"why": str(error)}, status=503)
        if story is None:
            return web.json_response({"why": "The history knows no such saga."}, status=404)
        return web.json_response(story)

    return answer


def _link(guard: Guard) -> _Handler:
    async def answer(request: web.Request) -> web.Response:
        if not guard.believes(request.headers.get("Authorization")):
            raise _wants_token()
        # The name by which it was asked is one of its own: the door has looked.
        return web.Response(text=f"http://{request.headers['Host']}/?link={guard.link()}\n")

    return answer


def _wants_token() -> web.HTTPUnauthorized:
    return web.HTTPUnauthorized(
        text="This board wants its token: open the link that `saga board` told, which is good for one time. "
        "Another one: curl -H 'Authorization: Bearer TOKEN' .../link\n",
        headers={"WWW-Authenticate": "Bearer"},
    )


def _door(guard: Guard) -> Any:  # noqa: ANN401 - aiohttp's own type of a middleware is generic
    name = "saga-board"

    @web.middleware
    async def check(request: web.Request, handler: _Handler) -> web.StreamResponse:
        page = request.path == "/"
        if not guard.knows_itself_as(request.headers.get("Host")):
            raise web.HTTPMisdirectedRequest(text="This board does not answer to that name.\n")
        if guard.is_from_elsewhere(request.headers.get("Sec-Fetch-Site"), page=page):
            raise web.HTTPForbidden(text="This board does not answer other sites.\n")
        if page and request.method == "GET" and guard.spends(request.query.get("link", "")):
            # Away from the address, which browsers remember and show. The page goes there itself: after a redirect
            # the cookie would not come along where another site's page had the link.
            response = web.Response(text="This way.\n", headers={"Refresh": "0; url=/"})
            response.set_cookie(name, guard.cookie, httponly=True, samesite="Strict", path="/")
            return response
        if not (guard.lets_in(request.cookies.get(name)) or guard.believes(request.headers.get("Authorization"))):
            raise _wants_token()
        return await handler(request)

    return check


async def _add_headers(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)


def _closing(feed: Feed) -> Callable[[web.Application], Awaitable[None]]:
    async def close(_: web.Application) -> None:
        feed.close()

    return close
