"""How tests are shared out where several run at once: what stands on one broker, or one engine, stays together."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent
#: Rooms whose tests share a broker, or containers, that only one of them at a time may use.
TOGETHER = frozenset({"native", "e2e"})


def pytest_itemcollected(item: pytest.Item) -> None:
    """Keep a file's tests, or a whole room's, in one process and in their order (`--dist loadgroup`).

    Here and not when all are collected: xdist looks at the groups before this file is asked then.
    """
    if item.config.pluginmanager.hasplugin("xdist"):
        place = item.path.relative_to(HERE)
        group = place.parts[0] if place.parts[0] in TOGETHER else place.as_posix()
        item.add_marker(pytest.mark.xdist_group(group))
