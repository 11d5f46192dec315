"""The programs of a contender: started together, waited for, stopped together."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from tools.processes import Running, spawn, tail, until

ROOT = Path(__file__).resolve().parents[1]
_SECONDS_TO_START = 60
_SECONDS_TO_STOP = 20


class Programs:
    """Python programs of this project that run as children, each with its own log."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: dict[str, Running] = {}
        self._heard: dict[str, int] = {}

    def start(self, name: str, *command: str, settings: Mapping[str, str] | None = None) -> None:
        """Start `python *command`; its environment is ours and these settings."""
        log = self._log(name)
        self._heard[name] = log.stat().st_size if log.exists() else 0
        self._running[name] = spawn(
            [sys.executable, *command],
            environment={**os.environ, **(settings or {})},
            directory=ROOT,
            log=log,
        )

    def say(self, word: str) -> None:
        """Wait until each program that runs has written this word since it was started."""

        def all_said() -> bool:
            for name, program in self._running.items():
                if not program.alive:
                    raise RuntimeError(f"{name} ended while it started: {tail(self._log(name))}")
            return all(word in self._fresh(name) for name in self._running)

        if not until(all_said, seconds=_SECONDS_TO_START, pause=0.05):
            silent = [name for name in self._running if word not in self._fresh(name)]
            raise TimeoutError(f"not ready in time: {', '.join(silent)}")

    def pids(self) -> dict[str, int]:
        """The programs that run, by name."""
        return {name: program.pid for name, program in self._running.items()}

    def stop(self) -> None:
        """Ask all to leave, and end those that do not."""
        for program in self._running.values():
            program.signal(signal.SIGTERM)
        for program in self._running.values():
            if not program.gone_within(_SECONDS_TO_STOP):
                program.signal_group(signal.SIGKILL)
                program.gone_within(_SECONDS_TO_STOP)
        self._running.clear()

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def _fresh(self, name: str) -> str:
        with self._log(name).open(errors="replace") as log:
            log.seek(self._heard[name])
            return log.read()
