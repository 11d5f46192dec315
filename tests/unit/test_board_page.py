"""The board's page in a real browser: what people see, hear and reach, over a history that the test tells."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from axe_playwright_python.async_playwright import Axe

from ops.board.guard import Guard
from ops.board.watching import Places
from tests.support.board_stage import AWAY, Stage, staged
from tests.support.board_traffic import completed, refused, steps
from tests.support.browser import chromium
from tests.support.eventually import eventually

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

pytestmark = pytest.mark.asyncio(loop_scope="module")

_WAIT = 10_000
_HTML = '<img src=x onerror="document.title=`owned`"><b>bold</b>'


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """One browser for all tests of this module; each has pages of its own."""
    async with chromium() as started:
        yield started


@asynccontextmanager
async def _looking(browser: Browser, stage: Stage, **context: Any) -> AsyncIterator[Page]:  # noqa: ANN401 - Playwright's
    """A page that looks at the board, and that must not have stumbled when it is closed."""
    stumbles: list[str] = []
    window = await browser.new_context(viewport={"width": 1300, "height": 900}, **context)
    try:
        page = await window.new_page()
        page.set_default_timeout(_WAIT)
        page.on("pageerror", lambda error: stumbles.append(str(error)))
        page.on("console", lambda said: stumbles.append(said.text) if said.type in {"error", "warning"} else None)
        await page.goto(stage.address, wait_until="commit")
        await page.wait_for_selector("#status[data-state=live]")
        yield page
    finally:
        await window.close()
    # A board that went away in the middle of a test, or does not know a saga, is no stumble of the page.
    assert not [stumble for stumble in stumbles if not re.search(r"net::ERR_|404 \(Not Found\)", stumble)]


def _now() -> datetime:
    return datetime.now(UTC)


async def _until(page: Page, expression: str) -> None:
    """Wait until an expression is true in the page, whose policy forbids the driver to wait there itself."""

    async def check() -> None:
        assert await page.evaluate(expression), expression

    await eventually(check, seconds=10)


async def _marks(page: Page) -> Mapping[str, tuple[int, str]]:
    """The marks by their saga: the lane in whose width each stands, from 0, and its kind."""
    found: dict[str, Any] = await page.evaluate(
        """() => {
          const lanes = [...document.querySelectorAll('.lane')].map((lane) => lane.getBoundingClientRect());
          return Object.fromEntries([...document.querySelectorAll('#dots .dot')].map((dot) => {
            const box = dot.getBoundingClientRect();
            const x = box.left + box.width / 2;
            return [dot.title, [lanes.findIndex((lane) => x >= lane.left && x < lane.right), dot.dataset.kind]];
          }));
        }"""
    )
    return {id_: (place, kind) for id_, (place, kind) in found.items()}


async def test_a_saga_is_seen_to_move_from_lane_to_lane_and_to_complete(browser: Browser) -> None:
    """The main thing that the board is for."""
    async with staged() as stage, _looking(browser, stage) as page:
        way = completed("p-1", begin=_now())
        for place, record in enumerate(way[:4]):
            stage.source.tell([record])

            async def stands(place: int = place) -> bool:
                return (await _marks(page)).get("p-1") == (place + 1, "forward")

            await eventually(stands, seconds=10)
        stage.source.tell(way[4:])
        await _until(page, "document.querySelector('#completed').textContent === '1'")
        await _until(page, "document.querySelectorAll('#dots .dot').length === 0")
        row = page.locator("#rows tr", has_text="p-1")
        await page.wait_for_selector("#rows .tag[data-tone=good]")
        assert "completed" in await row.inner_text()


async def test_a_link_opens_a_board_with_a_token_once_wherever_it_is_clicked(browser: Browser) -> None:
    """In a chat, too: its page is another site, and the cookie must hold from the first page on all the same."""
    guard = Guard("127.0.0.1", "correct-horse-battery")
    async with staged(guard=guard) as stage:
        link = f"{stage.address}?link={guard.link()}"
        window = await browser.new_context()
        page = await window.new_page()
        page.set_default_timeout(_WAIT)
        chat = f"<a href='{link}'>look</a>"
        await page.route("http://chat.example/", lambda it: it.fulfill(content_type="text/html", body=chat))
        await page.goto("http://chat.example/")
        await page.click("a")
        await page.wait_for_selector("#status[data-state=live]")
        assert page.url == stage.address
        (cookie,) = await window.cookies(stage.address)
        assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
        assert await page.evaluate("document.cookie") == ""
        await page.reload()
        await page.wait_for_selector("#status[data-state=live]")
        await window.close()

        stranger = await browser.new_context()
        answer = await (await stranger.new_page()).goto(link)
        assert answer is not None
        assert answer.status == 401
        await stranger.close()


async def test_a_failing_saga_is_seen_to_turn_and_go_back(browser: Browser) -> None:
    """Compensation is what nobody sees otherwise; its marks have another shape, not only another colour."""
    async with staged() as stage, _looking(browser, stage) as page:
        way = refused("p-1", "queue", "unknown_token", begin=_now())
        failed = next(at for at, record in enumerate(way) if record.entries[0].deed == "failed")
        stage.source.tell(way[: failed + 1])

        def standing(place: int) -> Any:  # noqa: ANN401 - a check for eventually
            async def stands() -> bool:
                return (await _marks(page)).get("p-1") == (place, "back")

            return stands

        await eventually(standing(2), seconds=10)
        shapes = await page.evaluate(
            """() => ['forward', 'back'].map((kind) =>
              getComputedStyle(document.querySelector(`.legend .dot[data-kind=${kind}]`)).borderRadius)"""
        )
        assert shapes[0] != shapes[1]
        stage.source.tell(way[failed + 1 : failed + 2])
        await eventually(standing(1), seconds=10)
        stage.source.tell(way[failed + 2 :])
        await _until(page, "document.querySelector('#undone').textContent === '1'")
        await _until(page, "document.querySelectorAll('#dots .dot').length === 0")
        await page.wait_for_selector("#failures li:has-text('unknown token')")


async def test_the_timeline_opens_and_closes_by_keyboard_alone(browser: Browser) -> None:
    """From the address bar on: skip link, tabs by arrow, list by arrow, Enter, Escape, and back where one was."""
    async with staged() as stage:
        begin = _now()
        for number in range(5):
            stage.source.tell(completed(f"good-{number}", begin=begin))
        stage.source.tell(refused("bad-1", "point", "balance_too_low", begin=begin))
        async with _looking(browser, stage) as page:
            await page.wait_for_selector("#rows tr:nth-child(6)")
            press = page.keyboard.press
            focused = "document.activeElement.textContent"
            await press("Tab")
            assert "Skip" in await page.evaluate(focused)
            outline = "getComputedStyle(document.activeElement).outlineStyle"
            assert await page.evaluate(outline) == "solid"
            await press("Enter")
            await press("Tab")
            assert "Latest" in await page.evaluate(focused)
            for _ in range(3):
                await press("ArrowRight")
            assert "Failed" in await page.evaluate(focused)
            assert await page.evaluate(outline) == "solid"
            await press("ArrowRight")
            await press("Tab")
            first = await page.evaluate(focused)
            assert first.startswith("good-")
            await press("ArrowDown")
            second = await page.evaluate(focused)
            assert second != first
            await press("End")
            await press("Home")
            assert await page.evaluate(focused) == first
            await press("ArrowDown")
            await press("Enter")
            await page.wait_for_selector("#story-events li")
            assert await page.evaluate("document.activeElement.id") == "story-title"
            assert await page.locator("#story-title").inner_text() == second
            assert await page.locator("#story-events li").count() == 7
            await press("Tab")
            assert await page.evaluate(focused) == "Close"
            await press("Escape")
            assert not await page.locator("#story").is_visible()
            assert await page.evaluate(focused) == second
            await press("/")
            await page.keyboard.type("bad-1")
            await press("Enter")
            await page.wait_for_selector("#story-state:has-text('Failed, all undone')")
            assert "balance too low" in (await page.locator("#failures").inner_text())


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_light_and_dark_follow_the_person_and_nobody_is_shut_out(browser: Browser, scheme: str) -> None:
    """axe-core's rules for WCAG 2.2 A and AA, contrast included, on the board and on an open timeline."""
    only = {
        "runOnly": {
            "type": "tag",
            "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
        }
    }
    places = Places(
        "127.0.0.1:5672",
        management="http://127.0.0.1:15672",
        queue_page=lambda queue: f"http://127.0.0.1:15672/#/queues/%2F/{queue}",
        traces=lambda trace: f"http://127.0.0.1:16686/trace/{trace}",
    )
    async with staged(places=places) as stage:
        begin = _now()
        stage.source.tell(steps("moving-1", "reservation", begin=begin))
        stage.source.tell(refused("bad-1", "queue", "unknown_token", begin=begin))
        stage.source.tell(completed("good-1", begin=begin))
        async with _looking(browser, stage, color_scheme=scheme, reduced_motion="reduce", bypass_csp=True) as page:
            await page.wait_for_selector("#rows tr:nth-child(3)")
            ground = await page.evaluate("getComputedStyle(document.body).backgroundColor")
            bright = sum(int(part) for part in re.findall(r"\d+", ground)[:3])
            assert (bright > 382) is (scheme == "light"), ground
            for opened in (False, True):
                if opened:
                    await page.get_by_role("button", name="bad-1").click()
                    await page.wait_for_selector("#story-events li")
                found = await Axe().run(page, options=only)
                broken = [
                    (rule["id"], [node["target"] for node in rule["nodes"]][:3])
                    for rule in found.response["violations"]
                ]
                assert not broken, broken


