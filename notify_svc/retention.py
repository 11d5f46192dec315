"""Notices are forgotten with their sagas; one that nobody was told yet keeps its saga from being forgotten."""

from __future__ import annotations

from collections.abc import Sequence

from common import rows
from common.rows import Writes
from notify_svc.domain import State
from notify_svc.models import Notice


async def forget(sagas: Sequence[str], writes: Writes) -> Sequence[str]:
    """Note the notices of these sagas to be deleted, and give the sagas that may go."""
    waiting = {notice.saga_id for notice in await rows.find(Notice, sagas) if notice.state != State.SENT}
    gone = [saga_id for saga_id in sagas if saga_id not in waiting]
    writes.delete(Notice, gone)
    return gone
