"""The images that compose and the container tests need: official ones, or stand-ins made from Debian.

What is here already is used first, then what a registry has, and only then a stand-in is built. What is built
carries the hash of what it was made from, so that it is built again when that changes, and only then.
"""

import argparse
import contextlib
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tools import docker_engine
from tools.docker_engine import ROOT, VAR, SetupError, answer, logged, only_one, stage

ENVIRONMENT_FILE = VAR / "images.env"

_LOG = VAR / "images.log"
_RECIPES = ROOT / "deploy" / "standin"
_WHEELS = VAR / "wheels"
_MADE_FROM = "concert-saga.made-from"

_SERVICE = "concert-saga:dev"
_RELEASE = "trixie"

# What pip has to know to choose the wheels of another Python on another system than its own.
_ABOUT_PYTHON = "import platform as p, sys; print(*sys.version_info[:2], p.machine(), *p.libc_ver()[1].split('.'))"


@dataclass(frozen=True, slots=True)
class Images:
    """The names of the images, as the engine knows them."""

    rabbitmq: str
    postgres: str
    mariadb: str
    python: str
    service: str

    def environment(self) -> dict[str, str]:
        """Return the variables by which compose.yaml takes these images."""
        return {
            "RABBITMQ_IMAGE": self.rabbitmq,
            "POSTGRES_IMAGE": self.postgres,
            "MARIADB_IMAGE": self.mariadb,
            "PYTHON_IMAGE": self.python,
            "SAGA_IMAGE": self.service,
        }


@dataclass(frozen=True, slots=True)
class _Wanted:
    """An image of others: the variable that may name it, its official name, and what stands in for it."""

    variable: str
    official: str
    standin: str
    recipe: Path


_RABBITMQ = _Wanted(
    "RABBITMQ_IMAGE", "rabbitmq:4-management", "concert-saga/standin-rabbitmq:4", _RECIPES / "rabbitmq"
)
_POSTGRES = _Wanted("POSTGRES_IMAGE", "postgres:17", "concert-saga/standin-postgres:17", _RECIPES / "postgres")
_MARIADB = _Wanted("MARIADB_IMAGE", "mariadb:11.8", "concert-saga/standin-mariadb:11.8", _RECIPES / "mariadb")
_PYTHON = _Wanted("PYTHON_IMAGE", "python:3.13-slim", "concert-saga/standin-python:3.13", _RECIPES / "python")
_PROMETHEUS = _Wanted(
    "PROMETHEUS_IMAGE", "prom/prometheus:v3.5.0", "concert-saga/standin-prometheus:dev", _RECIPES / "prometheus"
)


class _Registry:
    """Where official images come from; asked no more once it could not be reached."""

    def __init__(self) -> None:
        self._away = False

    def pull(self, name: str) -> bool:
        """Try to get an image, and say whether it is here now. The engine gives up where nobody answers."""
        if self._away:
            return False
        with contextlib.suppress(SetupError), stage(f"Pulling {name}"):
            logged("docker", "pull", name, log=_LOG, seconds=300)
            return True
        self._away = True
        return False


def ensure(*, service: bool = True) -> Images:
    """Return the images, all of them present, or without the service's own; raises SetupError.

    It takes a moment when nothing changed. Two callers at once take turns.
    """
    docker_engine.ensure()
    with only_one("images"):
        registry = _Registry()
        python = _find(_PYTHON, registry)
        images = Images(
            rabbitmq=_find(_RABBITMQ, registry),
            postgres=_find(_POSTGRES, registry),
            mariadb=_find(_MARIADB, registry),
            python=python,
            service=os.environ.get("SAGA_IMAGE") or _SERVICE,
        )
        if not service:
            return images
        if images.service == _SERVICE:
            _build_service(python)
        elif not _present(images.service) and not _Registry().pull(images.service):
            raise SetupError(f"SAGA_IMAGE names {images.service}, which is neither here nor to be pulled.")
        return images


def prometheus() -> str:
    """Return an image of Prometheus, present; raises SetupError. Only the test of what it is told needs one."""
    docker_engine.ensure()
    with only_one("images"):
        return _find(_PROMETHEUS, _Registry())


