"""RabbitMQ's management API, for whoever only looks: one login, one virtual host, clear words where it fails.

async with Management() as management:
queues = await management.get("/api/queues/{vhost}")
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, quote, unquote, urlsplit

import aiohttp
from yarl import URL

from common import tls
from ops import where
from ops.output import CannotLookError, printable

_SECONDS = 15.0
_HOW = "RABBITMQ_MANAGEMENT_URL names it, like http://user:password@host:15672"


class RefusedError(CannotLookError):
    """The API answers, but this login may not see that, or it is not there; `status` is HTTP's."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


class Management:
    """The management API at one address, while it is open as an async context.

    The address holds the login, and as `?vhost=name` a virtual host other than `/`; without one it is that of
    `ops.where`. Raises CannotLookError where nobody knows an address, or the one given is none.
    """

    def __init__(self, url: str | None = None, *, seconds: float = _SECONDS) -> None:
        url = url or where.management_url()
        if url is None:
            raise CannotLookError(f"The broker's management API is not known: {_HOW}")
        try:
            address = urlsplit(url)
            known = address.scheme in {"http", "https"} and address.hostname and address.port != 0
        except ValueError:
            known = None
        if not known:
            raise CannotLookError(f"The address of the management API cannot be read: {_HOW}")
        try:
            self._encryption = tls.of_https(url)
        except ValueError as error:
            raise CannotLookError(f"The address of the management API: {error}") from None
        self.user = unquote(address.username or "guest")
        #: The virtual host that `{vhost}` in a path means.
        self.vhost = parse_qs(address.query).get("vhost", ["/"])[0]
        #: The address as it may be shown: without the login.
        self.address = f"{address.scheme}://{address.netloc.rpartition('@')[2]}{address.path.rstrip('/')}"
        #: How far the clock of the broker's machine is ahead of ours, as the last answer tells it to the second.
        self.ahead: timedelta | None = None
        self._login = aiohttp.encode_basic_auth(self.user, unquote(address.password or "guest"))
        self._timeout = aiohttp.ClientTimeout(total=seconds)
        self._session: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(timeout=self._timeout, headers={"Authorization": self._login})
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def get(self, path: str, **query: str | int) -> Any:  # noqa: ANN401 - JSON
        """What the API answers to GET, read as JSON; `{vhost}` in the path is the virtual host, quoted.

        Raises RefusedError for an answer that is none, CannotLookError where there is no answer.
        """
        place = path.replace("{vhost}", quote(self.vhost, safe=""))
        # Encoded by us: `%2F` is a name, not a slash.
        url = URL(self.address + place, encoded=True).update_query(
            {key: str(value) for key, value in query.items()}
        )
        asked = datetime.now(UTC)
        try:
            with tls.told(self._encryption, "broker"):
                async with self._session.get(url, allow_redirects=False, ssl=self._encryption or True) as answer:
                    self.ahead = _ahead(answer.headers, asked, datetime.now(UTC))
                    if answer.status != 200:
                        raise RefusedError(self._refusal(answer.status, place), answer.status)
                    return await answer.json(content_type=None)
        except tls.EncryptionError as error:
            raise CannotLookError(f"No encrypted connection to {self.address}: {error}") from None
        except TimeoutError:
            raise CannotLookError(
                f"The management API at {self.address} does not answer in time; is the broker overloaded?"
            ) from None
        except ValueError:
            raise CannotLookError(f"What answers at {self.address} is not RabbitMQ's management API") from None
        except aiohttp.ClientError as error:
            # Only the kind of the error: its text may hold the address with the login.
            raise CannotLookError(
                f"No management API answers at {self.address} ({type(error).__name__}): is the broker running, "
                f"and its plugin rabbitmq_management enabled? {_HOW}"
            ) from None

    def _refusal(self, status: int, place: str) -> str:
        if status in {401, 403}:
            return (
                f"The management API at {self.address} does not let user {printable(self.user)} see {place}: "
                f"the login is wrong, or needs the tag `monitoring`, for users and permissions `administrator`"
            )
        if status == 404:
            return f"The management API at {self.address} has no {place}: is the virtual host right? {_HOW}"
        return f"The management API at {self.address} answers {status} to {place}"


def _ahead(headers: Mapping[str, str], asked: datetime, answered: datetime) -> timedelta | None:
    """How far the answer's `Date` is ahead of the moment half-way between question and answer."""
    try:
        dated = parsedate_to_datetime(headers.get("Date", ""))
    except ValueError:
        return None
    if dated.tzinfo is None:
        dated = dated.replace(tzinfo=UTC)
    # The header tells whole seconds: on average it is half a second late.
    return dated + timedelta(seconds=0.5) - (asked + (answered - asked) / 2)
