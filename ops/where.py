"""Where the broker and the databases are: what the environment says, else what `make up` left, else the defaults.

As for a service, a variable's name with `_FILE` may name a file instead, for an address with a password in it.
Reading is all that happens here: nothing is started, and whoever needs a broker finds out when it connects.
"""

from __future__ import annotations

import getpass
import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlencode, urlsplit

from common import saga
from common.setting_files import FileError, content_of
from common.tls import OPTIONS, options_of
from ops.output import CannotLookError

#: Where `make up` keeps what it started.
HOME = Path(__file__).resolve().parents[1] / "var"

_DEFAULT = "amqp://guest:guest@127.0.0.1:5672/"
_USER = "saga"
#: The management API of a broker on its usual port is on its usual port, too.
_USUAL = {"amqp": (5672, "http", 15672), "amqps": (5671, "https", 15671)}


@dataclass(frozen=True, slots=True)
class _Found:
    amqp_url: str
    management_url: str | None


def broker_url(environment: Mapping[str, str] = os.environ, home: Path | None = None) -> str:
    """The broker's address, login included: RABBITMQ_URL, else the broker of `make up`, else a local one."""
    return _find(environment, home or HOME).amqp_url


def management_url(
    environment: Mapping[str, str] = os.environ, home: Path | None = None, *, told: str | None = None
) -> str | None:
    """The management API's address with its login, without a slash at its end; None if nobody knows it.

    RABBITMQ_MANAGEMENT_URL, else the API of the same broker. A virtual host other than `/` is appended as
    `?vhost=name`. Without a login of its own, the API is entered as the broker is; an encrypted one, without
    certificates of its own, with the broker's. `told`: what is said instead of RABBITMQ_MANAGEMENT_URL.
    """
    found = _find(environment, home or HOME)
    told = told or _told("RABBITMQ_MANAGEMENT_URL", environment) or found.management_url
    if told is None:
        return None
    broker, address = urlsplit(found.amqp_url), urlsplit(told)
    host = address.netloc.rpartition("@")[2]
    login = address.netloc.rpartition("@")[0] or broker.netloc.rpartition("@")[0] or "guest:guest"
    vhost = unquote(broker.path[1:]) or "/"
    options = ({"vhost": vhost} if vhost != "/" else {}) | options_of(told)
    if address.scheme == "https" and not any(name in options for name in OPTIONS):
        options |= {name: file for name, file in options_of(found.amqp_url).items() if name in OPTIONS}
    query = urlencode(options, safe="", quote_via=quote)
    return f"{address.scheme}://{login}@{host}{address.path.rstrip('/')}" + (f"?{query}" if query else "")


def database_urls(environment: Mapping[str, str] = os.environ, home: Path | None = None) -> dict[str, str]:
    """The address of every service's database: DATABASE_URL_<SERVICE>, else the file that `make up` uses."""
    return {
        service: _told(f"DATABASE_URL_{service.upper()}", environment)
        or f"sqlite://{(home or HOME) / 'data' / f'{service}.sqlite3'}"
        for service in saga.SERVICES
    }


def databases_of_the_broker(
    environment: Mapping[str, str] = os.environ, home: Path | None = None
) -> dict[str, str]:
    """The databases that surely belong to the broker; CannotLookError if that is not sure.

    Who names a broker, and no databases, may mean one far away; what `make up` left here knows nothing of it, and
    may know a saga of the same name.
    """
    named = [_told(f"DATABASE_URL_{service.upper()}", environment) for service in saga.SERVICES]
    if _told("RABBITMQ_URL", environment) and not all(named):
        raise CannotLookError("RABBITMQ_URL names the broker, but no DATABASE_URL_<SERVICE> the databases with it")
    return database_urls(environment, home)


def without_password(url: str) -> str:
    """An address as it may be shown: the login's name stays, its password goes."""
    try:
        address = urlsplit(url)
        user, host, port = address.username, address.hostname or "", address.port
    except ValueError:
        return "an address that cannot be read"
    host = f"[{host}]" if ":" in host else host
    place = host + (f":{port}" if port else "")
    return f"{address.scheme}://{f'{user}@' if user else ''}{place}{address.path}"


def login_name() -> str:
    """Who sits at this machine, as it knows them."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "somebody"


def _told(name: str, environment: Mapping[str, str]) -> str | None:
    """What the environment says, or the file that it names; CannotLookError for a file that cannot be read."""
    try:
        return content_of(name, environment) or environment.get(name)
    except FileError as error:
        raise CannotLookError(str(error)) from None


def _find(environment: Mapping[str, str], home: Path) -> _Found:
    told = _told("RABBITMQ_URL", environment)
    if told:
        # Any node of a cluster will do, if it is there.
        nodes = told.replace(",amqp", " amqp").split()
        node = next(filter(_answers, nodes), nodes[0]) if len(nodes) > 1 else told
        return _Found(node, _usual_management(node))
    # A private node and a container may both have been used here; the one that answers is meant.
    candidates = [found for read in (_private, _container) if (found := read(home))]
    answering = [found for found in candidates if _answers(found.amqp_url)]
    return next(iter(answering + candidates), _Found(_DEFAULT, _usual_management(_DEFAULT)))


def _usual_management(amqp_url: str) -> str | None:
    try:
        address = urlsplit(amqp_url)
        port, scheme, management = _USUAL[address.scheme]
        host = address.hostname or "localhost"
        usual = (address.port or port) == port
    except (KeyError, ValueError):
        return None
    host = f"[{host}]" if ":" in host else host
    return f"{scheme}://{host}:{management}" if usual else None


def _private(home: Path) -> _Found | None:
    kept = _read(home / "broker" / "private" / "node.json")
    return _local(kept.get("password"), kept.get("ports"))


def _container(home: Path) -> _Found | None:
    kept = _read(home / "broker" / "container.json")
    return _local(kept.get("password"), kept)


def _local(password: object, ports: object) -> _Found | None:
    """The broker on this machine's ports; None for what is no description of one."""
    match ports:
        case {"amqp": int(amqp), "management": int(management)} if isinstance(password, str):
            login = f"{_USER}:{quote(password, safe='')}"
            return _Found(f"amqp://{login}@127.0.0.1:{amqp}/", f"http://{login}@127.0.0.1:{management}")
    return None


def _read(file: Path) -> dict[str, Any]:
    try:
        kept = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}


def _answers(amqp_url: str) -> bool:
    address = urlsplit(amqp_url)
    try:
        port = address.port or _USUAL[address.scheme][0]
        with socket.create_connection((address.hostname or "", port), timeout=1):
            return True
    except (OSError, KeyError, ValueError):
        return False
