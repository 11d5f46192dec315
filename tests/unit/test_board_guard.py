"""Who may look at the board: this machine, or who has the token; and nobody by a trick."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import aiohttp
import pytest

from common.door import is_loopback
from ops.board.feed import Feed
from ops.board.guard import Guard
from ops.board.running import Options, problem_of
from ops.board.site import MOST_FOLLOWERS, STATIC, application, open_site
from ops.output import CannotLookError
from tests.support.eventually import eventually

TOKEN = "correct-horse-battery"


async def _knows_nothing(_: str) -> dict[str, Any] | None:
    return None


@asynccontextmanager
async def _open(guard: Guard | None = None, feed: Feed | None = None) -> AsyncIterator[aiohttp.ClientSession]:
    site = application(feed or Feed(), guard or Guard("127.0.0.1"), _knows_nothing)
    async with (
        open_site(site, "127.0.0.1", 0) as port,
        aiohttp.ClientSession(
            f"http://127.0.0.1:{port}",
            cookie_jar=aiohttp.CookieJar(unsafe=True),
            timeout=aiohttp.ClientTimeout(10),
        ) as browser,
    ):
        yield browser


def _options(**changed: object) -> Options:
    standard: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": 0,
        "token": None,
        "since": timedelta(0),
        "traces": None,
        "management": None,
        "as_json": False,
        "in_browser": False,
    }
    return Options(**(standard | changed))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "board.example", "127.0.0.1.example", ""])
def test_no_board_is_opened_to_others_without_a_token(host: str) -> None:
    """What is paid, and by which ids, is not for everybody on the network."""
    assert not is_loopback(host)
    assert "token" in (problem_of(_options(host=host)) or "")
    assert problem_of(_options(host=host, token=TOKEN)) is None


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "localhost", "::1", "[::1]"])
def test_this_machine_needs_no_token(host: str) -> None:
    """Whoever has a login here could ask the broker itself."""
    assert problem_of(_options(host=host)) is None


@pytest.mark.parametrize("token", ["", "short", "x" * 15])
def test_a_token_that_can_be_guessed_is_refused(token: str) -> None:
    """An empty variable in the environment must not open the door."""
    assert "16 characters" in (problem_of(_options(token=token)) or "")


@pytest.mark.parametrize("traces", ["javascript:alert('{trace_id}')", "http://traces.example/", "{trace_id}"])
def test_links_lead_to_web_addresses_only(traces: str) -> None:
    """A link of another kind would run with the page's rights."""
    assert problem_of(_options(traces=traces))
    assert problem_of(_options(traces="https://traces.example/{trace_id}")) is None


@pytest.mark.parametrize(
    ("header", "welcome"),
    [
        ("127.0.0.1:8585", True),
        ("localhost:8585", True),
        ("[::1]:8585", True),
        ("attacker.example:8585", False),
        ("127.0.0.1.attacker.example", False),
        ("localhost@attacker.example", False),
        ("", False),
        ("[::1", False),
    ],
)
async def test_a_strangers_name_for_this_address_is_not_answered(header: str, welcome: bool) -> None:
    """DNS rebinding: a page of theirs asks under a name of theirs that leads here, and would read the answer."""
    async with _open() as browser, browser.get("/", headers={"Host": header}) as answer:
        assert (answer.status == 200) is welcome, answer.status


def test_a_board_on_every_address_answers_to_addresses_and_to_nobodys_name() -> None:
    """Whoever rebinds needs a name, so an address is none of theirs."""
    guard = Guard("0.0.0.0", TOKEN)
    assert guard.knows_itself_as("192.168.1.7:8585")
    assert not guard.knows_itself_as("attacker.example:8585")
    assert Guard("board.example", TOKEN).knows_itself_as("BOARD.example:8585")


@pytest.mark.parametrize("path", ["/events", "/story?saga=p-1", "/board.js"])
@pytest.mark.parametrize("site", ["cross-site", "same-site"])
async def test_other_sites_are_not_answered(path: str, site: str) -> None:
    """Not even blindly: they could hold connections, or learn from how long an answer takes."""
    async with _open() as browser, browser.get(path, headers={"Sec-Fetch-Site": site}) as answer:
        assert answer.status == 403
        assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize("path", ["/", "/board.js", "/events", "/story?saga=p-1", "/nothing", "/../guard.py"])
async def test_every_answer_tells_the_browser_to_run_nothing_but_the_boards_own_files(path: str) -> None:
    """The second wall behind textContent: even a text that got into the page as a script would not run."""
    async with _open() as browser, browser.get(path) as answer:
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert "require-trusted-types-for 'script'" in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"
        assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/board.js", "/events", "/story?saga=p-1", "/no", "/link"),
        *("/?link=", "/?link=wrong-wrong-wrong", f"/?link={TOKEN}", f"/?token={TOKEN}"),
    ],
)
async def test_without_the_token_nothing_is_shown(path: str) -> None:
    """The page's files as well as what they show; and the token itself is worth nothing in an address."""
    guard = Guard("127.0.0.1", TOKEN)
    guard.link()
    async with _open(guard) as browser, browser.get(path) as answer:
        assert answer.status == 401
        assert TOKEN not in await answer.text()


