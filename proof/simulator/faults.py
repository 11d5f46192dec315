"""What may go wrong, and at which moment: drawn by chance from a seed, or planned one by one."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Moment(StrEnum):
    """A boundary at which a fault can strike, as it is told."""

    STATEMENT = "before a statement"
    ROWS = "between two rows of a batch"
    COMMIT = "before a commit"
    COMMITTED = "after a commit"
    SWEEP = "in the sweeper"
    FORGET = "between a confirm and forgetting the outbox row"
    FORGOTTEN = "after forgetting the outbox row"
    SEND = "before a notice is sent"
    SENT = "between sending a notice and noting it"
    PUBLISH = "before a publish"
    STORED = "after a publish, before its confirm"
    CONFIRM = "while a confirm is under way"
    COPY = "before a copy"
    COPIED = "between a copy and its confirm"
    ACK = "before an ack"
    COPY_ACK = "between a copy and the ack of its original"
    ACKED = "after an ack"
    DELIVERY = "while a delivery is under way"
    DEAD_LETTER = "while the broker moves a dead letter"


class Act(StrEnum):
    """What strikes."""

    CRASH = "is killed"
    LEAVE = "is asked to leave"
    LOSE = "loses its connection"
    REFUSE = "is refused by the broker"
    REPEAT = "is sent a message twice"
    SLOW = "waits"
    AWAY = "loses its database"
    CUT = "loses its database connection"
    FAIL = "stumbles"
    UNSURE = "does not hear that its commit is done"
    RESTART = "sees the broker restart"
    UNBIND = "sees a binding disappear"
    PURGE = "sees a queue lose its messages"


@dataclass(frozen=True, slots=True, order=True)
class Strike:
    """One fault: the `number`th time that a service comes to a moment, something happens, for so many seconds."""

    service: str
    moment: Moment
    number: int
    act: Act
    seconds: float = 0.0

    def __str__(self) -> str:
        lasting = f" for {self.seconds:.3g} s" if self.seconds else ""
        return f"{self.service} {self.act}{lasting} {self.moment} (number {self.number} of its kind)"


#: How often, in a thousand times, each thing happens at each moment.
RATES: Mapping[Moment, Mapping[Act, float]] = {
    Moment.STATEMENT: {Act.CRASH: 0.5, Act.AWAY: 0.1, Act.CUT: 0.5, Act.FAIL: 1.0, Act.SLOW: 0.3},
    Moment.ROWS: {Act.CRASH: 2.0},
    Moment.COMMIT: {Act.CRASH: 3.0, Act.AWAY: 0.2, Act.CUT: 1.0, Act.FAIL: 1.0, Act.LEAVE: 0.3, Act.SLOW: 2.0},
    Moment.COMMITTED: {Act.CRASH: 4.0, Act.UNSURE: 3.0},
    Moment.SWEEP: {Act.CRASH: 4.0, Act.CUT: 2.0},
    Moment.FORGET: {Act.CRASH: 4.0, Act.CUT: 2.0},
    Moment.FORGOTTEN: {Act.CRASH: 1.0},
    Moment.SEND: {Act.CRASH: 0.6, Act.FAIL: 10.0, Act.SLOW: 2.0},
    Moment.SENT: {Act.CRASH: 0.6, Act.FAIL: 10.0},
    Moment.PUBLISH: {
        Act.CRASH: 0.6,
        Act.LOSE: 0.3,
        Act.REFUSE: 3.0,
        Act.SLOW: 3.0,
        Act.RESTART: 0.05,
        Act.UNBIND: 0.2,
        Act.PURGE: 1.0,
    },
    Moment.STORED: {Act.CRASH: 0.6, Act.LOSE: 0.3},
    Moment.CONFIRM: {Act.CRASH: 0.6, Act.LOSE: 0.3, Act.SLOW: 2.0},
    Moment.COPY: {Act.CRASH: 2.0, Act.LOSE: 1.0, Act.REFUSE: 5.0},
    Moment.COPIED: {Act.CRASH: 2.0, Act.LOSE: 1.0},
    Moment.COPY_ACK: {Act.CRASH: 4.0, Act.LOSE: 2.0},
    Moment.ACK: {Act.CRASH: 4.0, Act.LOSE: 1.0, Act.SLOW: 5.0},
    Moment.ACKED: {Act.CRASH: 3.0, Act.LOSE: 1.0},
    Moment.DELIVERY: {Act.LOSE: 0.2, Act.SLOW: 2.0, Act.REPEAT: 10.0},
    Moment.DEAD_LETTER: {Act.LOSE: 20.0, Act.REPEAT: 50.0},
}

#: Most seconds that a thing takes.
_LONGEST: Mapping[Act, float] = {
    Act.SLOW: 3.0,
    Act.AWAY: 20.0,
    Act.RESTART: 10.0,
    Act.UNBIND: 15.0,
    Act.CRASH: 3.0,
    Act.LEAVE: 1.0,
}


class Fate(Protocol):
    """Whoever decides what happens."""

    def at(self, service: str, moment: Moment) -> Strike | None:
        """What strikes now."""
        ...


class Chance:
    """Strikes by chance, more or less often, for as long as it may; it remembers what it did."""

    def __init__(self, chance: random.Random, intensity: float = 1.0, *, lossy: bool = False) -> None:
        """`lossy`: queues may lose messages, too."""
        self.strikes: list[Strike] = []
        self.reached: Counter[tuple[str, Moment]] = Counter()
        self.over = False
        self._random = chance.random
        # One draw per moment: the acts lie one after the other between 0 and 1.
        self._bars = {
            moment: tuple(
                (act, intensity * rate / 1000) for act, rate in acts.items() if lossy or act is not Act.PURGE
            )
            for moment, acts in RATES.items()
        }
        self._total = {moment: sum(rate for _, rate in bars) for moment, bars in self._bars.items()}

    def at(self, service: str, moment: Moment) -> Strike | None:
        """Draw what strikes."""
        self.reached[service, moment] += 1
        if self.over:
            return None
        drawn = self._random()
        if drawn >= self._total[moment]:
            return None
        for act, rate in self._bars[moment]:
            if drawn < rate:
                return self._strike(service, moment, act)
            drawn -= rate
        return None

    def _strike(self, service: str, moment: Moment, act: Act) -> Strike:
        # Short ones are the most.
        seconds = round(_LONGEST.get(act, 0.0) * self._random() ** 3, 3)
        strike = Strike(service, moment, self.reached[service, moment], act, seconds)
        self.strikes.append(strike)
        return strike


class Plan:
    """Strikes as planned."""

    def __init__(self, strikes: Iterable[Strike]) -> None:
        self.strikes: list[Strike] = []
        self.reached: Counter[tuple[str, Moment]] = Counter()
        self.over = False
        self._planned = {(strike.service, strike.moment, strike.number): strike for strike in strikes}

    def at(self, service: str, moment: Moment) -> Strike | None:
        """Give what is planned for this moment."""
        self.reached[service, moment] += 1
        strike = self._planned.get((service, moment, self.reached[service, moment]))
        if strike is None or self.over:
            return None
        self.strikes.append(strike)
        return strike
