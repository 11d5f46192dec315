"""How things are mended: commands as they would be typed, for this broker's version and virtual host.

Nothing here runs them: the doctor only looks. No command holds a login; `rabbitmqctl` on the broker's machine
needs none, `rabbitmqadmin` takes its own.
"""

from __future__ import annotations

import re
import shlex

from common.topology import Binding
from ops.doctor.facts import Broker, Permission

#: Each service declares the whole topology when its session with the broker begins.
DECLARE = (
    "restart any service, which declares it (here: `make down up`; with DECLARE_TOPOLOGY=false, its deployer)"
)
START = "start it, and read its log (here: `make up`, var/log)"


def delete_queue(broker: Broker, queue: str, *, messages: int = 0) -> str:
    """How a queue is deleted; its messages are not deleted with it."""
    command = _line("rabbitmqctl", "delete_queue", queue, "--if-empty", *_vhost(broker, "--vhost"))
    return f"it holds {messages} messages: empty it, then {command}" if messages else command


def redeclare_queue(broker: Broker, queue: str, *, messages: int) -> str:
    """How a queue is made anew with the right arguments, which cannot be changed."""
    return f"{delete_queue(broker, queue, messages=messages)}; then {DECLARE}"


def unbind(broker: Broker, binding: Binding, *, kind: str = "queue") -> str:
    """How a binding is removed; `kind` is what it leads to."""
    if broker.release >= (4, 0):
        return _line(
            *("rabbitmqadmin", *_vhost(broker, "--vhost"), "delete", "binding", "--source", binding.exchange),
            *("--destination-type", kind, "--destination", binding.queue, "--routing-key", binding.key),
        )
    # What names a binding is its key; with arguments it would be longer, but ours have none.
    name = binding.key or "~"
    return _line(
        *("rabbitmqadmin", *_vhost(broker, "-V"), "delete", "binding", f"source={binding.exchange}"),
        *(f"destination_type={kind}", f"destination={binding.queue}", f"properties_key={name}"),
    )


def grant(broker: Broker, user: str, has: Permission | None, **more: tuple[str, ...]) -> str:
    """How a user is given rights on more objects: those that it has stay as they are."""
    patterns = []
    for right in ("configure", "write", "read"):
        before = getattr(has, right) if has else ""
        names = more.get(right, ())
        patterns.append(_widened(before, names) if names else before)
    return _line("rabbitmqctl", "set_permissions", *_vhost(broker, "--vhost"), user, *patterns)


def grant_topic(broker: Broker, user: str, exchange: str, write: str, read: str, keys: tuple[str, ...]) -> str:
    """How a user is given more routing keys to publish with."""
    return _line(
        *("rabbitmqctl", "set_topic_permissions", *_vhost(broker, "--vhost"), user, exchange),
        *(_widened(write, keys), read),
    )


def _widened(pattern: str, names: tuple[str, ...]) -> str:
    exact = f"^({'|'.join(re.escape(name) for name in names)})$"
    return f"{pattern}|{exact}" if pattern and pattern != "^$" else exact


def _vhost(broker: Broker, option: str) -> tuple[str, ...]:
    return () if broker.vhost == "/" else (option, broker.vhost)


def _line(*words: str) -> str:
    return f"`{shlex.join(words)}`"
