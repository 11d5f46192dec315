"""How tests are shared out where several processes run them: what needs one broker or engine stays together."""

from __future__ import annotations

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

#: Rooms whose tests share a broker, or containers, that only one process at a time may use.
TOGETHER = frozenset({"native", "e2e"})


class ByRoom(LoadScopeScheduling):  # type: ignore[misc] # it brings no types
    """Gives a file's tests, or a whole room's, to one process, in their order."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        room = file.removeprefix("tests/").partition("/")[0]
        return room if room in TOGETHER else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByRoom:
    """Where there is more than one process: see `LANES` in the Makefile."""
    return ByRoom(config, log)
