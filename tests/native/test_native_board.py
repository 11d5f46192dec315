"""The board over a real broker and five real services, in a real browser."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from common import saga
from tests.support.browser import chromium
from tests.support.eventually import eventually
from tests.support.saga import Theatre, Visit
from tools.loopback import free_ports
from tools.processes import spawn, tail
from tools.stack import ROOT

if TYPE_CHECKING:
    from playwright.async_api import Page

pytestmark = pytest.mark.broker

_WAIT = 30_000


@contextlib.contextmanager
def _board(house: Theatre, home: Path, *options: str) -> Iterator[str]:
    """The board as an operator starts it; its address."""
    port, log = free_ports(1)[0], home / "board.log"
    place = f"{house.node.broker.management_url}?vhost={quote(house.vhost, safe='')}"
    ours = {"RABBITMQ_URL": house.url, "RABBITMQ_MANAGEMENT_URL": place, "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "ops", "board", "--port", str(port), "--minutes", "1", "--json", *options]
    running = spawn(command, environment=os.environ | ours, directory=ROOT, log=log)
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        running.signal(signal.SIGTERM)
        assert running.gone_within(10), tail(log)
    told = log.read_text()
    assert "Traceback" not in told, told
    assert json.loads(told)["address"].startswith(f"http://127.0.0.1:{port}/")


@contextlib.asynccontextmanager
async def _page(address: str) -> AsyncIterator[Page]:
    async with chromium() as browser:
        page = await browser.new_page()
        page.set_default_timeout(_WAIT)

        async def opens() -> None:
            try:
                await page.goto(address, wait_until="commit")
            except Exception as error:  # noqa: BLE001 - Playwright is not imported where it is not installed
                raise AssertionError(str(error)) from None

        await eventually(opens)
        await page.wait_for_selector("#status[data-state=live]")
        yield page


async def _listed(page: Page, id_: str, group: str, word: str) -> None:
    """Wait until a saga stands in one of the lists, with this word."""
    await page.get_by_role("tab", name=group).click()
    await page.locator("#find-id").focus()
    await page.wait_for_selector(f"#rows tr:has-text('{id_}'):has-text('{word}')")


async def test_real_payments_are_seen_and_told(here: Visit, house: Theatre, tmp_path: Path) -> None:
    """One completes, one is refused at the pivot, one message cannot be read; then the broker cuts us off."""
    with _board(house, tmp_path, "--traces", "http://127.0.0.1:16686/trace/{trace_id}") as address:
        async with _page(address) as page:
            (good,) = await here.paying()
            bad = here.pay()
            await here.prepare(bad, token=False)
            await here.send(good, bad)
            await here.publish(saga.FIRST.on, b"no JSON")
            await _listed(page, good.payment_id, "Completed", "completed")
            await _listed(page, bad.payment_id, "Failed", "unknown token")
            await page.get_by_role("button", name=bad.payment_id).click()
            await page.wait_for_selector("#story-state:has-text('Failed, all undone')")
            told = await page.locator("#story-events").inner_text()
            for step in saga.SAGA[:3]:
                assert f"said {step.compensation}" in told, told
            assert await page.locator("#story-links a[href*='/trace/']").count() == 1
            await page.keyboard.press("Escape")
            await page.wait_for_selector("#letters-source:has-text('in the queues now')")
            await page.wait_for_selector("#letters tr:first-child td[data-tone=bad]")
            await _cut_off(house)
            await page.wait_for_selector("#status[data-state=away]")
            await page.wait_for_selector("#status[data-state=live]")
            (after,) = await here.paying()
            await here.send(after)
            await _listed(page, after.payment_id, "Completed", "completed")


async def _cut_off(house: Theatre) -> None:
    """Close the board's connection, as a restarted broker does."""

    async def closed() -> None:
        found = [it for it in house.api("GET", "/api/vhosts/{v}/connections") if _is_boards(it)]
        assert found, "the broker's statistics do not show the board's connection yet"
        for connection in found:
            with contextlib.suppress(AssertionError):
                house.api("DELETE", f"/api/connections/{quote(connection['name'], safe='')}")

    await eventually(closed)


def _is_boards(connection: dict[str, Any]) -> bool:
    properties = connection.get("client_properties") or {}
    return properties.get("connection_name") == "saga"


def test_a_board_that_must_not_be_opened_says_why_in_one_line() -> None:
    """Exit code 2, nothing on standard output, and what to do instead."""
    done = subprocess.run(
        [sys.executable, "-m", "ops", "board", "--port", "0", "--host", "0.0.0.0"],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "SAGA_BOARD_TOKEN"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, ""), done
    (line,) = done.stderr.strip().splitlines()
    assert "SAGA_BOARD_TOKEN_FILE" in line
