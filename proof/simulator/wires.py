"""The simulated broker's faults, drawn from the same fate as all others; a crash takes the whole service along."""

from __future__ import annotations

import re
from collections.abc import Callable

from common import saga
from proof.broker import Boundary, Delay, Fault, SimulatedBroker
from proof.simulator.chronicle import Chronicle
from proof.simulator.faults import Act, Fate, Moment, Strike
from proof.simulator.life import Incarnation

_RECOVERY = re.compile(rf"({'|'.join(saga.SERVICES)})\.(retry\..*|return|dead|parked)")
_MOMENTS = {
    Boundary.PUBLISH_SENT: (Moment.PUBLISH, Moment.COPY),
    Boundary.PUBLISH_STORED: (Moment.STORED, Moment.COPIED),
    Boundary.CONFIRM_SENT: (Moment.CONFIRM, Moment.CONFIRM),
    Boundary.DELIVERY_SENT: (Moment.DELIVERY, Moment.DELIVERY),
    Boundary.ACK_SENT: (Moment.ACK, Moment.COPY_ACK),
    Boundary.ACK_DONE: (Moment.ACKED, Moment.ACKED),
    Boundary.DEAD_LETTER_SENT: (Moment.DEAD_LETTER, Moment.DEAD_LETTER),
}


class Wires:
    """Answers the broker at each of its boundaries."""

    def __init__(
        self,
        fate: Fate,
        chronicle: Chronicle,
        living: dict[str, Incarnation],
        restart: Callable[[float], None],
        unbind: Callable[[int, float], None],
        purge: Callable[[int], None],
    ) -> None:
        self._fate = fate
        self._chronicle = chronicle
        self._living = living
        self._restart = restart
        self._unbind = unbind
        self._purge = purge

    def at(self, boundary: Boundary, where: str, what: str) -> Fault | Delay | None:
        """What happens now, in the broker's words."""
        # A dead letter leaves a queue, which is named after its service.
        name = where.partition("." if boundary is Boundary.DEAD_LETTER_SENT else " ")[0]
        incarnation = self._living.get(name)
        plain, of_a_copy = _MOMENTS[boundary]
        moment = plain
        if boundary in {Boundary.PUBLISH_SENT, Boundary.PUBLISH_STORED, Boundary.CONFIRM_SENT}:
            is_copy = _RECOVERY.fullmatch(what) is not None
            moment = of_a_copy if is_copy else plain
            if is_copy and boundary is Boundary.CONFIRM_SENT and incarnation is not None:
                incarnation.copied += 1
        elif boundary is Boundary.ACK_SENT and incarnation is not None and incarnation.copied:
            moment, incarnation.copied = of_a_copy, 0
        strike = self._fate.at(name, moment)
        return None if strike is None else self._suffer(strike, incarnation)

    def _suffer(self, strike: Strike, incarnation: Incarnation | None) -> Fault | Delay | None:
        match strike.act:
            case Act.CRASH if incarnation is not None:
                incarnation.struck(strike)
                return Fault.LOSE
            case Act.CRASH | Act.LOSE:
                self._chronicle.tell(strike.service, str(strike))
                return Fault.LOSE
            case Act.REFUSE:
                return Fault.REFUSE
            case Act.REPEAT:
                return Fault.REPEAT
            case Act.SLOW:
                return Delay(strike.seconds)
            case Act.RESTART:
                self._chronicle.tell("broker", f"restarts, and is down for {strike.seconds:.3g} s")
                self._restart(strike.seconds)
                return Fault.LOSE
            case Act.UNBIND:
                self._unbind(strike.number, strike.seconds)
            case Act.PURGE:
                self._purge(strike.number)
        return None


def cuts(broker: SimulatedBroker, incarnation: Incarnation) -> Callable[[], None]:
    """What takes a service's connections away from it."""

    def cut() -> None:
        # In a later turn: the broker may be in the middle of something on one of them.
        broker.core.clock.call_soon(broker.kill, incarnation.name)

    return cut
