"""The peers' programs, run by an interpreter of their own, so that no package of theirs becomes one of ours."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from importlib.metadata import distributions
from pathlib import Path

from tools.processes import Running, spawn, tail, until

HERE = Path(__file__).resolve().parent
#: Made by `make peers` from requirements/peers.txt.
VENV = HERE.parents[1] / ".venv-peers"
#: Written last, so that half an installation counts as none.
INSTALLED = VENV / "requirements-installed"

_SECONDS_TO_START = 60
_SECONDS_TO_STOP = 20


class Programs:
    """What one peer has started, each with its own log."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: dict[str, Running] = {}
        self._heard: dict[str, int] = {}

    @property
    def pids(self) -> Mapping[str, int]:
        """The programs that run, by name."""
        return {name: running.pid for name, running in self._running.items()}

    def start(self, name: str, program: str, *arguments: str, settings: Mapping[str, str]) -> None:
        """Start a program of the peers' interpreter, such as `celery`, in the folder of the applications."""
        log = self._log(name)
        self._heard[name] = log.stat().st_size if log.exists() else 0
        self._running[name] = spawn(
            [str(VENV / "bin" / program), *arguments],
            environment={**os.environ, "PYTHONUNBUFFERED": "1", **settings},
            directory=HERE,
            log=log,
        )

    def wait(self, ready: Callable[[], bool]) -> None:
        """Return when the programs are ready; RuntimeError if one ends before, TimeoutError if too late."""

        def decided() -> bool:
            for name, running in self._running.items():
                if not running.alive:
                    raise RuntimeError(f"{name} ended while it started: {tail(self._log(name))}")
            return ready()

        if not until(decided, seconds=_SECONDS_TO_START, pause=0.2):
            words = "; ".join(f"{name}: {tail(self._log(name), 3)}" for name in self._running)
            raise TimeoutError(f"not ready in time: {words}")

    def all_said(self, word: str) -> bool:
        """Whether each program that runs has written this word since it was started."""
        return all(word in self._fresh(name) for name in self._running)

    def stop(self) -> None:
        """Ask all to leave, and end those that do not."""
        for running in self._running.values():
            running.signal(signal.SIGTERM)
        for running in self._running.values():
            if not running.gone_within(_SECONDS_TO_STOP):
                running.signal_group(signal.SIGKILL)
                running.gone_within(_SECONDS_TO_STOP)
        self._running.clear()

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def _fresh(self, name: str) -> str:
        with self._log(name).open(errors="replace") as log:
            log.seek(self._heard[name])
            return log.read()


def versions(*names: str) -> dict[str, str]:
    """Which versions of these packages the peers' interpreter has."""
    sites = [str(site) for site in VENV.glob("lib/python*/site-packages")]
    found = {one.name.lower(): one.version for one in distributions(path=sites)}
    return {name: found.get(name.lower(), "not installed") for name in names}
