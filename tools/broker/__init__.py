"""A broker, whatever the machine has: `ensure()` finds or starts one, `stop()` ends what we started.

In this order: `RABBITMQ_URL`; the one we started before; a running Docker engine that has or can pull the
image; an installed `rabbitmq-server`, started privately; on Debian or Ubuntu as root, the same after
installing it; else one sentence that says what to install. Everything of it is in `var/broker/`.
"""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tools.broker import debian, docker
from tools.broker.address import Broker, BrokerError
from tools.broker.private import Ports, PrivateBroker, find_server, start_private
from tools.loopback import speaks_amqp
from tools.processes import until

__all__ = [
    "Broker",
    "BrokerError",
    "Ports",
    "PrivateBroker",
    "current",
    "ensure",
    "ensure_server",
    "start_private",
    "stop",
]

HOME = Path(__file__).resolve().parents[2] / "var" / "broker"

_WHAT_TO_INSTALL = (
    "No RabbitMQ can be had here. Do one of these and try again: set RABBITMQ_URL to a broker that runs;"
    " start Docker; install RabbitMQ 3.10 or later so that `rabbitmq-server` is on the PATH"
    " (Debian, Ubuntu: apt-get install rabbitmq-server; macOS: brew install rabbitmq)."
)


def ensure(home: Path = HOME, *, say: Callable[[str], None] = print) -> Broker:
    """Return a broker that takes messages, started if need be; raises BrokerError.

    Called again, by anybody in the same checkout, it returns the one that runs.
    """
    if os.environ.get("RABBITMQ_URL"):
        return _from_environment()
    with _alone(home):
        private = PrivateBroker(home / "private")
        if private.alive:
            return private.start()
        if broker := docker.running(home):
            return broker
        if image := docker.find_image(say):
            say(f"Starting RabbitMQ in a container ({image}) ...")
            return docker.start(home, image)
        ensure_server(home, say=say)
        say("Starting a private RabbitMQ on free ports ...")
        return private.start()


def current(home: Path = HOME) -> Broker | None:
    """Return the broker that `ensure` would find running; None if it would have to start one."""
    if os.environ.get("RABBITMQ_URL"):
        return _from_environment()
    private = PrivateBroker(home / "private")
    return private.broker if private.alive else docker.running(home)


def ensure_server(home: Path = HOME, *, say: Callable[[str], None] = print) -> Path:
    """Return an installed `rabbitmq-server`, installing it where that is allowed; raises BrokerError."""
    with contextlib.suppress(BrokerError):
        return find_server()
    if not debian.can_install():
        raise BrokerError(_WHAT_TO_INSTALL)
    debian.install(log=home / "apt.log", say=say)
    return find_server()


def stop(home: Path = HOME, *, forget: bool = False) -> None:
    """End the broker that `ensure` started, and no other; with `forget`, delete its data too."""
    if not home.exists():
        return
    with _alone(home):
        docker.stop(home, forget=forget)
        private = PrivateBroker(home / "private")
        if forget:
            private.remove()
        else:
            private.stop()
    if forget:
        shutil.rmtree(home, ignore_errors=True)


def _from_environment() -> Broker:
    """Take the broker we are told of; it is somebody's, so it is never started and never stopped."""
    url = os.environ["RABBITMQ_URL"]
    address = urlsplit(url)
    host = address.hostname or "localhost"
    port = address.port or (5671 if address.scheme == "amqps" else 5672)
    # A TLS broker would wait for our hello; that it can be reached is for its clients to find out.
    if address.scheme == "amqp" and not until(lambda: speaks_amqp(host, port), seconds=15):
        raise BrokerError(f"RABBITMQ_URL is set, but no broker answers on {host}:{port}")
    return Broker(
        amqp_url=url,
        management_url=os.environ.get("RABBITMQ_MANAGEMENT_URL", f"http://{host}:15672").rstrip("/"),
        user=unquote(address.username or "guest"),
        password=unquote(address.password or "guest"),
        how="environment",
    )


@contextlib.contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Let one command at a time start or stop the broker of this checkout."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
