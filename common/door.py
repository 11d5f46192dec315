"""Who may ask over HTTP: the names to which a server answers, and the tokens that it knows."""

from __future__ import annotations

import hmac
import ipaddress
import socket
from urllib.parse import urlsplit

#: A token that can be guessed is none.
SHORTEST_TOKEN = 16


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    address = _address(host)
    return address is not None and address.is_loopback


def answers_to(host: str, header: str | None) -> bool:
    """Whether a Host header names a server that listens on `host`; a stranger's name that leads here does not.

    A page that lets a name of its own lead to this address, to read what its browser may reach (DNS rebinding),
    needs a name. So an address is welcome where a server listens on all of them, and this machine's own name is.

    >>> answers_to("127.0.0.1", "localhost:8080"), answers_to("127.0.0.1", "stranger.example:8080")
    (True, False)
    """
    try:
        name = urlsplit(f"//{header or ''}").hostname or ""
    except ValueError:
        return False
    if name == host.strip("[]").lower() or is_loopback(name):
        return True
    listens = _address(host)
    if listens is None or not listens.is_unspecified:
        return False
    return _address(name) is not None or name in {socket.gethostname().lower(), socket.getfqdn().lower()}


def bearer(header: str | None) -> str:
    """The token in an `Authorization` header; empty if there is none.

    >>> bearer("Bearer correct-horse"), bearer("Basic eDp5"), bearer(None)
    ('correct-horse', '', '')
    """
    scheme, _, token = (header or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def is_same(secret: str, told: str) -> bool:
    """Whether what was told is the secret, in a time that tells nothing about it. No secret is like nothing."""
    return bool(secret) and hmac.compare_digest(secret.encode(), told.encode("utf-8", "replace"))


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None
