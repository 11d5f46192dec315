"""Encrypted connections: what an address asks for, and why one was not made, in words for whoever has to mend it.

There is one way to ask, for broker, databases and management API alike, and it always means a checked certificate
(docs/adr/0020). The library's own words are kept behind ours: they name the certificate, and never a key.
"""

from __future__ import annotations

import contextlib
import re
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

#: What an address of a database says to be encrypted; an encrypted scheme needs the files alone.
OPTIONS = ("tls", "cafile", "certfile", "keyfile")
_SEVERAL = re.compile(r"\s*,\s*(?=amqps?://)")
#: What `common.wire` and MariaDB's client say of it.
_HUNG_UP = re.compile("the server closed the connection|connection reset by peer|Lost connection", re.IGNORECASE)
#: What databases say of a wrong password, and no less of a certificate with another name (CN) in it, or of none.
_LOGIN_REFUSED = ("access denied for user", "password authentication failed", "certificate authentication failed")
_EXPIRED, _NOT_YET, _WRONG_HOST, _WRONG_ADDRESS = 10, 9, 62, 64


class EncryptionError(OSError):
    """An encrypted connection cannot be made. Says why and what to do, and no secret."""


@dataclass(frozen=True, slots=True)
class Files:
    """Whom we trust, the authorities of this machine if nothing is named, and what shows who we are."""

    authority: str | None = None
    certificate: str | None = None
    key: str | None = None

    def read(self) -> ssl.SSLContext:
        """What the files say now; raises EncryptionError for files that cannot be meant."""
        try:
            context = ssl.create_default_context(cafile=self.authority)
        except (OSError, ValueError) as error:
            raise EncryptionError(f"cafile: {self.authority}: {_reason(error)}") from None
        if self.certificate is not None:
            try:
                # A key with a password of its own would else be asked for at the terminal.
                context.load_cert_chain(self.certificate, self.key, password=lambda: "")
            except (OSError, ValueError) as error:
                pair = " and ".join(filter(None, (self.certificate, self.key)))
                raise EncryptionError(f"certfile and keyfile: {pair}: {_reason(error)}") from None
        return context


class Context(ssl.SSLContext):
    """Reads its files for each connection: who renews a certificate has nothing to restart.

    asyncio asks a context for one thing alone, a connection's `wrap_bio`. Asked for anything else, this one trusts
    nobody.
    """

    files: Files

    def __new__(cls, files: Files) -> Self:
        """Not yet read: a service waits for its certificate, as it waits for its database."""
        context = super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)
        context.files = files
        return context

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:  # noqa: ANN401 - as in the library
        """As in the library, with what the files say now."""
        try:
            now = self.files.read()
        except EncryptionError:
            # Raised here it would leave a socket open behind it. Whoever trusts nobody gets no connection, and
            # `told` looks why.
            return super().wrap_bio(*args, **options)
        return now.wrap_bio(*args, **options)


def asked(options: Mapping[str, str]) -> Files | None:
    """What the options of a database's address ask for; None if for nothing.

    Raises ValueError for what would be less than a checked certificate, or is another client's word for it.
    """
    for name in options:
        if name.lower().startswith("ssl"):
            raise ValueError(f"{name} is not known here: say tls=true, or cafile=, certfile= and keyfile=")
    told = {name: options[name] for name in OPTIONS if name in options}
    if told.pop("tls", "true") != "true":
        raise ValueError("tls can only be true; leave it away for a connection that is not encrypted")
    for name, file in told.items():
        if not file:
            raise ValueError(f"{name} names no file")
    if "keyfile" in told and "certfile" not in told:
        raise ValueError("keyfile= needs certfile=")
    if not any(name in options for name in OPTIONS):
        return None
    return Files(told.get("cafile"), told.get("certfile"), told.get("keyfile"))


def of_database(url: str) -> Context | None:
    """How a database's address wants to be connected to; None if without encryption. Raises ValueError."""
    parts = urlsplit(url)
    files = asked(options_of(url))
    if files is None:
        return None
    if parts.scheme == "sqlite":
        raise ValueError("SQLite's file is on this machine: nothing is encrypted on the way to it")
    if not parts.hostname:
        raise ValueError("an encrypted connection needs the name of a host: it is what the certificate is for")
    return Context(files)


def look_at_broker(url: str) -> None:
    """Raises ValueError for an address of the broker that asks for certificates and would not get them checked."""
    options = options_of(url)
    if "no_verify_ssl" in options:
        raise ValueError("no_verify_ssl would let anybody answer: name the authority, cafile=")
    if url.startswith("amqp://") and any(name in options for name in OPTIONS):
        raise ValueError("certificates need amqps://")


