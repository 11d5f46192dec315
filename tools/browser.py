"""The browser that the board is tested in: one of Chromium's kind, found or, on Debian as root, installed.

`python -m tools.browser` sees to it before the tests. Whoever has none, and can install none, is told, and the
tests of the board's page are skipped.
"""

import os
import shutil
import sys

from tools import docker_engine

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def path() -> str | None:
    """Where a browser of Chromium's kind is; BROWSER_PATH names another. None if there is none."""
    named = os.environ.get("BROWSER_PATH")
    return named or next((found for name in NAMES if (found := shutil.which(name))), None)


def main() -> None:
    """Install Debian's Chromium unless there is a browser; never fails."""
    if path():
        return
    try:
        docker_engine.install("chromium")
    except docker_engine.SetupError as error:
        sys.stdout.write(f"{error}\n")
    if not path():
        sys.stdout.write("There is no browser: the board's page is not tested. BROWSER_PATH names one.\n")


if __name__ == "__main__":
    main()