def of_release(release: str, recipe: str) -> str:
    """Return a stand-in made from any release of Debian, for tests on other versions; raises SetupError.

    `recipe` is one of deploy/standin: rabbitmq, postgres, mariadb, python. The release says which version that is.
    """
    docker_engine.ensure()
    with only_one("images"):
        name = f"concert-saga/standin-{recipe}:{release}"
        made_from = _hash([*_files(_RECIPES / recipe)], *_debootstrap(release))
        if _made_from(name) != made_from:
            _build_standin(name, made_from, _RECIPES / recipe, release)
        return name


def service_on(python: str, name: str) -> None:
    """Build the services' image on the Python of another image, under a name of its own; raises SetupError."""
    docker_engine.ensure()
    with only_one("images"):
        _build_service(python, name)


def _find(wanted: _Wanted, registry: _Registry) -> str:
    if named := os.environ.get(wanted.variable):
        if not _present(named) and not _Registry().pull(named):
            raise SetupError(f"{wanted.variable} names {named}, which is neither here nor to be pulled.")
        return named
    if _present(wanted.official):
        return wanted.official
    made_from = _hash([*_files(wanted.recipe)], *_debootstrap(_RELEASE))
    if _made_from(wanted.standin) != made_from:
        if registry.pull(wanted.official):
            return wanted.official
        _build_standin(wanted.standin, made_from, wanted.recipe, _RELEASE)
    return wanted.standin


def _build_standin(name: str, made_from: str, recipe: Path, release: str) -> None:
    base = _build_standin_base(release)
    with stage(f"Building {name}"):
        _build(name, made_from, recipe, BASE=base)


def _debootstrap(release: str) -> tuple[str, ...]:
    return ("--variant=minbase", "--include=ca-certificates", release)


def _build_standin_base(release: str) -> str:
    """Make the image that stand-ins begin with: a small Debian out of the packages that apt can reach."""
    name = f"concert-saga/standin-base:{release}"
    made_from = _hash([], *_debootstrap(release))
    if _made_from(name) == made_from:
        return name
    if shutil.which("debootstrap") is None:
        docker_engine.install("debootstrap", "debian-archive-keyring")
    if os.geteuid() != 0:
        raise SetupError("No registry can be reached, and only root can build images that stand in.")
    mirror = docker_engine.debian_mirror()
    with (
        stage(f"Building {name}"),
        tempfile.TemporaryDirectory(dir=VAR) as here,
    ):
        root, archive = Path(here) / "root", Path(here) / "root.tar"
        # What debootstrap mounts lives in a mount namespace that ends with it, so that removing the directory
        # can never reach the machine's own /proc.
        apart = ("unshare", "--mount", "--propagation", "private")
        logged(*apart, "debootstrap", *_debootstrap(release), root, *([mirror] if mirror else []), log=_LOG)
        # A mirror that keeps the state of a day has lists that have run out; what they list is signed anyway.
        (root / "etc/apt/apt.conf.d/90standin").write_text('Acquire::Check-Valid-Until "false";\n')
        caches = ("./var/cache/apt/*.bin", "./var/cache/apt/archives/*.deb", "./var/lib/apt/lists/*")
        leave_out = [f"--exclude={cache}" for cache in caches]
        logged("tar", "--create", "--file", archive, "--directory", root, *leave_out, ".", log=_LOG)
        label = f"LABEL {_MADE_FROM}={made_from}"
        logged("docker", "import", "--change", label, archive, name, log=_LOG)
    return name


def _build_service(python: str, name: str = _SERVICE) -> None:
    """Build the one image of all five services, if anything it is made from has changed."""
    inputs = [ROOT / "Dockerfile", ROOT / ".dockerignore", ROOT / "requirements" / "runtime.txt"]
    inputs += [ROOT / "saga", ROOT / "tools" / "__init__.py"]
    for package in (ROOT / "common", *sorted(ROOT.glob("*_svc")), ROOT / "ops", ROOT / "tools" / "rights"):
        inputs += _files(package)
    made_from = _hash(inputs, _inspect(python, "{{.Id}}") or "")
    if _made_from(name) == made_from:
        return
    # Without them the build asks the package index itself.
    with contextlib.suppress(SetupError):
        _gather_wheels(python)
    with stage(f"Building {name}"):
        _build(name, made_from, ROOT, PYTHON_IMAGE=python)


