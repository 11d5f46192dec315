"""The board put together: history and management API on one side, the web server on the other, until Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import webbrowser
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

from common.door import SHORTEST_TOKEN, is_loopback
from common.history import Record
from ops import where
from ops.board import letters
from ops.board.feed import Feed
from ops.board.guard import Guard
from ops.board.site import application, open_site
from ops.board.watching import Places, Watch
from ops.broker import connected
from ops.management import Management
from ops.output import CannotLookError, say, tell_json
from ops.story.reading import records

_TRACE = "{trace_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the person at the terminal wants."""

    host: str
    port: int
    token: str | None
    since: timedelta
    traces: str | None
    management: str | None
    as_json: bool
    in_browser: bool


def problem_of(options: Options) -> str | None:
    """Why the board cannot be opened like this; None if it can."""
    if options.token is not None and len(options.token) < SHORTEST_TOKEN:
        return f"A token has at least {SHORTEST_TOKEN} characters; `openssl rand -hex 16` makes one"
    if options.token is None and not is_loopback(options.host):
        return (
            f"Others could look at a board on {options.host}: give it a token (SAGA_BOARD_TOKEN_FILE names the "
            "file that holds it, or SAGA_BOARD_TOKEN), or let it listen on 127.0.0.1 and use an SSH tunnel"
        )
    if options.traces is not None and not (_is_web(options.traces) and _TRACE in options.traces):
        return f"--traces must be a web address with {_TRACE} in it, like http://127.0.0.1:16686/trace/{_TRACE}"
    if options.management is not None and not _is_web(options.management):
        return "--management must be a web address, like http://127.0.0.1:15672"
    return None


def serve(options: Options) -> None:
    """Serve the board until Ctrl-C or SIGTERM. CannotLookError if its port cannot be had."""
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(options))


async def _serve(options: Options) -> None:
    feed = Feed()
    watch = Watch(feed, _places(options), _follow, _read, since=datetime.now(UTC) - options.since)
    guard = Guard(options.host, options.token)
    async with open_site(application(feed, guard, watch.story), options.host, options.port) as port:
        _tell(options, port, guard.link() if guard.token else None)
        with _ended_by_signals() as ended:
            work = [
                asyncio.create_task(watch.run()),
                asyncio.create_task(letters.count(watch.count_letters)),
                asyncio.create_task(ended.wait()),
            ]
            done, pending = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)
            for task in done:
                task.result()


def _tell(options: Options, port: int, link: str | None) -> None:
    host = "127.0.0.1" if options.host in {"0.0.0.0", "::"} else options.host.strip("[]")  # noqa: S104 - told, not bound
    host = f"[{host}]" if ":" in host else host
    address = f"http://{host}:{port}/" + (f"?link={link}" if link else "")
    if options.as_json:
        tell_json({"address": address})
    else:
        say(f"The board{', by a link that is good for one time' if link else ''}: {address}")
        say("Ctrl-C ends it.")
    if options.in_browser:
        webbrowser.open(address)


async def _follow(since: datetime) -> AsyncGenerator[Record | None, None]:
    """The history as it comes; None as soon as the broker answers, which a silent stream would not tell."""
    async with connected():
        pass
    yield None
    async with aclosing(records(since=since, follow=True)) as following:
        async for record in following:
            yield record


def _read(id_: str, since: datetime | None) -> AsyncGenerator[Record, None]:
    return records(since=since, about=id_)


def _places(options: Options) -> Places:
    address = urlsplit(where.without_password(where.broker_url()))
    management, vhost = options.management, "/"
    with contextlib.suppress(CannotLookError):
        api = Management()
        management, vhost = management or api.address, api.vhost
    template = options.traces
    return Places(
        broker=address.netloc.rpartition("@")[2] or "an unknown broker",
        management=management.rstrip("/") if management else None,
        queue_page=letters.page_of(management.rstrip("/") if management else None, vhost),
        traces=lambda trace: template.replace(_TRACE, trace) if template else None,
    )


def _is_web(address: str) -> bool:
    try:
        parts = urlsplit(address)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname)


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[asyncio.Event]:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    try:
        yield ended
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
