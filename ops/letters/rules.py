"""What would happen to a letter that is replayed, and which letter may be discarded: pure decisions.

The services decide for themselves, by their barrier, so a replay too many does no harm. A letter discarded too
many does: it may be the only message that carries its saga on, or undoes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from common import retention, rights, saga
from common.messages import ForwardEvent, Pay
from ops.letters.letter import Letter, Role
from ops.letters.standing import ANSWERED, Standing

_DID = frozenset({"done", "settled"})
_OVER = frozenset({"undone", "failed", "closed"})


class Verdict(StrEnum):
    """Whether an act may be done."""

    YES = "yes"
    SETTLED = "settled"
    """Nothing would come of it. `--force` does it all the same."""
    UNKNOWN = "unknown"
    """Nobody can be asked. `--force` does it all the same."""
    NEVER = "never"
    """It would do harm, or only come back."""


@dataclass(frozen=True, slots=True)
class Prospect:
    """What would happen, and whether it may. `instead`: what to do where it may not."""

    verdict: Verdict
    says: str
    instead: str = ""

    def allows(self, *, force: bool = False) -> bool:
        """Whether the act is done; `force` also does what is pointless or cannot be judged."""
        return self.verdict is Verdict.YES or (force and self.verdict in {Verdict.SETTLED, Verdict.UNKNOWN})


_NOBODY_KNOWS = Prospect(
    Verdict.UNKNOWN,
    "nobody can say how its saga stands: neither the databases nor the history could be asked, or know of it",
    "name the databases with DATABASE_URL_<SERVICE>",
)


def replay(letter: Letter, standing: Standing, *, now: datetime) -> Prospect:
    """What a letter would come to that goes back to its service with a fresh count of attempts."""
    if letter.role is Role.UNKNOWN and not letter.fault:
        return _replay_of_unknown(letter, standing)
    if refused := _never_done(letter):
        return refused
    if letter.reason == retention.TOO_OLD:
        return Prospect(
            Verdict.NEVER,
            f"it is older than {letter.service} remembers, which would park it again",
            "look with `saga audit` whether its saga is over, and discard it",
        )
    if letter.role is Role.SETTLEMENT:
        return Prospect(Verdict.YES, f"{letter.service} notes that these sagas are complete; again does no harm")
    if not standing.is_known:
        return _NOBODY_KNOWS
    if standing.is_other or (letter.reason == saga.IDEMPOTENCY_CONFLICT and standing.state):
        return Prospect(
            Verdict.NEVER,
            f"{letter.key} was used before with other content; {letter.service} would refuse and park it again",
            "let its sender choose another id, and discard this one",
        )
    match letter.role:
        case Role.COMMAND:
            return _replay_of_command(letter, standing)
        case Role.FORWARD:
            return _replay_of_forward(letter, standing, now)
        case Role.COMPLETION:
            return _replay_of_completion(letter, standing)
        case _:
            return _replay_of_failure(letter, standing)


def _never_done(letter: Letter) -> Prospect | None:
    """Why its service would not even look at a letter; None if it would."""
    service = letter.service
    if letter.fault:
        return Prospect(
            Verdict.NEVER,
            f"{service} cannot read it and would park it again ({letter.fault})",
            "let its sender publish a right one, and discard this one",
        )
    match letter.role:
        case Role.OWN:
            return _of_own(letter)
        case Role.FOREIGN:
            return Prospect(
                Verdict.NEVER, f"{service} does not take {letter.type} and would park it again", "discard it"
            )
        case Role.IMPOSSIBLE:
            return Prospect(
                Verdict.NEVER,
                f"{letter.type} cannot exist: that step may not fail; {service} would park it again",
                "find out who published it, and discard it",
            )
    return None


def _of_own(letter: Letter) -> Prospect:
    if letter.type == saga.SAGA[-1].emits:
        return Prospect(
            Verdict.NEVER,
            "no channel took the notice; to replay this would tell everybody that it was sent",
            "tell the user yourself, then discard it",
        )
    return Prospect(
        Verdict.NEVER,
        f"{letter.service} says {letter.type} itself; it does not take it",
        "send the saga's command again: every service then says again what it said",
    )


def _replay_of_unknown(letter: Letter, standing: Standing) -> Prospect:
    if standing.state in _OVER or standing.completed:
        return _settled(letter, standing, "no version should do anything about it")
    return Prospect(
        Verdict.YES,
        f"it goes back to {letter.service}, which tries it slowly for a while and parks it again, unless its "
        f"version knows {letter.type or 'this type'} by now",
    )


def _replay_of_command(letter: Letter, standing: Standing) -> Prospect:
    if standing.state == ANSWERED:
        return _settled(letter, standing, "it would only say its answer again")
    return Prospect(Verdict.YES, f"{letter.service} does it for the first time and answers")


def _replay_of_forward(letter: Letter, standing: Standing, now: datetime) -> Prospect:
    if standing.state in _DID or (standing.completed and not _is_past(letter)):
        # A completed payment whose row is not there has been forgotten, its part with it.
        return _settled(letter, standing, "it would only say again what it said")
    if standing.state:
        return _settled(letter, standing, "it would only say again that the saga failed")
    expires_at = letter.content.expires_at if isinstance(letter.content, Pay | ForwardEvent) else None
    if expires_at is not None and expires_at <= now and not _is_past(letter):
        return Prospect(
            Verdict.YES,
            f"its deadline passed at {expires_at:%Y-%m-%d %H:%M:%S} UTC: {letter.service} refuses, the saga fails "
            "and what was done before is undone",
        )
    return Prospect(Verdict.YES, f"{letter.service} does its part for the first time, and the saga goes on")


def _is_past(letter: Letter) -> bool:
    """Whether the saga only goes forward from here, whatever the time."""
    return letter.type == saga.PIVOT.emits


def _replay_of_completion(letter: Letter, standing: Standing) -> Prospect:
    if standing.completed:
        return _settled(letter, standing, "it would only say again that the payment is completed")
    if standing.state in _DID:
        return Prospect(Verdict.YES, "the payment completes")
    return Prospect(
        Verdict.NEVER,
        f"{_stands(letter, standing)}, but {letter.type} says that the saga happened: it would be parked again",
        "look with `saga audit`: either the database was set back, or somebody published what is not true; then "
        "send the saga's command again",
    )


def _replay_of_failure(letter: Letter, standing: Standing) -> Prospect:
    if _is_beyond_failing(letter, standing):
        return Prospect(
            Verdict.NEVER,
            "the saga is past its pivot and only goes forward: to replay its failure would tear it",
            "find out who published it, and discard it",
        )
    if standing.state in _OVER:
        return _settled(letter, standing, "it would do nothing")
    if standing.state == "done":
        return Prospect(Verdict.YES, f"{letter.service} undoes its part")
    return Prospect(Verdict.YES, f"{letter.service} remembers never to do its part")


def _is_beyond_failing(letter: Letter, standing: Standing) -> bool:
    """Whether the saga is past its pivot, by what is known of it or by this service's own row."""
    its_own = letter.service == saga.PIVOT.service and standing.state in _DID
    return standing.past_pivot or its_own or standing.state == "settled"


