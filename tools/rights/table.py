"""What each user may do, as a table for people: the patterns, tried on every name that there is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from common import rights, saga, topology
from common.rights import Grant, Role
from common.settings import Delay

_PRIVATE = "amq.gen-x"
_EVERYTHING = "every one"


def rows(delays: Sequence[Delay]) -> list[list[str]]:
    """A row for each user: name, what they are, publish, read, declare, and the keys that they bind."""
    objects = topology.derive(delays)
    return [_row(one, objects) for one in rights.grants(objects)]


def _row(one: Grant, objects: topology.Topology) -> list[str]:
    name = one.user.name
    queues = [queue.name for queue in objects.queues]
    said = [key for key in saga.vocabulary() if _writes(one, topology.EVENTS, key)]
    recovery = {binding.key for binding in objects.bindings if binding.exchange == topology.RECOVERY}
    said += [key for key in sorted(recovery) if _writes(one, topology.RECOVERY, key)]
    if one.user.role is Role.SERVICE:
        retries = [key for key in said if ".retry." in key]
        said = [*(key for key in said if key not in retries), f"{name}.retry.*"]
    read = [queue for queue in queues if _matches(one.read, queue)]
    declared = [it for it in (*objects.exchanges, *queues) if _matches(one.configure, it)]
    everything = len(declared) == len(queues) + len(objects.exchanges)
    private = ["queues that the broker names"] if _matches(one.configure, _PRIVATE) else []
    return [
        f"`{name}`",
        one.user.role,
        _listed(said),
        _EVERYTHING if len(read) == len(queues) else _listed(read, private),
        _EVERYTHING if everything else _listed(declared, private),
    ]


def _writes(one: Grant, exchange: str, key: str) -> bool:
    topic = next(it for it in one.topics if it.exchange == exchange)
    return _matches(one.write, exchange) and _matches(topic.write, key)


def _matches(pattern: str, name: str) -> bool:
    return re.search(pattern, name) is not None


def _listed(names: Iterable[str], more: Iterable[str] = ()) -> str:
    return ", ".join([*(f"`{name}`" for name in names), *more]) or "-"