async def test_the_page_has_names_for_who_hears_it(browser: Browser) -> None:
    """Landmarks, headings, a table with headers, tabs, and a region that speaks politely."""
    async with staged() as stage, _looking(browser, stage) as page:
        stage.source.tell(completed("good-1", begin=_now()))
        for role, name in (
            ("banner", None),
            ("main", None),
            ("contentinfo", None),
            ("search", None),
            ("region", "Where they are"),
            ("region", "Sagas"),
            ("region", "Failures by reason"),
            ("region", "Waiting for a person"),
            ("tablist", "Sagas"),
            ("searchbox", "Find a saga by its id"),
            ("columnheader", "What"),
            ("status", None),
        ):
            assert await page.get_by_role(role, name=name).count() >= 1, (role, name)  # type: ignore[arg-type]
        await page.wait_for_selector("#rows tr")
        assert await page.get_by_role("rowheader", name="good-1").count() == 1
        assert await page.locator("#announcer").get_attribute("aria-live") == "polite"
        await _until(page, "document.querySelector('#announcer').textContent.includes('under way')")


async def test_who_hears_the_page_is_not_talked_over(browser: Browser) -> None:
    """A board that speaks with every saga cannot be listened to: one sentence in fifteen seconds is enough."""
    async with staged() as stage, _looking(browser, stage) as page:
        await _until(page, "document.querySelector('#announcer').textContent !== ''")
        await page.evaluate(
            """() => {
              window.spoken = 0;
              const everything = { childList: true, characterData: true, subtree: true };
              const listener = new MutationObserver(() => { window.spoken += 1; });
              listener.observe(document.querySelector('#announcer'), everything);
            }"""
        )
        for number in range(3):
            stage.source.tell(refused(f"bad-{number}", "point", "no_wallet", begin=_now()))
            await _until(page, f"document.querySelector('#undone').textContent === '{number + 1}'")
        await page.wait_for_selector("#figures div[data-tone=back]")
        assert await page.evaluate("window.spoken") == 0


