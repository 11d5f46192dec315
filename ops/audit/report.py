"""What an audit tells: violations, sagas under way, and counts."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken rule. `saga_id` is the saga; of what belongs to none, the user, the seat or the command."""

    saga_id: str
    rule: str
    evidence: str

    def __str__(self) -> str:
        return f"{self.saga_id}: {self.rule}: {self.evidence}"


@dataclass(frozen=True, slots=True)
class UnderWay:
    """A saga that has not come to its end yet, and whose word it waits for; `since` its last change."""

    saga_id: str
    waits_for: tuple[str, ...]
    since: datetime | None


@dataclass(frozen=True, slots=True)
class Counts:
    """How much of everything there is. Messages are counted where the management API was asked."""

    completed: int = 0
    undone: int = 0
    failed: int = 0
    """Refused by the first step, so there was nothing to undo."""
    under_way: int = 0
    violated: int = 0
    wallets: int = 0
    points: int = 0
    """In all wallets together."""
    seats_sold: int = 0
    tokens_used: int = 0
    notices_pending: int = 0
    notices_parked: int = 0
    unpublished: int = 0
    messages_waiting: int | None = None
    messages_parked: int | None = None

    @property
    def sagas(self) -> int:
        """All of them."""
        return self.completed + self.undone + self.failed + self.under_way + self.violated


@dataclass(frozen=True, slots=True)
class Report:
    """What the audit saw."""

    violations: list[Violation]
    under_way: list[UnderWay]
    counts: Counts
    looked_at: datetime

    @property
    def clean(self) -> bool:
        """Whether no rule is broken; sagas may be under way."""
        return not self.violations

    def to_document(self) -> dict[str, Any]:
        """The whole report for programs, as JSON has it."""
        document: dict[str, Any] = json.loads(
            json.dumps({"clean": self.clean, **asdict(self)}, default=datetime.isoformat)
        )
        return document

    def to_json(self) -> str:
        """The whole report for programs, as text."""
        return json.dumps(self.to_document(), indent=2)