async def test_a_link_is_good_for_one_time_and_then_a_cookie_stands_for_it() -> None:
    """An address is remembered, shown and shared, and written into logs; a cookie is not, and is not the token."""
    guard = Guard("127.0.0.1", TOKEN)
    link = guard.link()
    async with _open(guard) as browser:
        async with browser.head("/", params={"link": link}) as answer:
            assert answer.status == 401, "a chat that only looks whether there is a page does not use it up"
        async with browser.get("/", params={"link": link}) as answer:
            assert answer.status == 200
            assert answer.headers["Refresh"] == "0; url=/"
            given = answer.cookies["saga-board"]
            assert given["httponly"]
            assert given["samesite"] == "Strict"
            assert given.value not in {TOKEN, link}
        async with browser.get("/board.js") as answer:
            assert answer.status == 200
    async with _open(guard) as other, other.get("/", params={"link": link}) as answer:
        assert answer.status == 401
        assert "saga-board" not in answer.cookies


async def test_a_program_brings_the_token_and_can_have_another_link_made() -> None:
    """A script reads the board, and a second person gets a link of their own, while it goes on."""
    guard = Guard("127.0.0.1", TOKEN)
    async with _open(guard) as program, _open(guard) as browser:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with program.get("/board.js", headers=headers) as answer:
            assert answer.status == 200
        async with program.get("/link", headers=headers) as answer:
            secret = (await answer.text()).strip().partition("/?link=")[2]
        async with browser.get("/", params={"link": secret}) as answer:
            assert answer.status == 200
        async with browser.get("/") as answer:
            assert answer.status == 200
        async with browser.get("/link") as answer:
            assert answer.status == 401, "a cookie looks, and lets nobody else in"


def test_links_that_nobody_opens_run_out() -> None:
    """Whoever asks again and again fills no memory, and the first of many is void."""
    guard = Guard("127.0.0.1", TOKEN)
    links = [guard.link() for _ in range(100)]
    assert not guard.spends(links[0])
    assert guard.spends(links[-1])
    assert not guard.spends(links[-1])
    assert not guard.spends("")


async def test_another_boards_cookie_opens_nothing() -> None:
    """Each board gives its own, so one that was ended takes its guests with it."""
    other = Guard("127.0.0.1", TOKEN).cookie
    async with (
        _open(Guard("127.0.0.1", TOKEN)) as browser,
        browser.get("/", headers={"Cookie": f"saga-board={other}"}) as answer,
    ):
        assert answer.status == 401


@pytest.mark.parametrize("address", ["javascript:alert(1)", "//host", "file:///etc/passwd"])
def test_the_management_uis_link_leads_to_a_web_address_only(address: str) -> None:
    """As above: who sets the environment must not reach into the page."""
    assert problem_of(_options(management=address))


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
async def test_nothing_can_be_done_through_the_board(method: str) -> None:
    """It only looks: acting is for the terminal, where a name stands behind it."""
    async with _open() as browser:
        for path in ("/", "/events", "/story", "/link"):
            async with browser.request(method, path) as answer:
                assert answer.status == 405


async def test_the_page_asks_nobody_else_for_anything() -> None:
    """It must work without the internet, and tell nobody that it is looked at."""
    for file in STATIC.iterdir():
        told = file.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "http:" not in told, file.name
        assert "https:" not in told, file.name
        assert "innerHTML" not in told, file.name


async def test_too_many_pages_are_refused_and_those_that_leave_make_room() -> None:
    """Each holds a connection; a page that is opened again and again must not use up the board."""
    async with _open() as browser:
        pages = [await browser.get("/events") for _ in range(MOST_FOLLOWERS)]
        async with browser.get("/events") as answer:
            assert answer.status == 503
        pages[0].close()

        async def is_let_in() -> bool:
            async with browser.get("/events") as answer:
                return answer.status == 200

        await eventually(is_let_in, seconds=10)
        for page in pages:
            page.close()


async def test_a_port_that_is_taken_is_told_in_a_sentence() -> None:
    """A traceback tells nobody what to do."""
    site = application(Feed(), Guard("127.0.0.1"), _knows_nothing)
    async with open_site(site, "127.0.0.1", 0) as port:
        again = application(Feed(), Guard("127.0.0.1"), _knows_nothing)
        with pytest.raises(CannotLookError, match=f"port {port}"):
            async with open_site(again, "127.0.0.1", port):
                pass
