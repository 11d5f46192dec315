"""What an operator ordered to be aborted, what became of it, and how that is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from common import saga
from ops.acting.ending import Outcome
from ops.acting.letter import Holder
from ops.acting.telling import sentence, told
from ops.output import Exit, say, tell_json


@dataclass(frozen=True, slots=True)
class Order:
    """What the operator wants: which saga, by whom and why; `really`, or only told what would happen."""

    saga_id: str
    by: str
    why: str
    service: str | None
    fields: Mapping[str, str | int | None] | None
    really: bool
    seconds: float
    unrecorded: bool = False
    since: datetime | None = None


class Fate(StrEnum):
    """What became of the order."""

    REFUSED = "refused"
    """Nothing was sent."""
    WOULD_SEND = "would send"
    ABORTED = "aborted"
    FAILED_OTHERWISE = "failed otherwise"
    """The saga failed, but for another reason."""
    HAD_ACTED = "had acted"
    """The service had done its part, so it did nothing about the letter."""
    NOT_BELIEVED = "not believed"
    UNANSWERED = "unanswered"


@dataclass(slots=True)
class Aborted:
    """What became of the order, and why."""

    order: Order
    holder: Holder
    fate: Fate
    why: str = ""
    outcome: Outcome | None = None

    @property
    def exit(self) -> Exit:
        """Well only if it was aborted, or would be."""
        return Exit.OK if self.fate in {Fate.ABORTED, Fate.WOULD_SEND} else Exit.NEGATIVE

    def document(self) -> dict[str, Any]:
        """All of it for programs."""
        document: dict[str, Any] = {
            "id": self.order.saga_id,
            "fate": self.fate.value,
            "service": self.holder.service,
            "told_by": self.holder.told_by,
            "by": self.order.by,
            "why": self.order.why,
            "detail": self.why,
        }
        return document | (told(self.outcome) if self.outcome else {})


def tell(result: Aborted, *, as_json: bool) -> Exit:
    """Say what became of the order; the exit code that goes with it."""
    if as_json:
        tell_json(result.document())
        return result.exit
    saga_id, service = result.order.saga_id, result.holder.service
    match result.fate:
        case Fate.REFUSED:
            say(f"{saga_id}: not aborted: {result.why}", style="red")
        case Fate.WOULD_SEND:
            say(f"{saga_id}: by {result.holder.told_by}, {service} holds the baton")
            say(f"Would be done: {result.why}, and {_and_then(service)}. Add --yes to do it")
        case Fate.ABORTED:
            assert result.outcome
            say(f"{saga_id}: aborted: {sentence(result.outcome)}", style="green")
        case _:
            say(f"{saga_id}: not aborted: {result.why}", style="red")
    return result.exit


def _and_then(service: str | None) -> str:
    before = saga.SERVICES[: saga.SERVICES.index(service)] if service else ()
    undone = [name for name in before if saga.step_of(name).compensation]
    return f"what {', '.join(undone)} did is undone" if undone else "nothing has to be undone"
