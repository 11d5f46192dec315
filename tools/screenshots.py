"""`python -m tools.screenshots`: pictures of the board and of the management UI, taken from a real run.

A broker of its own, the five services, real payments of which some must fail, the board as an operator starts it,
and a browser without a window. Needs RabbitMQ, Chromium and Playwright on this machine; what it starts, it stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from common import saga
from tools import browser
from tools.broker import Broker, BrokerError, start_private
from tools.client import Client, connect
from tools.demo import plan
from tools.loopback import ask, free_ports
from tools.processes import spawn, tail, terminated_like_interrupted, until
from tools.stack import ROOT, Stack, StackError

if TYPE_CHECKING:
    from playwright.async_api import Browser, Locator, Page

PICTURES = ROOT / "docs" / "pictures"

_PER_SECOND = 20
# Enough for a chart with something in it.
_SECONDS = 80
# Of the demo's refused payments, so many in each round: a real evening has fewer failures than a demo.
_REFUSED = 9
_SIZE = {"width": 1280, "height": 1108}
_MOST_BYTES = 250_000
_WAIT_MS = 60_000


class NoPictureError(Exception):
    """A picture could not be taken, with a sentence for the person at the terminal."""


def main() -> int:
    """Take all pictures: 0, or 1 with a sentence about what is missing, 130 after Ctrl-C."""
    home = Path(tempfile.mkdtemp(prefix="saga-pictures-"))
    try:
        with terminated_like_interrupted(), _system(home) as broker, _board(home, broker) as address:
            asyncio.run(_take(broker, address))
    except (BrokerError, StackError, NoPictureError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted: what was started has been stopped.", file=sys.stderr)
        return 130
    finally:
        shutil.rmtree(home, ignore_errors=True)
    return 0


@contextmanager
def _system(home: Path) -> Iterator[Broker]:
    """A private broker and the five services."""
    print("Starting a broker and the five services ...")
    # The demo's users have no mailboxes.
    stack = Stack(home, environment={"NOTIFY_URLS": ""})
    node = start_private(home / "broker")
    try:
        stack.up(node.broker.amqp_url)
        yield node.broker
    finally:
        stack.down()
        node.remove()


@contextmanager
def _board(home: Path, broker: Broker) -> Iterator[str]:
    """The board, started as an operator does; its address."""
    port, log = free_ports(1)[0], home / "log" / "board.log"
    address = f"http://127.0.0.1:{port}/"
    ours = {"RABBITMQ_URL": broker.amqp_url, "RABBITMQ_MANAGEMENT_URL": broker.management_url}
    traces = ["--traces", "http://127.0.0.1:16686/trace/{trace_id}"]
    command = [sys.executable, "-m", "ops", "board", "--port", str(port), *traces]
    running = spawn(command, environment=os.environ | ours, directory=ROOT, log=log)
    try:
        if not until(lambda: ask(address)[0] == 200, seconds=30):
            raise NoPictureError(f"The board does not answer:\n{tail(log)}")
        yield address
    finally:
        running.signal(signal.SIGTERM)
        running.gone_within(10)


async def _take(broker: Broker, address: str) -> None:
    async with _browser() as browser, connect(broker.amqp_url, lambda _: None) as client:
        print(f"The board runs at {address}. Paying for {_SECONDS} s ...")
        paying = asyncio.create_task(_pay(client))
        try:
            await asyncio.sleep(_SECONDS)
            for scheme in ("light", "dark"):
                await _take_board(browser, address, scheme)
            await _take_timeline(browser, address)
            await _take_management(browser, broker)
        finally:
            paying.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await paying


async def _pay(client: Client) -> None:
    """Pay, evenly, until cancelled: mostly what goes well, some that is refused, now and then what is no JSON."""
    coming = asyncio.create_task(_prepare(client))
    while True:
        made = await coming
        coming = asyncio.create_task(_prepare(client))
        refused = [case for case in made.first if case.refusal]
        # Of every kind alike.
        left_out = {case.pay.payment_id for case in refused[_REFUSED:]}
        for case in made.first:
            if case.pay.payment_id in left_out:
                continue
            await client.publish(saga.FIRST.on, case.pay)
            await asyncio.sleep(1 / _PER_SECOND)
        await client.publish(saga.FIRST.on, made.malformed)


async def _prepare(client: Client) -> plan.Plan:
    """Hold the seats, fill the wallets and issue the tokens for a round of payments."""
    made = plan.make(f"evening-{secrets.token_hex(2)}")
    await client.ask(made.prepare)
    return made


@asynccontextmanager
async def _browser() -> AsyncIterator[Browser]:
    try:
        from playwright.async_api import async_playwright  # noqa: PLC0415 - the sentence below is for who has none
    except ImportError:
        raise NoPictureError("Playwright is missing: pip install playwright") from None
    path = browser.path()
    if path is None:
        raise NoPictureError("There is no browser: `apt-get install chromium`, or name one with BROWSER_PATH")
    async with async_playwright() as driver:
        # Chromium's sandbox refuses root, who works in containers.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        started = await driver.chromium.launch(executable_path=path, args=arguments)
        try:
            yield started
        finally:
            await started.close()


@asynccontextmanager
async def _page(browser: Browser, address: str, **wishes: str) -> AsyncIterator[Page]:
    window = await browser.new_context(viewport=_SIZE, **wishes)  # type: ignore[arg-type]
    try:
        page = await window.new_page()
        page.set_default_timeout(_WAIT_MS)
        await page.goto(address, wait_until="commit")
        yield page
    finally:
        await window.close()


async def _take_board(browser: Browser, address: str, scheme: str) -> None:
    async with _page(browser, address, color_scheme=scheme) as page:
        await page.wait_for_selector("#status[data-state=live]")
        await page.wait_for_selector("#rows tr:nth-child(12)")
        # Marks take a moment to their places.
        await asyncio.sleep(4)
        await _save(page, f"board-{scheme}.png")


async def _take_timeline(browser: Browser, address: str) -> None:
    async with _page(browser, address, color_scheme="light") as page:
        await page.wait_for_selector("#status[data-state=live]")
        await page.get_by_role("tab", name="Failed").click()
        row = page.locator("#rows tr", has_text="queue: ").first
        await row.get_by_role("button").click()
        await page.wait_for_selector("#story-events li:nth-child(9)")
        # The frame around the heading is for who came by keyboard.
        await page.evaluate("document.activeElement.blur()")
        await _save(page.locator("#story"), "board-timeline.png")


async def _take_management(browser: Browser, broker: Broker) -> None:
    async with _page(browser, broker.management_url) as page:
        await page.fill("input[name=username]", broker.user)
        await page.fill("input[name=password]", broker.password)
        await page.click("input[type=submit]")
        await page.wait_for_selector("#login, #logout, #login-status")
        await page.goto(f"{broker.management_url}/#/queues")
        await page.wait_for_selector("table.list tbody tr:nth-child(10)")
        await asyncio.sleep(1)
        await _save(page, "management-ui.png")


async def _save(page: Page | Locator, name: str) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    picture = await page.screenshot(animations="allow")
    if len(picture) > _MOST_BYTES:
        raise NoPictureError(f"{name} has {len(picture):,} bytes, which is too large for a README")
    (PICTURES / name).write_bytes(picture)
    print(f"docs/pictures/{name}: {len(picture):,} bytes")


if __name__ == "__main__":
    sys.exit(main())
