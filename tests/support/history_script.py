"""The history as five services would tell it: scripts of sagas, written by hand or by the saga table."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from common import saga
from common.history import NOTICE, OPERATOR, Became, Entry, Record
from common.recovery import Deed

BEGAN = datetime(2026, 11, 22, 16, 0, 0, tzinfo=UTC)
TRACE = "0af7651916cd43dd8448eb211c80319c"


@dataclass(slots=True)
class Script:
    """One saga's records, told one after another, ten milliseconds apart unless a test says otherwise."""

    id: str = "p-1"
    at: datetime = BEGAN
    records: list[Record] = field(default_factory=list)

    @property
    def now(self) -> float:
        """The moment of the last record, in seconds since 1970."""
        return self.records[-1].at.timestamp()

    def tells(
        self,
        service: str,
        type_: str,
        became: Became = Became.DONE,
        *,
        said: tuple[str, ...] = (),
        seconds: float = 0.01,
        replica: str = "1",
        **fields: str | int,
    ) -> Script:
        """One record of one entry, so many seconds after the one before."""
        self.at += timedelta(seconds=seconds)
        trace = f"00-{TRACE}-b7ad6b7169203331-01"
        entry = Entry(saga=self.id, type=type_, became=became, said=[(word, trace) for word in said], trace=trace)
        for name, value in fields.items():
            setattr(entry, name, value)
        self.records.append(
            Record(service=service, replica=f"{service}-{replica}", at=self.at, took_ms=3.2, entries=[entry])
        )
        return self

    def does(self, *services: str) -> Script:
        """Each of these does its part."""
        for service in services:
            step = saga.step_of(service)
            said = () if service == saga.SERVICES[-1] else (step.emits,)
            self.tells(service, step.on, deed=Deed.DID, said=said)
        return self

    def finishes(self) -> Script:
        """After the pivot: the payment completes and the user is told."""
        self.tells(saga.FIRST.service, saga.PIVOT.emits, deed=Deed.DID, said=(saga.COMPLETED,))
        return self.notifies()

    def notifies(self) -> Script:
        """The notice is delivered."""
        last = saga.SAGA[-1]
        return self.tells(last.service, NOTICE, deed=Deed.SENT, said=(last.emits,))

    def retries(self, service: str, *, attempt: int, delay_ms: int = 1000, type_: str = "") -> Script:
        """An attempt fails for a passing reason."""
        on = type_ or saga.step_of(service).on
        return self.tells(
            service, on, Became.RETRY, reason="error", detail="boom", attempt=attempt, delay_ms=delay_ms
        )

    def refuses(self, service: str, reason: str, detail: str = "no", attempt: int = 1) -> Script:
        """The step becomes a dead letter, and its handler ends the saga."""
        on = saga.step_of(service).on
        self.tells(service, on, Became.DEAD, reason=reason, detail=detail, attempt=attempt)
        return self.tells(
            service,
            on,
            deed=Deed.FAILED,
            said=(saga.failed(service),),
            reason=reason,
            detail=detail,
            attempt=attempt + 1,
        )

    def hears(self, service: str, at: str, reason: str, *, undoes: bool) -> Script:
        """A service hears of the failure: it takes its part back, or will never do it."""
        compensation = saga.step_of(service).compensation
        said = (compensation,) if undoes and compensation else ()
        deed = Deed.UNDID if undoes else Deed.CLOSED
        return self.tells(service, saga.failed(at), deed=deed, said=said, reason=reason, detail="no")

    def acts(self, act: str, *, by: str = "kim", why: str = "asked to") -> Script:
        """An operator does something about it."""
        return self.tells(OPERATOR, act, by=by, why=why)


def completed(id_: str = "p-1", at: datetime = BEGAN) -> Script:
    """A saga that all happened."""
    return Script(id_, at).does(*saga.SERVICES).finishes()


def refused(service: str, reason: str, id_: str = "p-1", at: datetime = BEGAN) -> Script:
    """A saga that this service refused, with everything before it undone and the user told."""
    place = saga.SERVICES.index(service)
    script = Script(id_, at).does(*saga.SERVICES[:place]).refuses(service, reason)
    for other in saga.SERVICES:
        if other != service:
            script.hears(other, service, reason, undoes=saga.SERVICES.index(other) < place)
    script.tells(service, saga.failed(service), deed=Deed.IGNORED, reason=reason, detail="no")
    return script.notifies()
