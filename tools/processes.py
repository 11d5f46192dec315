"""Programs that outlive the command that started them: begun in a session of their own, ended by pid.

A pid alone names nothing for long, because the system gives it out again. So a running program is a pid
*and* the moment it began, and whoever reads a pid from a file an hour later cannot end a stranger.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# Children of this interpreter, by what they are to others. They are kept so that they are reaped: until then
# their pid is not given out again, and a child that was killed counts as there until its last thread is gone.
_children: dict["Running", subprocess.Popen[bytes]] = {}


@dataclass(frozen=True, slots=True)
class Running:
    """A program by its pid and the moment it began."""

    pid: int
    began: str

    @property
    def alive(self) -> bool:
        """Whether this very program still runs."""
        child = _children.get(self)
        if child is None:
            return _began(self.pid) == self.began
        if child.poll() is None:
            return True
        del _children[self]
        return False

    def signal_group(self, number: signal.Signals) -> None:
        """Send a signal to the program and to what it started, which share its process group."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the program alone."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def gone_within(self, seconds: float) -> bool:
        """Wait for the program to end; say whether it did."""
        return until(lambda: not self.alive, seconds=seconds, pause=0.02)


def observe(pid: int) -> Running | None:
    """Take hold of a program that runs already; None if there is none of that pid."""
    began = _began(pid)
    return Running(pid, began) if began else None


def spawn(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    directory: Path,
    log: Path,
    user: str | None = None,
) -> Running:
    """Start a program in a session of its own, so that Ctrl-C reaches only the one who started it."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        child = subprocess.Popen(
            command,
            env=dict(environment),
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            user=user,
            group=user,
            extra_groups=[] if user else None,
        )
    # A child that ended at once is a zombie until it is waited for.
    running = Running(child.pid, _began(child.pid) or "ended at once")
    _children[running] = child
    return running


def until(ready: Callable[[], bool], *, seconds: float, pause: float = 0.1) -> bool:
    """Ask until the answer is yes or the time is up; say which."""
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() >= deadline:
            return False
        time.sleep(pause)
    return True


def tail(log: Path, lines: int = 12) -> str:
    """Return the last lines of a log, for a message that says what went wrong."""
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


@contextlib.contextmanager
def terminated_like_interrupted() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind the stack as Ctrl-C does, so that what was started is stopped."""

    def interrupt(number: int, _frame: object) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Finish the block even if the person at the terminal presses Ctrl-C again: it is what stops things."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _began(pid: int) -> str | None:
    """Return when a program began, in whatever words the system has for it; None if it has ended."""
    try:
        # The command's name, in parentheses, may hold parentheses of its own: read after the last one.
        after_name = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None if Path("/proc/self/stat").exists() else _began_by_ps(pid)
    state, began = after_name[0], after_name[19]
    return None if state in "ZX" else f"tick {began}"


def _began_by_ps(pid: int) -> str | None:
    answer = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout.split(maxsplit=1)
    return None if len(answer) < 2 or answer[0].startswith("Z") else answer[1].strip()
