"""A RabbitMQ of our own, started from the installed `rabbitmq-server` and invisible to any other.

It has its own directory, node name, user, password, ports and epmd, all on the loopback interface, so two
checkouts, or a test beside a demo, never meet. What it is, is written to `node.json` in its directory, so
that another program can find it there, stop it or start it again on the same data.
"""

import contextlib
import hashlib
import json
import os
import pwd
import secrets
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from tools.broker.address import Broker, BrokerError
from tools.loopback import ask, free_ports, speaks_amqp
from tools.processes import Running, observe, spawn, tail, until

USER = "saga"

_DEBIAN_SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
_DEBIAN_USER = "rabbitmq"


@dataclass(frozen=True, slots=True)
class Ports:
    """The four ports of a node: for messages, for people, between nodes, and for finding nodes."""

    amqp: int
    management: int
    distribution: int
    epmd: int

    @classmethod
    def free(cls) -> Self:
        """Choose four that nobody listens on."""
        return cls(*free_ports(4))


@dataclass(slots=True)
class _Node:
    """What `node.json` holds: enough to stop the node, or to start it again as the same one."""

    name: str
    password: str
    ports: Ports
    runtime: Path
    server: Running | None = None
    machine: Running | None = None
    epmd: Running | None = None


class PrivateBroker:
    """One private node: start, stop, kill and start again on the same data."""

    def __init__(
        self, directory: Path, *, ports: Ports | None = None, settings: Mapping[str, str] | None = None
    ) -> None:
        """Prepare the node that lives in a directory; `settings` are further lines of rabbitmq.conf."""
        self.directory = directory.absolute()
        self._settings = dict(settings or {})
        self._node = _load(self._file) or _Node(
            name=f"saga-{secrets.token_hex(4)}@localhost",
            password=secrets.token_hex(8),
            ports=ports or Ports.free(),
            runtime=self.directory,
        )
        if ports:
            self._node.ports = ports

    @property
    def broker(self) -> Broker:
        """Where it is and who may enter; the same before and after a restart."""
        node = self._node
        return Broker(
            amqp_url=f"amqp://{USER}:{node.password}@127.0.0.1:{node.ports.amqp}/",
            management_url=f"http://127.0.0.1:{node.ports.management}",
            user=USER,
            password=node.password,
            how="private",
            pid=node.machine.pid if node.machine else None,
        )

    @property
    def alive(self) -> bool:
        """Whether the Erlang machine runs; it may still be booting."""
        return self._node.machine is not None and self._node.machine.alive

    @property
    def ready(self) -> bool:
        """Whether it speaks AMQP and its management API answers."""
        status, _ = ask(f"{self.broker.management_url}/api/overview", user=USER, password=self._node.password)
        return status == 200 and speaks_amqp("127.0.0.1", self._node.ports.amqp)

    @property
    def runtime(self) -> Path:
        """Where data, configuration and logs really are."""
        return self._node.runtime

    def start(self, *, seconds: float = 90) -> Broker:
        """Start it, or find it running, and wait until it takes messages; raises BrokerError."""
        if self.alive and self.ready:
            return self.broker
        self.kill()
        server, user = find_server(), _user_of_the_node()
        self._node.runtime = _prepare_runtime(self.directory, user)
        self._write_configuration(user)
        environment = self._environment()
        self._start_epmd(environment, user)
        self._node.server = spawn(
            [str(server)], environment=environment, directory=self.runtime, log=self._log, user=user
        )
        self._save()
        if not until(lambda: self._up or not self._started, seconds=seconds) or not self._started:
            what = "was not ready in time" if self._started else "ended while it started"
            self.stop()
            raise BrokerError(f"rabbitmq-server {what}; its logs are in {self.runtime / 'log'}\n{tail(self._log)}")
        return self.broker

    def stop(self, *, seconds: float = 30) -> None:
        """Let it close its queues and leave; after so many seconds, end it. Only its data stays behind."""
        if self._node.machine is None:
            self._find_machine()
        if self._node.machine:
            self._node.machine.signal(signal.SIGTERM)
            self._node.machine.gone_within(seconds)
        self.kill()
        self._end_epmd()
        if self._file.exists():
            self._save()

    def kill(self) -> None:
        """End it as a power cut would: no goodbye, nothing flushed. `start` begins again on the same data.

        RabbitMQ 3.10 forgets a quorum queue that was declared less than about a second before: afterwards it
        answers to its name, without messages and without a leader. A test that means a settled broker lets
        that second pass.
        """
        for running in (self._node.server, self._node.machine):
            if running:
                running.signal_group(signal.SIGKILL)
                running.signal(signal.SIGKILL)
                running.gone_within(10)
        self._node.server = self._node.machine = None

    def restart(self, *, seconds: float = 90) -> Broker:
        """Stop it in good order and start it on the same data and ports."""
        self.stop()
        return self.start(seconds=seconds)

    def remove(self) -> None:
        """End it, in no good order, and delete all it ever wrote."""
        if self._node.machine is None:
            self._find_machine()
        self.kill()
        self._end_epmd()
        shutil.rmtree(self.runtime, ignore_errors=True)
        shutil.rmtree(self.directory, ignore_errors=True)

    def ctl(self, *words: str, seconds: float = 60) -> str:
        """Run `rabbitmqctl` against it and return what that prints; raises BrokerError if it refuses."""
        user = _user_of_the_node()
        done = subprocess.run(
            [find_server().with_name("rabbitmqctl"), "--quiet", "--node", self._node.name, *words],
            env=self._environment(),
            cwd="/",
            user=user,
            group=user,
            extra_groups=[] if user else None,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        if done.returncode != 0:
            raise BrokerError(f"rabbitmqctl {' '.join(words)}: {done.stdout}{done.stderr}")
        return done.stdout

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def _file(self) -> Path:
        return self.directory / "node.json"

    @property
    def _log(self) -> Path:
        return self.directory / "start.log"

    @property
    def _started(self) -> bool:
        return self._node.server is not None and self._node.server.alive

    @property
    def _up(self) -> bool:
        self._find_machine()
        return self.alive and self.ready

    def _find_machine(self) -> None:
        """Take hold of the Erlang machine, of which `rabbitmq-server` is only the starter."""
        if self._node.machine is None:
            with contextlib.suppress(OSError, ValueError):
                self._node.machine = observe(int((self.runtime / "pid").read_text()))
                self._save()

    def _start_epmd(self, environment: Mapping[str, str], user: str | None) -> None:
        """Start the node's own finder of nodes: the common one is shared, and would outlive us unseen."""
        if self._node.epmd and self._node.epmd.alive:
            return
        epmd = shutil.which("epmd")
        if epmd is None:
            raise BrokerError("rabbitmq-server is installed, but Erlang's `epmd` is not on the PATH")
        self._node.epmd = spawn(
            [epmd, "-port", str(self._node.ports.epmd), "-address", "127.0.0.1"],
            environment=environment,
            directory=self.runtime,
            log=self._log,
            user=user,
        )
        self._save()

    def _end_epmd(self) -> None:
        if self._node.epmd:
            self._node.epmd.signal(signal.SIGTERM)
            self._node.epmd.gone_within(5)
            self._node.epmd = None

    def _environment(self) -> dict[str, str]:
        node, runtime = self._node, self.runtime
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("RABBITMQ_", "ERL_"))
        }
        return inherited | {
            "HOME": str(runtime),
            "LC_ALL": "C.UTF-8",
            "ERL_EPMD_PORT": str(node.ports.epmd),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": node.name,
            "RABBITMQ_DIST_PORT": str(node.ports.distribution),
            "RABBITMQ_PID_FILE": str(runtime / "pid"),
            "RABBITMQ_CONF_ENV_FILE": str(runtime / "none.conf"),
            "RABBITMQ_CONFIG_FILE": str(runtime / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(runtime / "none.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(runtime / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(runtime / "data"),
            "RABBITMQ_LOG_BASE": str(runtime / "log"),
            # No other machine's node may talk to it, and its schedulers do not spin on cores others need.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} "
            "+sbwt none +sbwtdcpu none +sbwtdio none",
        }

    def _write_configuration(self, user: str | None) -> None:
        node = self._node
        lines = {
            "listeners.tcp.1": f"127.0.0.1:{node.ports.amqp}",
            "management.tcp.ip": "127.0.0.1",
            "management.tcp.port": str(node.ports.management),
            "default_user": USER,
            "default_pass": node.password,
            "default_user_tags.administrator": "true",
        } | self._settings
        texts = {
            "rabbitmq.conf": "".join(f"{key} = {value}\n" for key, value in lines.items()),
            "enabled_plugins": "[rabbitmq_management].\n",
        }
        for name, text in texts.items():
            file = self.runtime / name
            file.write_text(text)
            file.chmod(0o600)
            if user:
                shutil.chown(file, user, user)
        (self.runtime / "pid").unlink(missing_ok=True)

    def _save(self) -> None:
        """Write `node.json` whole or not at all, readable to its owner alone: it holds the password."""
        self.directory.mkdir(parents=True, exist_ok=True)
        fresh = self._file.with_suffix(".new")
        fresh.touch(mode=0o600)
        fresh.write_text(json.dumps(asdict(self._node), default=str, indent=2))
        fresh.replace(self._file)


def start_private(
    directory: Path, *, ports: Ports | None = None, settings: Mapping[str, str] | None = None
) -> PrivateBroker:
    """Start a node of our own in a directory and return it ready; raises BrokerError.

    It blocks for some seconds: from a coroutine, call it with `asyncio.to_thread`.
    """
    broker = PrivateBroker(directory, ports=ports, settings=settings)
    broker.start()
    return broker


def find_server() -> Path:
    """Return the `rabbitmq-server` to start; raises BrokerError if there is none.

    Debian's own comes first: the one it puts on the PATH is a wrapper that refuses any user but two.
    """
    if _DEBIAN_SERVER.exists():
        return _DEBIAN_SERVER
    # A package for administrators may keep it where only root's PATH leads.
    found = shutil.which("rabbitmq-server", path=f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin")
    if found is None:
        raise BrokerError("there is no rabbitmq-server on this machine")
    return Path(found)


def _user_of_the_node() -> str | None:
    """Root steps down to the user that the package made for the broker; anybody else runs it as they are."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam(_DEBIAN_USER).pw_name
    except KeyError:
        return None


def _prepare_runtime(directory: Path, user: str | None) -> Path:
    """Return a directory in which the node's user may write: ours, or one outside if that is closed to it."""
    directory.mkdir(parents=True, exist_ok=True)
    if user is None:
        return directory
    inside = directory / "node"
    inside.mkdir(mode=0o700, exist_ok=True)
    shutil.chown(inside, user, user)
    may_enter = subprocess.run(
        ["/usr/bin/env", "test", "-w", inside], check=False, user=user, group=user, extra_groups=[], cwd="/"
    )
    if may_enter.returncode == 0:
        return inside
    base = Path("/var/tmp")  # noqa: S108 - it outlives a reboot, as the data should; its owner is checked below
    name = f"concert-saga-{hashlib.sha256(os.fsencode(directory)).hexdigest()[:12]}"
    outside = (base if base.is_dir() else Path(tempfile.gettempdir())) / name
    with contextlib.suppress(FileExistsError):
        outside.mkdir(mode=0o700)
        shutil.chown(outside, user, user)
    found = outside.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != pwd.getpwnam(user).pw_uid:
        raise BrokerError(f"{outside} is somebody else's: look at it, and remove it")
    return outside


def _load(file: Path) -> _Node | None:
    try:
        held = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    return _Node(
        name=held["name"],
        password=held["password"],
        ports=Ports(**held["ports"]),
        runtime=Path(held["runtime"]),
        server=_running(held["server"]),
        machine=_running(held["machine"]),
        epmd=_running(held["epmd"]),
    )


def _running(held: dict[str, object] | None) -> Running | None:
    return Running(int(str(held["pid"])), str(held["began"])) if held else None