def _gather_wheels(python: str) -> None:
    """Download what the service needs for the image's Python, outside of any container.

    Here pip's own settings and the machine's certificates hold; inside, the index may be out of reach.
    """
    said = answer("docker", "run", "--rm", "--entrypoint", "python", python, "-c", _ABOUT_PYTHON)
    major, minor, machine, *libc = (said or "- - -").split()
    if libc[:1] != ["2"]:
        return
    requirements = ROOT / "requirements" / "runtime.txt"
    made_from = _hash([requirements], major, minor, machine, *libc)
    stamp = _WHEELS / "made-from"
    if stamp.exists() and stamp.read_text() == made_from:
        return
    fresh = VAR / "wheels.new"
    shutil.rmtree(fresh, ignore_errors=True)
    # A platform's tag stands for itself alone, and an image runs wheels for its own libc and all before it.
    platforms = [f"manylinux_2_{libc_minor}_{machine}" for libc_minor in range(int(libc[1]), 4, -1)]
    with stage(f"Downloading wheels for Python {major}.{minor}"):
        logged(
            *(sys.executable, "-m", "pip", "download", "--quiet", "--require-hashes", "--only-binary=:all:"),
            *("--no-deps", "--implementation=cp", f"--python-version={major}.{minor}"),
            *(f"--platform={platform}" for platform in platforms),
            *("--requirement", requirements, "--dest", fresh),
            log=_LOG,
        )
        (fresh / "made-from").write_text(made_from)
        shutil.rmtree(_WHEELS, ignore_errors=True)
        fresh.rename(_WHEELS)


def _build(name: str, made_from: str, context: Path, **arguments: str) -> None:
    """Build an image, and forget the one that had its name before."""
    before = _inspect(name, "{{.Id}}")
    # Settings for the way out that hold here hold inside as well; the builder knows these names.
    proxies = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
    given = [f"{key}={value}" for key, value in arguments.items()]
    given += [proxy for proxy in proxies if os.environ.get(proxy)]
    logged(
        *("docker", "build", "--tag", name, "--label", f"{_MADE_FROM}={made_from}"),
        *(f"--build-arg={argument}" for argument in given),
        context,
        log=_LOG,
        # The engine's own builder, whichever was chosen for other work: it sees the images that are only here.
        settings={"BUILDX_BUILDER": answer("docker", "context", "show") or "default"},
    )
    if before and before != _inspect(name, "{{.Id}}"):
        # It stays while a container still uses it.
        answer("docker", "image", "rm", before)


def _present(name: str) -> bool:
    return _inspect(name, "{{.Id}}") is not None


def _made_from(name: str) -> str | None:
    return _inspect(name, f'{{{{index .Config.Labels "{_MADE_FROM}"}}}}')


def _inspect(name: str, what: str) -> str | None:
    return answer("docker", "image", "inspect", "--format", what, name)


def _files(folder: Path) -> list[Path]:
    """Return what of a folder goes into an image, in the same order everywhere."""
    return sorted(
        file for file in folder.rglob("*") if file.is_file() and "__pycache__" not in file.relative_to(ROOT).parts
    )


def _hash(files: Iterable[Path], *words: str) -> str:
    total = hashlib.sha256(repr(words).encode())
    for file in files:
        runs = os.access(file, os.X_OK)
        total.update(f"{file.relative_to(ROOT)} {runs} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()[:16]


def main() -> int:
    """Make the images, and write down for compose how they are called."""
    parser = argparse.ArgumentParser(prog="python -m tools.images", description=__doc__)
    parser.add_argument("--no-service", action="store_true", help="only the images that are not ours")
    try:
        images = ensure(service=not parser.parse_args().no_service)
    except SetupError as problem:
        print(problem, file=sys.stderr)
        return 1
    lines = [f"{name}={image}" for name, image in images.environment().items()]
    ENVIRONMENT_FILE.write_text("".join(f"{line}\n" for line in lines))
    print(*lines, sep="\n")
    print(f"For compose: docker compose --env-file {ENVIRONMENT_FILE.relative_to(ROOT)} up")
    return 0


if __name__ == "__main__":
    sys.exit(main())