def discard(letter: Letter, standing: Standing) -> Prospect:
    """Whether a letter may be taken away for good: never the one for which its saga waits."""
    role = letter.role
    if letter.reason == rights.NOT_ITS_OWNER:
        return Prospect(Verdict.YES, "no saga waits for it: who published it may not say this")
    match role:
        case Role.COMMAND:
            return Prospect(Verdict.YES, "its sender gets no answer to it")
        case Role.OWN | Role.FOREIGN | Role.IMPOSSIBLE:
            return Prospect(
                Verdict.YES, f"no saga waits for it: {letter.service} would never do anything about it"
            )
        case Role.SETTLEMENT:
            return Prospect(
                Verdict.YES, f"{letter.service} stays unsure of these sagas, until they are told again"
            )
    if letter.fault and letter.type == saga.FIRST.on:
        return Prospect(Verdict.YES, "no saga has begun by it; its sender gets no answer")
    if not letter.key:
        return Prospect(Verdict.YES, "it names no saga, so none can be waiting for it")
    if not standing.is_known:
        return _NOBODY_KNOWS
    return {
        Role.FORWARD: _discard_of_forward,
        Role.COMPLETION: _discard_of_completion,
        Role.FAILURE: _discard_of_failure,
        Role.UNKNOWN: _discard_of_unknown,
    }[role](letter, standing)


def _discard_of_forward(letter: Letter, standing: Standing) -> Prospect:
    if standing.state or (standing.completed and not _is_past(letter)):
        return _no_loss(letter, standing)
    because = f"{letter.service} has not done its part, and this is the message that it waits for"
    return _torn(letter, because, f"replay it, or end its saga with `saga abort {letter.key}`")


def _discard_of_completion(letter: Letter, standing: Standing) -> Prospect:
    if standing.completed or standing.state in _OVER:
        return _no_loss(letter, standing)
    because = "the payment is not completed, and this is the message that it waits for"
    return _torn(letter, because, "replay it" if standing.state else _COMMAND_AGAIN)


def _discard_of_failure(letter: Letter, standing: Standing) -> Prospect:
    if _is_beyond_failing(letter, standing):
        return Prospect(
            Verdict.YES, "the saga is past its pivot: this failure contradicts it and must not be done"
        )
    if standing.state in _OVER:
        return _no_loss(letter, standing)
    undo = "undone its part" if standing.state else "heard that the saga failed"
    return _torn(letter, f"{letter.service} has not {undo}", "replay it")


def _discard_of_unknown(letter: Letter, standing: Standing) -> Prospect:
    if standing.completed or standing.state in _OVER:
        return _no_loss(letter, standing)
    return _torn(
        letter,
        f"its saga is open, and what {letter.type or 'it'} means only another version knows",
        f"replay it when a {letter.service} that knows it is running",
    )


#: By the rule of repetition that brings a message which can be read to whoever waits for one.
_COMMAND_AGAIN = (
    "send the saga's command again: every service says again what it said, and once this one has done what it "
    "waits for, the letter may go"
)


def _torn(letter: Letter, because: str, instead: str) -> Prospect:
    says = f"it would tear saga {letter.key}: {because}"
    return Prospect(Verdict.NEVER, says, _COMMAND_AGAIN if letter.fault else instead)


def _no_loss(letter: Letter, standing: Standing) -> Prospect:
    return Prospect(Verdict.YES, f"nothing waits for it: {_stands(letter, standing)}")


def _settled(letter: Letter, standing: Standing, then: str) -> Prospect:
    return Prospect(
        Verdict.SETTLED,
        f"settled: {_stands(letter, standing)}; {then}",
        "discard it, or replay it with --force all the same",
    )


def _stands(letter: Letter, standing: Standing) -> str:
    """How a saga stands, as a person says it."""
    told = "the databases say" if standing.source == "databases" else "the history says"
    if standing.completed:
        return f"{told} that payment {letter.key} is completed"
    if not standing.state:
        return f"{told} that {letter.service} has not heard of {letter.key}"
    return f"{told} that {letter.key} is {standing.state} in {letter.service}"
