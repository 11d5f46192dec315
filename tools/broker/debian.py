"""RabbitMQ from Debian's or Ubuntu's own packages, without the system service that comes with them.

Installing `rabbitmq-server` starts a broker for the whole machine and has it started at every boot. Nobody
who types `make demo` asks for that, so the start is refused while the package is configured and the units
are disabled afterwards. What was installed before us is left as it is.
"""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from tools.broker.address import BrokerError
from tools.processes import tail

# The packages that bring a unit, and the units they bring.
_UNITS = {"rabbitmq-server": ["rabbitmq-server.service"], "erlang-base": ["epmd.service", "epmd.socket"]}

_POLICY = Path("/usr/sbin/policy-rc.d")
_DENIED = 101
_MARK = "# concert-saga: no service is started while its package is installed"


def can_install() -> bool:
    """Whether this is Debian or a descendant, and we are root."""
    return os.geteuid() == 0 and Path("/etc/debian_version").exists() and shutil.which("apt-get") is not None


def install(*, log: Path, say: Callable[[str], None]) -> None:
    """Install the broker's package, having said so; raises BrokerError."""
    say("No RabbitMQ found. Installing Debian's package now (apt-get install rabbitmq-server, about 20 MB).")
    say("The machine-wide service that comes with it is neither started nor enabled.")
    log.parent.mkdir(parents=True, exist_ok=True)
    fresh = [package for package in _UNITS if not _installed(package)]
    with _no_service_started():
        # Lists that cannot be refreshed may still be good enough: the installation is what counts.
        _run(["apt-get", "update", "-qq"], log)
        installed = _run(["apt-get", "install", "-qq", "--yes", "--no-install-recommends", "rabbitmq-server"], log)
    units = [unit for package in fresh for unit in _UNITS[package]]
    if units and shutil.which("systemctl"):
        _run(["systemctl", "disable", *units], log)
    if "rabbitmq-server" in fresh:
        _run(["update-rc.d", "rabbitmq-server", "disable"], log)
    if not installed:
        raise BrokerError(f"apt-get could not install rabbitmq-server; {log} has the whole story\n{tail(log)}")


def _installed(package: str) -> bool:
    answer = subprocess.run(
        ["dpkg-query", "--show", "--showformat=${db:Status-Status}", package],
        capture_output=True,
        text=True,
        check=False,
    )
    return answer.stdout == "installed"


def _run(command: list[str], log: Path) -> bool:
    """Run a step of the installation to its end: one cut off half-way leaves a broken machine."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RABBITMQ_")}
    environment |= {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    if command[0] == "apt-get":
        command = [command[0], "-o", "DPkg::Lock::Timeout=300", *command[1:]]
    interrupted: KeyboardInterrupt | None = None
    with log.open("ab") as output:
        step = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        while step.poll() is None:
            try:
                step.wait()
            except KeyboardInterrupt as signal:
                interrupted = signal
    if interrupted:
        raise interrupted
    return step.returncode == 0


@contextlib.contextmanager
def _no_service_started() -> Iterator[None]:
    """Have Debian's policy hook refuse to start services meanwhile, and put back the one that was there."""
    if _denies_already():
        yield
        return
    aside = _POLICY.with_name("policy-rc.d.before-concert-saga")
    if _POLICY.exists() and _MARK not in _POLICY.read_text(errors="replace"):
        _POLICY.replace(aside)
    fresh = _POLICY.with_name("policy-rc.d.concert-saga")
    fresh.write_text(f"#!/bin/sh\n{_MARK}\nexit {_DENIED}\n")
    fresh.chmod(0o755)
    fresh.replace(_POLICY)
    try:
        yield
    finally:
        if aside.exists():
            aside.replace(_POLICY)
        else:
            _POLICY.unlink(missing_ok=True)


def _denies_already() -> bool:
    if not os.access(_POLICY, os.X_OK) or _MARK in _POLICY.read_text(errors="replace"):
        return False
    return subprocess.run([_POLICY, "rabbitmq-server", "start"], check=False).returncode == _DENIED
