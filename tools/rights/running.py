"""A running broker is given users and permissions: only what differs is changed, and each change is told.

Nothing here ends a connection: the broker asks for a password only when somebody connects, and looks at
permissions anew with the next channel. So passwords change, and rights grow and shrink, while the services work.
"""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from common import rights, tls
from common.rights import Grant
from tools.rights.definitions import ALGORITHM, limits, permission, private_queues, topics
from tools.rights.secrets import Secrets, hashed, matches

_SECONDS = 30


class RefusedError(Exception):
    """The management API does not do it, with a sentence for the person at the terminal."""


class Broker:
    """A broker's management API, entered as an administrator: `http://user:password@host:15672?vhost=name`."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        if address.scheme not in {"http", "https"} or not address.hostname:
            raise RefusedError("The management API's address is like http://user:password@host:15672")
        self.url = url
        self._place, self._port = address.hostname, address.port
        try:
            self._encryption = tls.of_https(url)
        except ValueError as error:
            raise RefusedError(f"The management API's address: {error}") from None
        login = f"{unquote(address.username or '')}:{unquote(address.password or '')}"
        self._login = base64.b64encode(login.encode()).decode()
        self.vhost = parse_qs(address.query).get("vhost", ["/"])[0]

    def as_(self, user: str, password: str) -> Broker:
        """The same API, entered by somebody else."""
        address = urlsplit(self.url)
        login = f"{quote(user, safe='')}:{quote(password, safe='')}"
        return Broker(address._replace(netloc=f"{login}@{address.netloc.rpartition('@')[2]}").geturl())

    def ask(self, method: str, path: str, content: Mapping[str, Any] | None = None, *, missing: Any = None) -> Any:  # noqa: ANN401 - JSON
        """Ask the API; `missing` where the thing is not there. Raises RefusedError."""
        port = self._port or (15672 if self._encryption is None else 15671)
        headers = {"Authorization": f"Basic {self._login}", "Content-Type": "application/json"}
        connection = http.client.HTTPConnection(self._place, port, timeout=_SECONDS)
        try:
            if self._encryption is not None:
                context = self._encryption.files.read()
                connection = http.client.HTTPSConnection(self._place, port, timeout=_SECONDS, context=context)
            connection.request(method, f"/api/{path}", None if content is None else json.dumps(content), headers)
            answer = connection.getresponse()
            text = answer.read()
        except OSError as error:
            why = tls.why(error, self.url) or error
            raise RefusedError(f"No management API answers at {self._place}:{port}: {why}") from error
        finally:
            connection.close()
        if answer.status == http.client.NOT_FOUND:
            return missing
        if answer.status >= http.client.BAD_REQUEST:
            why = (
                "the login is wrong or no administrator's" if answer.status in {401, 403} else text.decode()[:200]
            )
            raise RefusedError(f"{method} /api/{path}: {answer.status}, {why}")
        return json.loads(text) if text else None

    def place(self, user: str) -> str:
        """Where what a user may do in the virtual host is kept, behind `permissions` or `topic-permissions`."""
        return f"{quote(self.vhost, safe='')}/{quote(user, safe='')}"


def apply(broker: Broker, granted: Iterable[Grant], secrets: Secrets) -> Iterator[str]:
    """Make users and what they may do as the table says, and tell each change. Asked again, there is none.

    What a user may do is put right before they can log in, and a topic is limited before the exchange is opened.
    """
    yield from _room(broker)
    for one in granted:
        name, user = one.user.name, f"users/{quote(one.user.name, safe='')}"
        there = broker.ask("GET", user)
        if there is None:
            # Without a password nobody logs in: the user is there to be given permissions first.
            broker.ask("PUT", user, {"password_hash": "", "hashing_algorithm": ALGORITHM, "tags": ""})
        yield from _rights(broker, one)
        yield from _limits(broker, one)
        password = secrets.password(name)
        if there is None or not matches(password, there["password_hash"]) or set(_tags(there)) != set(one.tags):
            _put(broker, name, password, one.tags)
            yield f"{name}: {'made' if there is None else 'password or tags changed'}"


def _rights(broker: Broker, one: Grant) -> Iterator[str]:
    name, place = one.user.name, broker.place(one.user.name)
    wanted = sorted(topics(one), key=lambda topic: topic["exchange"])
    has = [{key: it[key] for key in ("exchange", "write", "read")} for it in _topics(broker, name)]
    if sorted(has, key=lambda topic: topic["exchange"]) != wanted:
        for topic in wanted:
            broker.ask("PUT", f"topic-permissions/{place}", topic)
        for topic in has:
            if topic["exchange"] not in {it["exchange"] for it in wanted}:
                broker.ask("DELETE", f"topic-permissions/{place}/{quote(topic['exchange'], safe='')}")
        yield f"{name}: routing keys"
    may = broker.ask("GET", f"permissions/{place}", missing={})
    if {key: may.get(key) for key in permission(one)} != permission(one):
        broker.ask("PUT", f"permissions/{place}", permission(one))
        yield f"{name}: permissions"


def _limits(broker: Broker, one: Grant) -> Iterator[str]:
    wanted, user = limits(one), quote(one.user.name, safe="")
    found = broker.ask("GET", f"user-limits/{user}", missing=[])
    has = found[0]["value"] if found else {}
    if has == wanted:
        return
    for name, most in wanted.items():
        broker.ask("PUT", f"user-limits/{user}/{name}", {"value": most})
    for name in has.keys() - wanted.keys():
        broker.ask("DELETE", f"user-limits/{user}/{name}")
    yield f"{one.user.name}: connections and channels"


def _room(broker: Broker) -> Iterator[str]:
    """How much there may be in the virtual host of what clients make."""
    vhost = quote(broker.vhost, safe="")
    found = broker.ask("GET", f"vhost-limits/{vhost}", missing=[])
    if not found or found[0]["value"].get("max-queues") != rights.MAX_QUEUES:
        broker.ask("PUT", f"vhost-limits/{vhost}/max-queues", {"value": rights.MAX_QUEUES})
        yield f"{broker.vhost}: queues"
    policy = f"operator-policies/{vhost}/{rights.PRIVATE_POLICY}"
    there = broker.ask("GET", policy, missing={})
    if {name: there.get(name) for name in private_queues()} != private_queues():
        broker.ask("PUT", policy, private_queues())
        yield f"{broker.vhost}: queues that the broker names"


def _topics(broker: Broker, user: str) -> list[dict[str, str]]:
    found = broker.ask("GET", f"users/{quote(user, safe='')}/topic-permissions", missing=[])
    return [it for it in found if it["vhost"] == broker.vhost]


def rotate(broker: Broker, user: str, secrets: Secrets) -> None:
    """Give a user of the broker a new password. Who is connected stays; who connects reads the file again.

    The broker is told first: should this be cut off before the file is written, asking again mends it, and
    meanwhile only who connects anew is kept waiting.
    """
    there = broker.ask("GET", f"users/{quote(user, safe='')}")
    if there is None:
        raise RefusedError(f"The broker has no user {user}")
    password, url = secrets.fresh(user)
    _put(broker, user, password, _tags(there))
    secrets.write(user, url)


def strangers(broker: Broker, granted: Iterable[Grant]) -> list[str]:
    """Users who may enter the virtual host and are not in the table."""
    known = {one.user.name for one in granted}
    found = broker.ask("GET", f"vhosts/{quote(broker.vhost, safe='')}/permissions", missing=[])
    return sorted({it["user"] for it in found} - known)


def _tags(user: Mapping[str, Any]) -> list[str]:
    # A list since 3.9; one text before.
    tags = user["tags"]
    return [tag for tag in (tags.split(",") if isinstance(tags, str) else tags) if tag]


def _put(broker: Broker, user: str, password: str, tags: Iterable[str]) -> None:
    content = {"password_hash": hashed(password), "hashing_algorithm": ALGORITHM, "tags": ",".join(tags)}
    broker.ask("PUT", f"users/{quote(user, safe='')}", content)
