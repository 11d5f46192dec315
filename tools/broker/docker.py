"""RabbitMQ in a container, where a Docker engine runs already and has the image or can get it.

The container is thrown away when it stops; what the broker must not lose is in a volume of the same name.
"""

import hashlib
import json
import os
import secrets
import subprocess
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from tools.broker.address import Broker, BrokerError
from tools.loopback import ask, free_ports, speaks_amqp
from tools.processes import until

USER = "saga"

OFFICIAL = "rabbitmq:4-management"
# What tools/images.py makes from Debian's packages where no registry can be reached.
STAND_IN = "concert-saga/standin-rabbitmq:4"


@dataclass(frozen=True, slots=True)
class _Container:
    """What `container.json` holds: enough to find the container again, or to run it anew on its volume."""

    name: str
    password: str
    amqp: int
    management: int


def find_image(say: Callable[[str], None]) -> str | None:
    """Return an image that a running engine has, or could be made to pull; None if there is neither."""
    if not _docker("info", seconds=20):
        return None
    wanted = os.environ.get("RABBITMQ_IMAGE")
    for image in [wanted] if wanted else [OFFICIAL, STAND_IN]:
        if _docker("image", "inspect", image):
            return image
    image = wanted or OFFICIAL
    say(f"Docker runs: pulling {image} ...")
    if _docker("pull", "--quiet", image, seconds=600):
        return image
    say(f"{image} cannot be pulled: going on without Docker.")
    return None


def start(home: Path, image: str, *, seconds: float = 120) -> Broker:
    """Run the broker's container and wait until it takes messages; raises BrokerError."""
    kept = _load(home) or _new(home)
    _docker("rm", "--force", kept.name)
    run = subprocess.run(
        [
            *("docker", "run", "--detach", "--name", kept.name, "--hostname", "saga-broker"),
            *("--label", "concert-saga=broker", "--volume", f"{kept.name}:/var/lib/rabbitmq"),
            *("--publish", f"127.0.0.1:{kept.amqp}:5672", "--publish", f"127.0.0.1:{kept.management}:15672"),
            *("--env", "RABBITMQ_DEFAULT_USER", "--env", "RABBITMQ_DEFAULT_PASS", image),
        ],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"RABBITMQ_DEFAULT_USER": USER, "RABBITMQ_DEFAULT_PASS": kept.password},
    )
    if run.returncode != 0:
        raise BrokerError(f"docker could not run {image}: {run.stderr.strip()}")
    if not until(lambda: _ready(kept), seconds=seconds, pause=0.3):
        logs = subprocess.run(
            ["docker", "logs", "--tail", "12", kept.name], capture_output=True, text=True, check=False
        )
        stop(home)
        raise BrokerError(f"{image} was not ready within {seconds:.0f} s\n{logs.stdout}{logs.stderr}")
    return _broker(kept, run.stdout.strip())


def running(home: Path) -> Broker | None:
    """Return the broker whose container runs already, if there is one."""
    kept = _load(home)
    if kept is None or not _ready(kept):
        return None
    container = subprocess.run(
        ["docker", "inspect", "--format", "{{.Id}}", kept.name], capture_output=True, text=True, check=False
    ).stdout.strip()
    return _broker(kept, container) if container else None


def stop(home: Path, *, forget: bool = False) -> None:
    """Remove our container if there is one; with `forget`, its data too."""
    kept = _load(home)
    if kept is None:
        return
    _docker("stop", "--time", "30", kept.name)
    _docker("rm", "--force", "--volumes", kept.name)
    if forget:
        _docker("volume", "rm", "--force", kept.name)
        _file(home).unlink(missing_ok=True)


def _ready(kept: _Container) -> bool:
    status, _ = ask(f"http://127.0.0.1:{kept.management}/api/overview", user=USER, password=kept.password)
    return status == 200 and speaks_amqp("127.0.0.1", kept.amqp)


def _broker(kept: _Container, container: str) -> Broker:
    return Broker(
        amqp_url=f"amqp://{USER}:{kept.password}@127.0.0.1:{kept.amqp}/",
        management_url=f"http://127.0.0.1:{kept.management}",
        user=USER,
        password=kept.password,
        how="docker",
        container=container,
    )


def _docker(*arguments: str, seconds: float = 60) -> bool:
    """Run a docker command; whether it was done. No docker, or one that hangs, is a no."""
    try:
        done = subprocess.run(["docker", *arguments], capture_output=True, check=False, timeout=seconds)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _file(home: Path) -> Path:
    return home / "container.json"


def _load(home: Path) -> _Container | None:
    try:
        return _Container(**json.loads(_file(home).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _new(home: Path) -> _Container:
    amqp, management = free_ports(2)
    home.mkdir(parents=True, exist_ok=True)
    kept = _Container(
        name=f"concert-saga-broker-{hashlib.sha256(os.fsencode(home.absolute())).hexdigest()[:12]}",
        password=secrets.token_hex(8),
        amqp=amqp,
        management=management,
    )
    _file(home).touch(mode=0o600)
    _file(home).write_text(json.dumps(asdict(kept)))
    return kept
