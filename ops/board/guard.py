"""Who may ask the board, and what a browser may do with its answers.

The board shows what payments are made, so it answers on this machine only, or to whoever has the token. Somebody
else's page in the same browser must not read it either: not by another name for this address (the Host header
is checked), not across sites (no CORS, and `Sec-Fetch-Site` is believed), and not by a text in a message
(nothing but the board's own files may run).
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

from common import door

#: Links that were told and that nobody has opened; the oldest of more is void.
_MOST_LINKS = 32

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


@dataclass(frozen=True, slots=True)
class Guard:
    """The door of a board that listens on `host`. Without a token everybody on this machine may look.

    A program brings the token with each request. A browser cannot, and an address is remembered, shown and shared:
    so it opens a link, which is good for one time, and is given a cookie.
    """

    host: str
    token: str | None = None
    _session: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    _links: list[str] = field(default_factory=list)

    def knows_itself_as(self, header: str | None) -> bool:
        """Whether a Host header names this board; a stranger's name that leads here does not."""
        return door.answers_to(self.host, header)

    @staticmethod
    def is_from_elsewhere(fetched_from: str | None, *, page: bool) -> bool:
        """Whether a browser says that another site asks. A link that leads to the page itself is welcome."""
        return fetched_from in {"cross-site", "same-site"} and not page

    def believes(self, authorization: str | None) -> bool:
        """Whether an Authorization header brings the token."""
        return door.is_same(self.token or "", door.bearer(authorization))

    def link(self) -> str:
        """The secret part of a new link."""
        self._links.append(secrets.token_urlsafe(32))
        del self._links[:-_MOST_LINKS]
        return self._links[-1]

    def spends(self, link: str) -> bool:
        """Whether this is a link that nobody has opened yet; from now on somebody has."""
        found = [it for it in self._links if door.is_same(it, link)]
        for it in found:
            self._links.remove(it)
        return bool(found)

    @property
    def cookie(self) -> str:
        """What a browser brings once it has opened a link: never the token itself."""
        return self._session

    def lets_in(self, cookie: str | None) -> bool:
        """Whether a browser has opened a link before, or need not."""
        if self.token is None:
            return True
        return door.is_same(self._session, cookie or "")
