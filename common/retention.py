"""Retention: what has long been final is forgotten, and what could happen twice for that is not handled any more.

Only final rows go, a page at a time. A forward message of a payment so old that its row may be gone is parked as
`too_old`, whoever brings it: the consumer, or the dead-letter handler. So nothing forgotten can happen twice.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta

from common import saga
from common.barrier import SagaStep, State
from common.messages import Body, ForwardEvent
from common.outbox import Outbox
from common.recovery import Parked
from common.rows import Writes

TOO_OLD = "too_old"
#: Rows forgotten in one transaction.
PAGE = 200
#: For clocks that differ, and for messages that wait between the question and the commit.
_MARGIN = 0.1

#: `forget(sagas, writes)` notes what else is to be deleted with the rows of these sagas; gives those that may go.
Forget = Callable[[Sequence[str], Writes], Awaitable[Sequence[str]]]


def forgets(service: str) -> bool:
    """Whether a service ever forgets a saga. The first does not: its rows know a command again, and its answer."""
    return service != saga.FIRST.service


def repeatable(retention: timedelta) -> timedelta:
    """How long after its payment a saga's forward messages may still come.

    >>> repeatable(timedelta(days=30))
    datetime.timedelta(days=27)
    """
    return (1 - _MARGIN) * retention


def too_old(service: str, body: Body, *, retention: timedelta, now: datetime) -> Parked | None:
    """What becomes of a forward message that comes when its saga may be forgotten here; None: it is in time."""
    if not isinstance(body, ForwardEvent) or not forgets(service) or now - body.paid_at < repeatable(retention):
        return None
    paid_at = body.paid_at.isoformat(timespec="seconds")
    return Parked(TOO_OLD, f"paid at {paid_at}: what became of {body.key} here may be forgotten; audit it")


async def forget(
    now: datetime, outbox: Outbox, *, state: State, also: Forget, retention: timedelta, kept: int
) -> tuple[int, int]:
    """Forget a page of the rows in a final state that are older than the retention, the oldest first.

    `kept`: so many of the oldest are passed over. Gives how many rows the page had, and how many of them went.
    """
    old = SagaStep.filter(state=state, changed_at__lt=now - retention).order_by("changed_at", "saga_id")
    page = [str(saga_id) for saga_id in await old.offset(kept).limit(PAGE).values_list("saga_id", flat=True)]
    gone = await also(page, outbox.writes)
    outbox.writes.delete(SagaStep, gone)
    return len(page), len(gone)


async def nothing_else(sagas: Sequence[str], _: Writes) -> Sequence[str]:
    """What else is forgotten with sagas where nothing is."""
    return sagas
