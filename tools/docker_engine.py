"""A usable Docker engine with compose: found as it is, or made; what was started here can be ended here.

Nothing that works is replaced: a running engine is taken, else an installed one is started, else Debian's own
is installed. Where a package comes from, the machine's configuration of apt says.
"""

import contextlib
import fcntl
import json
import os
import platform
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

from tools.processes import Running, spawn, tail, until

ROOT = Path(__file__).resolve().parent.parent
VAR = ROOT / "var"

_LOG = VAR / "docker_engine.log"
_ENGINE_LOG = VAR / "dockerd.log"
_STARTED = VAR / "dockerd.json"
_SOCKET = Path("/var/run/docker.sock")

# Whose compose and buildx a Debian gets that has none: they are static programs, older releases run them too.
_PLUGIN_RELEASE = "trixie"
_PACKAGES = {
    "debian": {"compose": "docker-compose", "buildx": "docker-buildx"},
    "ubuntu": {"compose": "docker-compose-v2", "buildx": "docker-buildx"},
}

_ADVICE = (
    "Install Docker Engine 20.10 or newer with the compose plugin, start it, and see that `docker info` "
    "answers. Without containers, `make test-native` runs everything that needs none."
)


class SetupError(Exception):
    """The machine cannot be made ready, with a sentence for the person at the terminal."""


def ensure() -> None:
    """Return with an engine that answers and `docker compose` at hand; raises SetupError.

    It is quiet and takes a moment when all is there. Two callers at once take turns.
    """
    with only_one("docker_engine"):
        if not _answers():
            _make_engine()
        # Buildx is worth having, not worth failing for: the classic builder does without it.
        if missing := [plugin for plugin in ("compose", "buildx") if not _has_plugin(plugin)]:
            _fetch_plugins(missing)
        if not _has_plugin("compose"):
            raise SetupError(f"`docker compose` does not run here. {_ADVICE}")


def stop() -> bool:
    """End the engine that `ensure` started, and no other; say whether there was one. Raises SetupError."""
    with only_one("docker_engine"):
        try:
            held = json.loads(_STARTED.read_text())
        except (OSError, ValueError):
            return False
        engine = Running(int(held["pid"]), str(held["began"]))
        found = engine.alive
        engine.signal(signal.SIGTERM)
        # It gives its containers their own time to end.
        if not engine.gone_within(90):
            raise SetupError(f"dockerd, process {engine.pid}, has not ended in 90 s; see {_ENGINE_LOG}")
        _STARTED.unlink()
        return found