async def test_html_in_a_message_is_shown_as_text(browser: Browser) -> None:
    """Whoever may publish may write anything; it must not run where an operator looks."""
    async with staged() as stage:
        stage.source.tell(refused("bad-1", "queue", "unknown_token", _HTML, begin=_now()))
        async with _looking(browser, stage) as page:
            title = await page.title()
            await page.get_by_role("button", name="bad-1").click()
            await page.wait_for_selector("#story-events li")
            assert _HTML in await page.locator("#story-events").inner_text()
            assert await page.locator("#story img, #story b").count() == 0
            await page.goto(f"{stage.address}#saga={_HTML.replace('=', '%3D')}")
            await page.reload()
            await page.wait_for_selector("#story-state:has-text('Not found')")
            assert await page.locator("#story-title").inner_text() == _HTML
            assert await page.locator("#story img, #story b").count() == 0
            assert await page.title() == title


async def test_a_lost_broker_is_told_on_the_page_and_forgotten_when_it_is_back(browser: Browser) -> None:
    """A page that stands still without a word is worse than none."""
    async with staged() as stage, _looking(browser, stage) as page:
        stage.source.cut()
        await page.wait_for_selector("#status[data-state=away]")
        assert await page.locator("#status").inner_text() == "Broker away"
        assert AWAY in await page.locator("#trouble").inner_text()
        stage.source.mend()
        stage.source.records += completed("good-1", begin=_now())
        await page.wait_for_selector("#status[data-state=live]")
        assert not await page.locator("#trouble").is_visible()
        await page.wait_for_selector("#rows tr:has-text('good-1')")


