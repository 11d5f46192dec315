"""Where the demo's payments are, as far as their events tell: nothing here asks a service or a database."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from common import saga
from tools.client import Heard
from tools.demo.plan import Case

_DOES = {step.emits: step.service for step in saga.SAGA}
_UNDOES = {step.compensation: step.service for step in saga.SAGA if step.compensation}
_FAILS = {step.failed: step.service for step in saga.SAGA if step.refusals}
_TOLD = saga.SAGA[-1].emits


@dataclass(slots=True)
class _Journey:
    """What was heard of one payment."""

    done: set[str] = field(default_factory=set)
    undone: set[str] = field(default_factory=set)
    failed: str | None = None
    completed: bool = False
    told: bool = False


class Progress:
    """The journeys of all payments that were sent."""

    def __init__(self, cases: Iterable[Case]) -> None:
        self._cases = {case.pay.payment_id: case for case in cases}
        self._journeys: dict[str, _Journey] = {}

    @property
    def planned(self) -> int:
        """How many payments the demo has."""
        return len(self._cases)

    @property
    def sent(self) -> int:
        """How many of them were published."""
        return len(self._journeys)

    def send(self, payment_id: str) -> None:
        """Note that a payment is about to be published."""
        self._journeys.setdefault(payment_id, _Journey())

    def hear(self, event: Heard) -> None:
        """Note what an event tells of one of our payments."""
        journey = self._journeys.get(str(event.body.get("payment_id")))
        if journey is None:
            return
        if event.key in _DOES:
            journey.done.add(_DOES[event.key])
        if event.key in _UNDOES:
            journey.undone.add(_UNDOES[event.key])
        if event.key in _FAILS:
            journey.failed = str(event.body.get("service"))
        journey.completed = journey.completed or event.key == saga.COMPLETED
        journey.told = journey.told or event.key == _TOLD

    def waiting(self) -> Counter[str]:
        """How many payments wait for each service to do its part."""
        holders = (self._holder(journey) for journey in self._journeys.values())
        return Counter(holder for holder in holders if holder)

    def done(self) -> Counter[str]:
        """How many payments each service has done its part of."""
        return Counter(service for journey in self._journeys.values() for service in journey.done)

    def undone(self) -> Counter[str]:
        """How many payments each service has undone its part of."""
        return Counter(service for journey in self._journeys.values() for service in journey.undone)

    def refused(self) -> Counter[str]:
        """How many payments ended at each service."""
        return Counter(journey.failed for journey in self._journeys.values() if journey.failed)

    def completed(self) -> int:
        """How many payments are complete."""
        return sum(journey.completed for journey in self._journeys.values())

    def settled(self) -> int:
        """How many payments have come to their end, and their users know."""
        return sum(self._is_settled(journey) for journey in self._journeys.values())

    def unsettled(self) -> list[str]:
        """The payments that were sent and have not come to their end."""
        return [key for key, journey in self._journeys.items() if not self._is_settled(journey)]

    @staticmethod
    def _holder(journey: _Journey) -> str | None:
        """Return the service that holds a payment's baton; None once it is over."""
        if journey.failed:
            return None
        return next((service for service in saga.SERVICES if service not in journey.done), None)

    @staticmethod
    def _is_settled(journey: _Journey) -> bool:
        if not journey.told:
            return False
        if not journey.failed:
            return journey.completed
        undoing = {step.service for step in saga.SAGA if step.compensation}
        return journey.undone >= journey.done & undoing
