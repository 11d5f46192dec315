"""Where faults are made: a system of the wanted shape, started for it and gone afterwards."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from chaos.faults import Fault, Ground, Need
from chaos.images import previous, skewed
from chaos.stage import Stage, may_filter_packets
from containers.labels import CHAOS, engine, tidy
from containers.recipes import Plan
from containers.system import System
from tools.docker_engine import SetupError
from tools.images import Images

#: What the services are told here: retries that are spent within ten seconds, so that a fault which costs attempts
#: shows, and janitors that lose patience in seconds, not in twice the deadline. All else is as delivered.
SETTINGS = {"RETRY_DELAYS": "500ms,2s,8s", "JANITOR_SECONDS": "20"}
_DISK = "concert-saga-chaos-small-disk"
_DISK_SIZE = "600m"


def possible(faults: list[Fault], images: Images, commit: str) -> tuple[dict[Fault, str], dict[str, str]]:
    """Of these faults, those that cannot be made here and why; and the images that the others want."""
    why: dict[Need, str] = {}
    more: dict[str, str] = {}
    needed = {need for fault in faults for need in fault.needs}
    if Need.PACKETS in needed and not may_filter_packets():
        why[Need.PACKETS] = f"it needs {Need.PACKETS.value}"
    builds: dict[Need, tuple[str, Callable[[], str]]] = {
        Need.PREVIOUS: ("previous", partial(previous, images, commit)),
        Need.SKEW: ("skewed", partial(skewed, images)),
    }
    for need, (name, build) in builds.items():
        if need in needed:
            try:
                more[name] = build()
            except SetupError as problem:
                why[need] = f"it needs {need.value}: {str(problem).splitlines()[0]}"
    skipped = {fault: why[need] for fault in faults for need in fault.needs if need in why}
    return skipped, more


@contextlib.contextmanager
def standing(ground: Ground, images: Images, more: Mapping[str, str], chance: random.Random) -> Iterator[Stage]:
    """A whole system of this shape; whatever an earlier run left is removed before."""
    labels = {**CHAOS, "concert-saga.ground": ground.value}
    tidy(labels)
    plan = Plan(
        labels,
        brokers=("rabbitmq-1", "rabbitmq-2", "rabbitmq-3") if ground is Ground.CLUSTER else ("rabbitmq",),
        comes_back=True,
        database_volume=_DISK if ground is Ground.SMALL_DISK else "",
        settings=SETTINGS,
    )
    system = System(images, plan)
    if plan.database_volume:
        _make_disk(labels)
    try:
        with system.running():
            yield Stage(system, chance, dict(more))
    finally:
        tidy(labels)


def _make_disk(labels: Mapping[str, str]) -> None:
    """Make a small disk in memory for the database."""
    with contextlib.closing(engine()) as client:
        options = {"type": "tmpfs", "device": "tmpfs", "o": f"size={_DISK_SIZE}"}
        client.volumes.create(_DISK, driver="local", driver_opts=options, labels=dict(labels))