async def test_a_lost_board_is_told_and_found_again(browser: Browser) -> None:
    """It was restarted with a newer version; the page in the corner of the screen comes back by itself."""
    async with staged() as first:
        port = int(first.address.rstrip("/").rpartition(":")[2])
        window = await browser.new_context()
        page = await window.new_page()
        page.set_default_timeout(_WAIT)
        await page.goto(first.address, wait_until="commit")
        await page.wait_for_selector("#status[data-state=live]")
    try:
        await page.wait_for_selector("#status[data-state=away]")
        assert await page.locator("#status").inner_text() == "Board away"
        async with staged(port=port) as second:
            second.source.tell(completed("good-1", begin=_now()))
            await page.wait_for_selector("#status[data-state=live]")
            await page.wait_for_selector("#rows tr:has-text('good-1')")
    finally:
        await window.close()


async def test_a_paused_page_holds_still_and_goes_on_with_the_newest(browser: Browser) -> None:
    """What moves by itself can be stopped (WCAG 2.2.2)."""
    async with staged() as stage, _looking(browser, stage) as page:
        await page.get_by_role("button", name="Pause").click()
        stage.source.tell(completed("good-1", begin=_now()))
        await eventually(lambda: stage.watch.scene.count_completed == 1)
        beats = "performance.getEntriesByType('resource').length"
        assert await page.evaluate(beats) > 0
        assert await page.locator("#status").inner_text() == "Paused"
        assert await page.locator("#completed").inner_text() == "0"
        await page.get_by_role("button", name="Pause").click()
        await _until(page, "document.querySelector('#completed').textContent === '1'")


async def test_the_list_holds_still_while_somebody_is_in_it(browser: Browser) -> None:
    """A row that moves away under the pointer is not the row that is clicked."""
    async with staged() as stage, _looking(browser, stage) as page:
        stage.source.tell(completed("first", begin=_now()))
        await page.wait_for_selector("#rows tr:has-text('first')")
        await page.locator("#rows button").first.focus()
        stage.source.tell(completed("second", begin=_now()))
        await _until(page, "document.querySelector('#groups .count').textContent === '2'")
        assert await page.locator("#rows tr").count() == 1
        assert await page.locator("#held").is_visible()
        await page.locator("#find-id").focus()
        await page.wait_for_selector("#rows tr:has-text('second')")


async def test_nothing_moves_for_who_asked_for_less_motion(browser: Browser) -> None:
    """Movement makes some people ill; the marks then stand where their sagas are."""
    async with staged() as stage, _looking(browser, stage, reduced_motion="reduce") as page:
        stage.source.tell(steps("p-1", "point", begin=_now()))
        await page.wait_for_selector("#dots .dot")
        assert (await _marks(page))["p-1"] == (3, "forward")
        assert (
            await page.evaluate("getComputedStyle(document.querySelector('#dots .dot')).transitionDuration")
            == "0s"
        )


async def test_a_flood_does_not_freeze_the_page(browser: Browser) -> None:
    """Two thousand sagas within two seconds, and the page still answers within a blink."""
    async with staged() as stage, _looking(browser, stage) as page:
        for number in range(2_000):
            for record in completed(f"p-{number}", begin=_now())[: 3 + number % 5]:
                stage.watch.take(record)
        await _until(page, "document.querySelector('#completed').textContent.replace(',', '') >= 300")
        slowest = await page.evaluate(
            """async () => {
              let slowest = 0, last = performance.now();
              for (let frame = 0; frame < 40; frame += 1) {
                await new Promise((drawn) => { requestAnimationFrame(drawn); });
                slowest = Math.max(slowest, performance.now() - last);
                last = performance.now();
              }
              return slowest;
            }"""
        )
        assert slowest < 1_000
        assert await page.locator("#dots .dot").count() <= 350


async def test_the_page_fits_a_narrow_screen_without_scrolling_sideways(browser: Browser) -> None:
    """A telephone, or 400 % zoom (WCAG 1.4.10)."""
    async with staged() as stage, _looking(browser, stage) as page:
        stage.source.tell(completed("good-1", begin=_now()))
        await page.set_viewport_size({"width": 320, "height": 700})
        await page.wait_for_selector("#rows tr")
        assert await page.evaluate("document.documentElement.scrollWidth") <= 320