@contextlib.contextmanager
def only_one(name: str) -> Iterator[None]:
    """Let one process at a time do what the name says, across all that use this checkout."""
    VAR.mkdir(exist_ok=True)
    with (VAR / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def stage(what: str) -> Iterator[None]:
    """Tell on one line what is being done, and at its end how many seconds it took."""
    print(f"{what} ... ", end="", flush=True)
    began = time.monotonic()
    try:
        yield
    except BaseException:
        print(f"failed after {time.monotonic() - began:.1f} s", flush=True)
        raise
    print(f"{time.monotonic() - began:.1f} s", flush=True)


def logged(
    *command: str | Path,
    log: Path,
    seconds: float = 1800,
    cwd: Path = ROOT,
    settings: Mapping[str, str] | None = None,
) -> None:
    """Run a command with its output in a log; raises SetupError with the end of that log."""
    log.parent.mkdir(parents=True, exist_ok=True)
    words = f"`{command[0]} {command[1]}`"
    with log.open("ab") as output:
        output.write(f"\n$ {' '.join(map(str, command))}\n".encode())
        output.flush()
        try:
            subprocess.run(
                command,
                check=True,
                cwd=cwd,
                timeout=seconds,
                env=os.environ | dict(settings or {}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        except OSError as problem:
            raise SetupError(f"`{command[0]}` cannot be started: {problem}") from problem
        except subprocess.TimeoutExpired as problem:
            raise SetupError(f"{words} did not end in {seconds:.0f} s; see {log}") from problem
        except subprocess.CalledProcessError as problem:
            raise SetupError(f"{words} failed; the end of {log}:\n{tail(log)}") from problem


def answer(*command: str, seconds: float = 60) -> str | None:
    """Ask a command a question: what it prints, or None if it fails, hangs or does not exist."""
    try:
        said = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            timeout=seconds,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return said.stdout.strip() if said.returncode == 0 else None


def install(*packages: str) -> None:
    """Install packages with apt, saying so first; raises SetupError for all but root on Debian or Ubuntu."""
    if os.geteuid() != 0 or not _of_family("debian"):
        raise SetupError(f"{' '.join(packages)} is missing, and only root on Debian can add it. {_ADVICE}")
    with stage(f"Installing {' '.join(packages)} with apt-get"):
        logged("apt-get", "update", log=_LOG)
        # Somebody else's installation may be under way: wait for its end.
        options = ("-oDPkg::Lock::Timeout=300", "--yes", "--no-install-recommends")
        settings = {"DEBIAN_FRONTEND": "noninteractive"}
        logged("apt-get", "install", *options, *packages, log=_LOG, settings=settings)


def debian_mirror() -> str | None:
    """Return the address from which this machine's apt takes Debian; None on anything else.

    Apt tells it only after its first update.
    """
    filters = ("Created-By: Packages", "Origin: Debian", "Label: Debian", "Component: main")
    listed = answer("apt-get", "indextargets", "--format", "$(REPO_URI)", *filters) or ""
    return next(iter(listed.split()), None)


def _answers() -> bool:
    return bool(answer("docker", "info", "--format", "{{.ServerVersion}}", seconds=20))


def _make_engine() -> None:
    if remote := os.environ.get("DOCKER_HOST"):
        raise SetupError(f"DOCKER_HOST says {remote}, where no engine answers. {_ADVICE}")
    if platform.system() != "Linux":
        raise SetupError(f"No Docker engine answers. {_ADVICE}")
    if _SOCKET.exists() and not os.access(_SOCKET, os.W_OK):
        raise SetupError(f"This user may not talk to the Docker engine: let root open {_SOCKET} to them.")
    if os.geteuid() != 0:
        raise SetupError(f"No Docker engine answers, and only root can start one. {_ADVICE}")
    if shutil.which("dockerd") is None:
        if not _of_family("debian"):
            raise SetupError(f"No Docker engine is installed. {_ADVICE}")
        # Newer releases keep the client in a package of its own.
        client_apart = shutil.which("docker") is None and answer("apt-cache", "show", "docker-cli")
        install("docker.io", *(["docker-cli"] if client_apart else []))
        # Where a service manager runs, the installation has started the engine already.
        if Path("/run/systemd/system").is_dir() and until(_answers, seconds=20):
            return
    with stage("Starting the Docker engine"):
        _start()


def _start() -> None:
    _ENGINE_LOG.unlink(missing_ok=True)
    # Erlang makes a table as long as the number of files it may open: "unlimited" costs gigabytes. And
    # the engine cannot give more than it has.
    files = min(65_536, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    engine = spawn(
        ["dockerd", "--default-ulimit", f"nofile={files}:{files}"],
        environment=os.environ,
        directory=Path("/"),
        log=_ENGINE_LOG,
    )
    _STARTED.write_text(json.dumps(asdict(engine)))
    until(lambda: _answers() or not engine.alive, seconds=60)
    if not engine.alive or not _answers():
        engine.signal(signal.SIGTERM)
        engine.gone_within(20)
        raise SetupError(f"dockerd does not run here; the end of {_ENGINE_LOG}:\n{tail(_ENGINE_LOG)}")


def _has_plugin(name: str) -> bool:
    return answer("docker", name, "version") is not None


def _fetch_plugins(names: list[str]) -> None:
    """Take plugins of the docker command out of packages and give them to this user alone.

    The programs are taken and nothing is installed: the packages of an older release's engine and of a newer
    release's plugins would not go together.
    """
    family = next((family for family in ("ubuntu", "debian") if _of_family(family)), None)
    if family is None:
        raise SetupError(f"`docker {names[0]}` is missing. {_ADVICE}")
    folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "cli-plugins"
    folder.mkdir(parents=True, exist_ok=True)
    wanted = " and ".join(f"`docker {name}`" for name in names)
    with stage(f"Adding {wanted} to {folder}"), tempfile.TemporaryDirectory(dir=VAR) as temporary:
        here = Path(temporary)
        options = _newer_debian(here) if family == "debian" else ()
        for name in names:
            package = _PACKAGES[family][name]
            logged("apt-get", *options, "download", package, log=_LOG, cwd=here)
            (archive,) = here.glob(f"{package}_*.deb")
            logged("dpkg-deb", "--extract", archive, here / name, log=_LOG)
            program = next((here / name).glob(f"usr/**/cli-plugins/docker-{name}"), None)
            if program is None:
                raise SetupError(f"the package {package} holds no `docker {name}`. {_ADVICE}")
            # The copy takes its name only when it is whole: somebody may start it at this moment.
            fresh = folder / f".docker-{name}.new"
            shutil.copy(program, fresh)
            fresh.chmod(0o755)
            fresh.replace(folder / f"docker-{name}")


def _newer_debian(here: Path) -> tuple[str, ...]:
    """Have apt read another release from the mirror it uses anyway; return the options that make it do so."""
    mirror = debian_mirror()
    if mirror is None and os.geteuid() == 0:
        logged("apt-get", "update", log=_LOG)
        mirror = debian_mirror()
    if mirror is None:
        raise SetupError(f"apt knows no Debian mirror. {_ADVICE}")
    here.chmod(0o755)
    (here / "lists" / "partial").mkdir(parents=True)
    (here / "sources.list").write_text(f"deb [{_signed()}] {mirror} {_PLUGIN_RELEASE} main\n")
    options = (
        f"-oDir::Etc::SourceList={here}/sources.list",
        "-oDir::Etc::SourceParts=/dev/null",
        f"-oDir::State::Lists={here}/lists",
        f"-oDir::Cache={here}/cache",
        "-oAPT::Sandbox::User=",
    )
    logged("apt-get", *options, "update", log=_LOG)
    return options


def _signed() -> str:
    keys = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
    return f"signed-by={keys}" if keys.exists() else ""


def _of_family(name: str) -> bool:
    """Whether this is a Debian, or an Ubuntu, or one of their children."""
    with contextlib.suppress(OSError):
        release = platform.freedesktop_os_release()
        return name in (release.get("ID", ""), *release.get("ID_LIKE", "").split())
    return False


def main(arguments: list[str]) -> int:
    """Make the engine usable, or with `stop` end the one that was started here."""
    try:
        match arguments:
            case []:
                ensure()
                version = answer("docker", "version", "--format", "{{.Server.Version}}")
                print(f"Docker engine {version} is ready.")
            case ["stop"]:
                print("The engine has ended." if stop() else "There is no engine of ours to stop.")
            case _:
                print("usage: python -m tools.docker_engine [stop]", file=sys.stderr)
                return 2
    except SetupError as problem:
        print(problem, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