def of_https(url: str) -> Context | None:
    """How an address of HTTPS wants to be connected to; None for one of HTTP. Raises ValueError."""
    options = options_of(url)
    files = asked({name: options[name] for name in OPTIONS if name in options})
    if urlsplit(url).scheme == "https":
        return Context(files or Files())
    if files is not None:
        raise ValueError("certificates need https://")
    return None


def options_of(url: str) -> dict[str, str]:
    """What an address says behind its question mark; what is said twice counts as said last."""
    return {name: values[-1] for name, values in parse_qs(urlsplit(url).query, keep_blank_values=True).items()}


@contextlib.contextmanager
def told(context: Context | None, server: str = "database") -> Iterator[None]:
    """Have it told why the server and we do not trust one another; raises EncryptionError."""
    try:
        yield
    except Exception as error:
        if context is not None:
            context.files.read()
            if reason := _why(error, server):
                raise EncryptionError(reason) from error
        raise


def why(error: BaseException, url: str) -> str | None:
    """What is wrong between the broker and us; None if that was not why a connection to this address failed.

    Of several addresses of one cluster, the first stands for all: their files are the same.
    """
    if not url.startswith(("amqps://", "https://")):
        return None
    options = options_of(_SEVERAL.split(url)[0])
    try:
        Files(*(options.get(name) or None for name in ("cafile", "certfile", "keyfile"))).read()
    except EncryptionError as unreadable:
        return str(unreadable)
    return _why(error, "broker")


def _why(error: BaseException, server: str) -> str | None:
    """The same for any server.

    One that refuses a certificate says so and hangs up, and what it says may be lost with the connection. Then
    nobody knows, and the most likely is told.
    """
    not_accepted = f"the {server} does not accept this certificate (certfile)"
    for cause in _causes(error):
        if isinstance(cause, EncryptionError):
            return str(cause)
        # aiohttp's own is one too, and knows nothing; it was caused by one that does.
        if isinstance(cause, ssl.SSLCertVerificationError) and hasattr(cause, "verify_code"):
            return _theirs(cause, server)
        text = str(cause).lower().replace("_", " ")
        if "alert" in text and ("certificate" in text or "unknown ca" in text):
            return f"{not_accepted}: {_alert(text, server)}"
        if "valid client certificate" in text:
            # PostgreSQL's word, for a certificate that is missing.
            return f"{not_accepted}: there is none"
        if any(refusal in text for refusal in _LOGIN_REFUSED):
            return f"the {server} refuses the login: the password or the certificate (certfile) is not this user's"
        if "wrong version number" in text or "rejected ssl upgrade" in text:
            return f"the {server} takes no encrypted connections at this port: switch them on there"
    if any(isinstance(cause, ConnectionResetError) or _HUNG_UP.search(str(cause)) for cause in _causes(error)):
        return f"{not_accepted}, or it is just going away: it hung up without a word"
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what led to it, each once: what is raised again and again may lead to itself."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        cause = waiting.pop(0)
        if id(cause) not in seen:
            seen.add(id(cause))
            yield cause
            waiting += [it for it in (cause.__cause__, cause.__context__) if it is not None]


def _theirs(error: ssl.SSLCertVerificationError, server: str) -> str:
    match error.verify_code:
        case code if code == _EXPIRED:
            words = f"the {server}'s certificate has expired: renew it there"
        case code if code == _NOT_YET:
            words = f"the {server}'s certificate is not valid yet: look at both clocks"
        case code if code in {_WRONG_HOST, _WRONG_ADDRESS}:
            words = f"the {server}'s certificate is for another host: use a name that is in it"
        case _:
            words = f"the {server}'s certificate is not signed by an authority that is trusted here (cafile)"
    return f"{words} ({error.verify_message})"


def _alert(text: str, server: str) -> str:
    for sign, words in (
        ("expired", "it has expired"),
        ("required", "there is none"),
        ("unknown ca", f"it is not signed by an authority that the {server} trusts"),
    ):
        if sign in text:
            return words
    return "it is refused"


def _reason(error: Exception) -> str:
    """Why a file is of no use, without what is in it."""
    if isinstance(error, ssl.SSLError):
        return (error.reason or "it cannot be read").lower().replace("_", " ")
    return (error.strerror if isinstance(error, OSError) else None) or "it cannot be read"
