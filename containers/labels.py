"""Labels on all that is started here, so that what a run leaves behind when it is cut off is found and removed."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import docker  # type: ignore[import-untyped] # it brings no types
import docker.errors  # type: ignore[import-untyped] # as above

ROOT = Path(__file__).resolve().parents[1]
#: One checkout's run must not remove what another checkout's run is using.
_CHECKOUT = ("concert-saga.checkout", hashlib.sha256(str(ROOT).encode()).hexdigest()[:12])
#: Every container and network of the tests; `make test` removes by these labels, too.
TESTS: Mapping[str, str] = dict((("concert-saga", "test"), _CHECKOUT))
#: Every container, network and volume of `make chaos`, which may run beside the tests.
CHAOS: Mapping[str, str] = dict((("concert-saga", "chaos"), _CHECKOUT))
#: The names under which the tests run compose.yaml and compose.cluster.yaml.
PROJECT = f"concert-saga-e2e-{_CHECKOUT[1]}"


def engine() -> Any:  # noqa: ANN401 - docker brings no types
    """A client of the Docker engine; to be closed."""
    return docker.from_env()


def of_project(project: str) -> dict[str, list[str]]:
    """The filter that finds what compose made under a name."""
    return {"label": [f"com.docker.compose.project={project}"]}


def tidy(labels: Mapping[str, str] = TESTS) -> None:
    """Remove what was started under these labels; also what a run left that was cut off."""
    _tidy({"label": [f"{key}={value}" for key, value in labels.items()]})


def tidy_project(project: str) -> None:
    """Remove what compose made under a name."""
    _tidy(of_project(project))


def _tidy(mine: dict[str, list[str]]) -> None:
    with contextlib.closing(engine()) as client:
        _remove(client.containers.list(all=True, filters=mine), lambda found: found.remove(force=True, v=True))
        _remove(client.networks.list(filters=mine), lambda found: found.remove())
        _remove(client.volumes.list(filters=mine), lambda found: found.remove())


def _remove(found: Iterable[Any], remove: Callable[[Any], None]) -> None:
    for one in found:
        # Somebody else, such as the trap of `make test`, may be at it as well.
        with contextlib.suppress(docker.errors.NotFound):
            remove(one)
