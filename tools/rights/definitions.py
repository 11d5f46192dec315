"""RabbitMQ's definitions: users, what they may do, and every object; a document that a broker loads at its start.

https://www.rabbitmq.com/docs/definitions
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from common import rights, topology
from common.rights import Grant, Role, User
from common.settings import Delay, Settings
from tools.rights.secrets import hashed

ALGORITHM = "rabbit_password_hashing_sha256"

#: Who may do everything in the local demo's management UI. As a publisher, they are an operator like others.
_DEMO_ADMINISTRATOR = User("saga", Role.ACTS)

Document = dict[str, Any]


def document(
    delays: Sequence[Delay],
    password_hash: Callable[[str], str],
    *,
    others: Iterable[User] = rights.OTHERS,
    lanes: Sequence[str] = (),
    vhost: str = "/",
    tags: Mapping[str, Sequence[str]] | None = None,
) -> Document:
    """Everything for one virtual host. `password_hash` is asked for each user; `tags`: more of them, by user."""
    objects = topology.derive(delays, lanes)
    granted = rights.grants(objects, others)
    return {
        "vhosts": [{"name": vhost}],
        "users": [
            {
                "name": it.user.name,
                "password_hash": password_hash(it.user.name),
                "hashing_algorithm": ALGORITHM,
                "tags": [*it.tags, *(tags or {}).get(it.user.name, ())],
                # Whoever is given a tag here mends things; they are never locked out.
                "limits": {} if it.user.name in (tags or {}) else limits(it),
            }
            for it in granted
        ],
        "permissions": [{"user": it.user.name, "vhost": vhost, **permission(it)} for it in granted],
        "topic_permissions": [
            {"user": it.user.name, "vhost": vhost, **topic} for it in granted for topic in topics(it)
        ],
        "parameters": [
            {"vhost": vhost, "component": component, "name": name, "value": value}
            for component, name, value in (
                ("vhost-limits", "limits", {"max-queues": rights.MAX_QUEUES}),
                ("operator_policy", rights.PRIVATE_POLICY, private_queues()),
            )
        ],
        "policies": [],
        "exchanges": [
            {
                "name": name,
                "vhost": vhost,
                "type": "topic",
                "durable": True,
                "auto_delete": False,
                "internal": False,
                "arguments": {},
            }
            for name in objects.exchanges
        ],
        "queues": [
            {
                "name": queue.name,
                "vhost": vhost,
                "durable": True,
                "auto_delete": False,
                "arguments": dict(queue.arguments),
            }
            for queue in objects.queues
        ],
        "bindings": [
            {
                "source": binding.exchange,
                "vhost": vhost,
                "destination": binding.queue,
                "destination_type": "queue",
                "routing_key": binding.key,
                "arguments": {},
            }
            for binding in objects.bindings
        ],
    }


def permission(granted: Grant) -> dict[str, str]:
    """A user's patterns over names, as definitions and the management API have them."""
    return {"configure": granted.configure, "write": granted.write, "read": granted.read}


def limits(granted: Grant) -> dict[str, int]:
    """How much of the broker a user may take up; empty: as much as there is."""
    most = granted.most
    return {"max-connections": most.connections, "max-channels": most.channels} if most else {}


def private_queues() -> Document:
    """The operator policy for queues that the broker names."""
    return {
        "pattern": rights.PRIVATE_PATTERN,
        "definition": dict(rights.PRIVATE_QUEUE),
        "priority": 0,
        "apply-to": "queues",
    }


def topics(granted: Grant) -> list[dict[str, str]]:
    """A user's patterns over routing keys, likewise."""
    return [{"exchange": it.exchange, "write": it.write, "read": it.read} for it in granted.topics]


def template(delays: Sequence[Delay]) -> Document:
    """Definitions without a secret: loaded as they are, nobody can log in with a password."""
    return document(delays, lambda _: "")


def demo(delays: Sequence[Delay]) -> Document:
    """Definitions for a laptop: each user's password is their name."""
    others = (*rights.OTHERS, _DEMO_ADMINISTRATOR)
    tags = {_DEMO_ADMINISTRATOR.name: ("administrator",)}
    # The salt is made from the name, so that the document is the same whenever it is written.
    return document(delays, lambda user: hashed(user, user.encode()[:4].ljust(4, b".")), others=others, tags=tags)


def files() -> dict[str, str]:
    """The documents that are kept in the repository, by their path in it."""
    delays = Settings.model_fields["retry_delays"].default
    return {
        "deploy/broker/definitions.json": written(template(delays)),
        "deploy/broker/demo.json": written(demo(delays)),
    }


def written(definitions: Document) -> str:
    """The document as a file holds it."""
    return json.dumps(definitions, indent=2) + "\n"
