"""Why an encrypted connection was not made, in words for whoever has to mend it.

The library's own words are kept behind it: they name the certificate, and never a key.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator

_NOT_ACCEPTED = "the broker does not accept this certificate (certfile)"
#: What `common.wire` says of it.
_HUNG_UP = "the server closed the connection"
_EXPIRED, _NOT_YET, _WRONG_HOST, _WRONG_ADDRESS = 10, 9, 62, 64


def why(error: BaseException, url: str) -> str | None:
    """What is wrong between two certificates; None if that was not why a connection to this address failed.

    A broker that refuses a certificate says so and hangs up, and what it says may be lost with the connection.
    Then nobody knows, and the most likely is told.
    """
    if not url.startswith("amqps://"):
        return None
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _theirs(cause)
        text = str(cause).lower().replace("_", " ")
        if "alert" in text and ("certificate" in text or "unknown ca" in text):
            return f"{_NOT_ACCEPTED}: {_alert(text)}"
    if any(isinstance(cause, ConnectionResetError) or _HUNG_UP in str(cause) for cause in _causes(error)):
        return f"{_NOT_ACCEPTED}, or it is just going away: it hung up without a word"
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


def _theirs(error: ssl.SSLCertVerificationError) -> str:
    match error.verify_code:
        case code if code == _EXPIRED:
            told = "the broker's certificate has expired: renew it there"
        case code if code == _NOT_YET:
            told = "the broker's certificate is not valid yet: look at both clocks"
        case code if code in {_WRONG_HOST, _WRONG_ADDRESS}:
            told = "the broker's certificate is for another host: use a name that is in it"
        case _:
            told = "the broker's certificate is not signed by an authority that is trusted here (cafile)"
    return f"{told} ({error.verify_message})"


def _alert(text: str) -> str:
    for sign, told in (
        ("expired", "it has expired"),
        ("required", "there is none"),
        ("unknown ca", "it is not signed by an authority that the broker trusts"),
    ):
        if sign in text:
            return told
    return "it is refused"
