"""A connection to the broker for somebody who looks or acts by hand: one clear line when there is none."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from urllib.parse import unquote, urlsplit

import aio_pika
import aiormq
from aio_pika.abc import AbstractConnection
from yarl import URL

from common import tls, wire
from ops import where
from ops.output import CannotLookError

_SECONDS_TO_CONNECT = 10.0
_SECONDS_TO_CLOSE = 2.0

#: What is raised when the broker goes away, or refuses, in the middle of a conversation.
LOST = (aiormq.exceptions.AMQPError, aiormq.exceptions.ChannelInvalidStateError, ConnectionError, TimeoutError)


@contextlib.asynccontextmanager
async def connected(url: str | None = None) -> AsyncIterator[AbstractConnection]:
    """Connect to the broker that `ops.where` finds, or to `url`; raises CannotLookError.

    A broker that goes away while the context is open is told in the same way.
    """
    url = url or where.broker_url()
    # A stranger's message may break AMQP's own rules; it is read all the same.
    wire.install()
    connection = await _connect(url)
    try:
        yield connection
    except LOST as error:
        raise CannotLookError(f"The broker at {_place(url)} {_why_lost(error)}") from error
    finally:
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_SECONDS_TO_CLOSE):
                await connection.close()


async def _connect(url: str) -> AbstractConnection:
    if not url.startswith(("amqp://", "amqps://")):
        raise CannotLookError(_WRONG_URL)
    try:
        address = URL(url).update_query(name="saga", heartbeat="10")
    except ValueError:
        raise CannotLookError(_WRONG_URL) from None
    if not address.host:
        raise CannotLookError(_WRONG_URL)
    try:
        tls.look_at_broker(url)
    except ValueError as error:
        raise CannotLookError(f"RABBITMQ_URL: {error}") from None
    try:
        async with asyncio.timeout(_SECONDS_TO_CONNECT):
            return await aio_pika.connect(address)
    except (aiormq.exceptions.AuthenticationError, aiormq.exceptions.ProbableAuthenticationError) as error:
        raise CannotLookError(f"The broker at {_place(url)} refuses the login: {_HINT}") from error
    except (aiormq.exceptions.ConnectionNotAllowed, aiormq.exceptions.InvalidFrameError) as error:
        # The second is what aiormq makes of a broker that closes where it should open the virtual host.
        raise CannotLookError(
            f"The broker at {_place(url)} does not let this user into virtual host {_vhost(url)}: does it exist, "
            "and may the user enter? RABBITMQ_URL names it, quoted, after the last slash"
        ) from error
    except (*LOST, OSError) as error:
        if reason := tls.why(error, url):
            raise CannotLookError(f"No encrypted connection to {_place(url)}: {reason}") from error
        raise CannotLookError(
            f"No broker answers at {_place(url)}: is it running? `make up` starts one; "
            f"RABBITMQ_URL names another ({type(error).__name__})"
        ) from error


_WRONG_URL = "RABBITMQ_URL must be like amqp://user:password@host:5672/"
_HINT = "RABBITMQ_URL names user and password"


def _why_lost(error: BaseException) -> str:
    if isinstance(error, aiormq.exceptions.ChannelAccessRefused):
        return f"does not allow this: {error}"
    if isinstance(error, aiormq.exceptions.ChannelNotFoundEntity):
        return f"has no such object: {error}; the services declare theirs when they start, `saga doctor` looks"
    return f"went away or refused: {str(error) or type(error).__name__}"


def _vhost(url: str) -> str:
    return unquote(urlsplit(url).path[1:]) or "/"


def _place(url: str) -> str:
    """Host, port and user of an address: never the password."""
    try:
        address = urlsplit(url)
        port = address.port or (5671 if address.scheme == "amqps" else 5672)
    except ValueError:
        return "an address that cannot be read"
    return f"{address.hostname}:{port} (user {unquote(address.username or 'guest')})"
