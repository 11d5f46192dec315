"""A session with the broker that is fed by hand: what a consumer is given, what it copies and what it acks."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from common.bus import Copy, Inbox, Session
from common.channel import Delivery
from common.recovery import expiration
from common.settings import Delay


class HandFedSession(Session):
    """A session without connections; it keeps what was copied to the exchange of recovery."""

    def __init__(self, service: str) -> None:
        super().__init__(service, user=f"saga-{service}")
        self.copies: list[Copy] = []

    async def publish_copies(self, copies: Sequence[Copy]) -> None:
        """Keep them."""
        self.copies += copies

    def retry_expiration(self, delay: Delay) -> int:
        """As in a real session."""
        return expiration(delay, self._chance)

    def told(self) -> list[tuple[str, str | int]]:
        """The copies in short: where to, and why."""
        return [(copy.routing_key, copy.headers["x-reason"]) for copy in self.copies]


class HandFedInbox(Inbox):
    """An inbox without a channel; it keeps which deliveries were acked."""

    def __init__(self, queue: str) -> None:
        self.queue = queue
        self.acked: set[int] = set()
        self._arrived = asyncio.Event()
        self._waiting: list[Delivery] = []
        self._is_due = False
        self._tags = itertools.count(1)

    def deliver(
        self,
        routing_key: str,
        body: bytes | Mapping[str, object],
        *,
        headers: Mapping[str, Any] | None = None,
        user_id: str | None = None,
        content_type: str | None = None,
        content_encoding: str | None = None,
        redelivered: bool = False,
        left_out: int = 0,
    ) -> int:
        """Add one delivery; its tag."""
        tag = next(self._tags)
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self._is_due = True
        self._waiting.append(
            Delivery(
                queue=self.queue,
                tag=tag,
                routing_key=routing_key,
                body=raw,
                content_type=content_type,
                content_encoding=content_encoding,
                user_id=user_id,
                correlation_id=None,
                redelivered=redelivered,
                headers=headers or {},
                left_out=left_out,
            )
        )
        return tag

    async def ack(self, deliveries: Sequence[Delivery], *, all_before: bool) -> None:
        """Keep them; `all_before` acks whatever is older, too."""
        if all_before:
            self.acked |= set(range(1, deliveries[-1].tag + 1))
        self.acked |= {delivery.tag for delivery in deliveries}
