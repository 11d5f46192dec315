"""A real browser without a window, where one can be had; else the test says what is missing and is skipped."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator

from playwright.async_api import Browser, async_playwright

from tests.support.tools import missing
from tools import browser

_HOW = "`apt-get install chromium` brings one, BROWSER_PATH names another"


@contextlib.asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Start the browser; skips the test where there is none."""
    path = browser.path()
    if path is None:
        missing("Chromium", _HOW)
    async with async_playwright() as driver:
        # Chromium's sandbox refuses root, who runs the tests in a container.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        started = await driver.chromium.launch(executable_path=path, args=arguments)
        try:
            yield started
        finally:
            await started.close()
