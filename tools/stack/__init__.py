"""The five services as programs on this machine, each on an SQLite file of its own: up, down, status.

What runs is written to `var/stack.json`, so that another command can find it, and everybody else's programs
are left alone. The services share nothing but the broker, so they are started and stopped in any order.
"""

import json
import os
import signal
import sqlite3
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from common import saga
from tools.loopback import ask, free_ports
from tools.processes import Running, spawn, tail, until

ROOT = Path(__file__).resolve().parents[2]
HOME = ROOT / "var"

# A service leaves within 10 s of SIGTERM; what is still there after this is ended by force.
PATIENCE = 15


class StackError(Exception):
    """A service did not come up, with a sentence and the end of its log."""


@dataclass(frozen=True, slots=True)
class Service:
    """One service as it was last started."""

    name: str
    running: Running
    port: int

    @property
    def ready(self) -> bool:
        """Whether it says that it takes messages."""
        return ask(f"http://127.0.0.1:{self.port}/ready")[0] == 200


class Stack:
    """The five services of one directory: start, stop, restart or kill any of them, or all."""

    def __init__(
        self, home: Path = HOME, *, environment: Mapping[str, str] | None = None, code: Path = ROOT
    ) -> None:
        """`environment` is added to that of every service; `code` is where their packages are."""
        self.home = home.absolute()
        self._environment = dict(environment or {})
        self._code = code
        self._services = _load(self._file)

    @property
    def running(self) -> tuple[str, ...]:
        """The services that run, ready or not, in the order of the saga."""
        return tuple(name for name in saga.SERVICES if self._alive(name))

    def service(self, name: str) -> Service:
        """The service as it was last started; KeyError if it never was."""
        return self._services[name]

    def database(self, name: str) -> Path:
        """The file of a service's database."""
        return self.home / "data" / f"{name}.sqlite3"

    def database_urls(self) -> dict[str, str]:
        """The address of every service's database, by the service's name."""
        return {name: f"sqlite://{self.database(name)}" for name in saga.SERVICES}

    def read_only(self, name: str) -> sqlite3.Connection:
        """Open a service's database for somebody who only looks; raises sqlite3.Error if it is not there."""
        return sqlite3.connect(f"{self.database(name).as_uri()}?mode=ro", uri=True, timeout=10)

    def log(self, name: str) -> Path:
        """The file to which a service writes what it does."""
        return self.home / "log" / f"{name}.log"

    def start(self, name: str, amqp_url: str, **environment: str) -> Service:
        """Start a service, unless it runs; it is not waited for."""
        if self._alive(name):
            return self._services[name]
        before = self._services.get(name)
        port = before.port if before else free_ports(1)[0]
        self.database(name).parent.mkdir(parents=True, exist_ok=True)
        ours = {
            "RABBITMQ_URL": amqp_url,
            "DATABASE_URL": self.database_urls()[name],
            "HEALTH_HOST": "127.0.0.1",
            "HEALTH_PORT": str(port),
            "PYTHONUNBUFFERED": "1",
        }
        running = spawn(
            [sys.executable, "-m", f"{name}_svc"],
            environment=os.environ | self._environment | ours | environment,
            directory=self._code,
            log=self.log(name),
        )
        self._services[name] = Service(name, running, port)
        self._save()
        return self._services[name]

    def stop(self, *names: str, seconds: float = PATIENCE) -> tuple[str, ...]:
        """Ask services to leave, all at once, and end those that do not; return the names of these."""
        known = [self._services[name] for name in names if name in self._services]
        for service in known:
            service.running.signal(signal.SIGTERM)
        stubborn = tuple(service.name for service in known if not service.running.gone_within(seconds))
        self.kill(*stubborn)
        return stubborn

    def kill(self, *names: str) -> None:
        """End services as a crash would."""
        for name in names:
            if name in self._services:
                self._services[name].running.signal_group(signal.SIGKILL)
                self._services[name].running.gone_within(10)

    def restart(self, name: str, amqp_url: str, **environment: str) -> Service:
        """Stop a service and start it anew."""
        self.stop(name)
        return self.start(name, amqp_url, **environment)

    def wait_ready(self, *names: str, seconds: float = 60) -> None:
        """Wait until services take messages; raises StackError if one ends or is not ready in time."""
        waiting = {name: self._services[name] for name in names or saga.SERVICES}

        def settled() -> bool:
            for service in list(waiting.values()):
                if not service.running.alive:
                    raise StackError(f"{service.name} ended while it started\n{tail(self.log(service.name))}")
                if service.ready:
                    del waiting[service.name]
            return not waiting

        if not until(settled, seconds=seconds):
            name, service = next(iter(waiting.items()))
            _, health = ask(f"http://127.0.0.1:{service.port}/ready")
            raise StackError(
                f"{', '.join(waiting)} not ready within {seconds:.0f} s; {name} says {health}\n"
                f"{tail(self.log(name))}"
            )

    def up(self, amqp_url: str, *, seconds: float = 60) -> tuple[str, ...]:
        """Start what does not run, wait until all take messages; return what was started."""
        started = tuple(name for name in saga.SERVICES if not self._alive(name))
        try:
            for name in started:
                self.start(name, amqp_url)
            self.wait_ready(seconds=seconds)
        except BaseException:
            self.stop(*started)
            raise
        return started

    def down(self) -> tuple[str, ...]:
        """Stop all; return the names of those that had to be ended by force."""
        return self.stop(*saga.SERVICES)

    @property
    def _file(self) -> Path:
        return self.home / "stack.json"

    def _alive(self, name: str) -> bool:
        return name in self._services and self._services[name].running.alive

    def _save(self) -> None:
        fresh = self._file.with_suffix(".new")
        fresh.write_text(json.dumps({name: asdict(service) for name, service in self._services.items()}))
        fresh.replace(self._file)


def _load(file: Path) -> dict[str, Service]:
    try:
        held = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return {name: Service(name, Running(**it["running"]), it["port"]) for name, it in held.items()}
