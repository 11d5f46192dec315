"""One file a user, `<user>.url`, holds the address at which they log in; it is what RABBITMQ_URL_FILE names.

The file is the only place where a password can be read. It is replaced in one step, so whoever reads it, reads the
old address or the new one.
"""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from common.settings import addresses

_SALT = 4
_BYTES = 32


@dataclass(frozen=True, slots=True)
class Secrets:
    """The files of one broker's users. `broker`: its address, without a login, for files that are made."""

    home: Path
    broker: str

    def file(self, user: str) -> Path:
        """Where the address of a user is."""
        return self.home / f"{user}.url"

    def password(self, user: str) -> str:
        """The password of a user, made if there is none; ValueError for a file that holds another user's."""
        if not self.file(user).exists():
            return self.renew(user)
        logins = {(urlsplit(url).username, urlsplit(url).password) for url in self._addresses(user)}
        name, password = logins.pop()
        if logins or unquote(name or "") != user or not password:
            raise ValueError(f"{self.file(user)} holds no address with the login of {user}")
        return unquote(password)

    def fresh(self, user: str) -> tuple[str, str]:
        """A new password, and the address with it; nothing is written."""
        password = secrets.token_urlsafe(_BYTES)
        login = f"{quote(user, safe='')}:{quote(password, safe='')}"
        places = [urlsplit(url) for url in self._addresses(user)]
        named = [place._replace(netloc=f"{login}@{place.netloc.rpartition('@')[2]}") for place in places]
        return password, ",".join(map(urlunsplit, named))

    def _addresses(self, user: str) -> list[str]:
        file = self.file(user)
        return addresses(file.read_text().strip() if file.exists() else self.broker)

    def renew(self, user: str) -> str:
        """Give a user a new password, and keep it."""
        password, url = self.fresh(user)
        self.write(user, url)
        return password

    def write(self, user: str, url: str) -> None:
        """Keep the address of a user, for nobody else to read."""
        self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        new = self.home / f".{user}.{secrets.token_hex(4)}"
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"{url}\n")
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.file(user))


def hashed(password: str, salt: bytes | None = None) -> str:
    """A password as RabbitMQ keeps it: a salt of four bytes, and SHA-256 of salt and password, in base64.

    https://www.rabbitmq.com/docs/passwords
    """
    salt = secrets.token_bytes(_SALT) if salt is None else salt
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def matches(password: str, kept: str) -> bool:
    """Whether a password is the one that the broker keeps."""
    try:
        salt = base64.b64decode(kept, validate=True)[:_SALT]
    except ValueError:
        return False
    return secrets.compare_digest(hashed(password, salt), kept)
