"""Who may ask the board, and what a browser may do with its answers.

The board shows what payments are made, so it answers on this machine only, or to whoever has the token. Somebody
else's page in the same browser must not read it either: not by another name for this address (the Host header
is checked), not across sites (no CORS, and `Sec-Fetch-Site` is believed), and not by a text in a message
(nothing but the board's own files may run).
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

#: A token that can be guessed is none.
SHORTEST_TOKEN = 16

HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class Guard:
    """The door of a board that listens on `host`. Without a token everybody on this machine may look."""

    host: str
    token: str | None = None
    _session: str = field(default_factory=lambda: secrets.token_urlsafe(32))

    def knows_itself_as(self, header: str | None) -> bool:
        """Whether a Host header names this board; a stranger's name that leads here does not."""
        try:
            name = urlsplit(f"//{header or ''}").hostname or ""
        except ValueError:
            return False
        if name == self.host.strip("[]").lower() or is_loopback(name):
            return True
        if not _is_every_address(self.host):
            return False
        # Whoever rebinds a name of theirs needs a name; an address, or this machine's own name, is none of theirs.
        return _is_address(name) or name in {socket.gethostname().lower(), socket.getfqdn().lower()}

    @staticmethod
    def is_from_elsewhere(fetched_from: str | None, *, page: bool) -> bool:
        """Whether a browser says that another site asks. A link that leads to the page itself is welcome."""
        return fetched_from in {"cross-site", "same-site"} and not page

    def believes(self, token: str) -> bool:
        """Whether this is the token, in a time that tells nothing about it."""
        return self.token is not None and hmac.compare_digest(
            self.token.encode(), token.encode("utf-8", "replace")
        )

    @property
    def cookie(self) -> str:
        """What a browser brings once it has shown the token: never the token itself."""
        return self._session

    def lets_in(self, cookie: str | None) -> bool:
        """Whether a browser has shown the token before, or need not."""
        if self.token is None:
            return True
        return hmac.compare_digest(self._session.encode(), (cookie or "").encode("utf-8", "replace"))


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_every_address(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_unspecified
    except ValueError:
        return False
