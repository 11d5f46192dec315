"""How stories are told: the same facts as words for a terminal, as plain lines for a pipe, and as JSON.

All that comes from a message goes through `printable`, so that no text of a stranger steers a terminal.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from common import saga
from ops.output import on_terminal, printable
from ops.story.standing import Expected, Phase, Standing, StepState
from ops.story.story import Story
from ops.story.timeline import Moment, Timeline, What

#: Rich's styles of phases and steps; on a terminal only.
PHASE_STYLE = {
    Phase.MOVING: "cyan",
    Phase.COMPLETED: "green",
    Phase.UNDONE: "yellow",
    Phase.FAILED: "yellow",
    Phase.STUCK: "bold red",
}
STEP_STYLE = {
    StepState.WAITING: "dim",
    StepState.UNDER_WAY: "cyan",
    StepState.OVERDUE: "bold red",
    StepState.DONE: "green",
    StepState.REFUSED: "red",
    StepState.UNDOING: "magenta",
    StepState.UNDONE: "yellow",
    StepState.CLOSED: "dim",
    StepState.PARKED: "bold red",
    StepState.UNKNOWN: "dim",
}
#: A sign for each state, so that it can be told without colours, too.
STEP_SIGN = {
    StepState.WAITING: "·",
    StepState.UNDER_WAY: "▶",
    StepState.OVERDUE: "!",
    StepState.DONE: "✔",
    StepState.REFUSED: "✘",
    StepState.UNDOING: "◀",
    StepState.UNDONE: "↺",
    StepState.CLOSED: "x",
    StepState.PARKED: "P",
    StepState.UNKNOWN: "?",
}
NOT_TOLD = "the history does not tell"


def moment_of(seconds: float | None) -> datetime | None:
    """Seconds since 1970 as a time; None for none, and for what no calendar holds."""
    if seconds is None:
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return None


def clock(at: float | datetime | None) -> str:
    """A moment as people here read it, to the millisecond; on a terminal without the date if it was today."""
    moment = at if isinstance(at, datetime) else moment_of(at)
    if moment is None:
        return "?"
    try:
        here = moment.astimezone()
    except (OverflowError, ValueError, OSError):
        return moment.isoformat()
    is_today = on_terminal() and here.date() == datetime.now(UTC).astimezone().date()
    return here.strftime("%H:%M:%S.%f" if is_today else "%Y-%m-%d %H:%M:%S.%f")[:-3]


def span(seconds: float | None) -> str:
    """A duration, as exact as its size deserves.

    >>> [span(seconds) for seconds in (0.0042, 1.5, 75, 7300, 200_000)]
    ['4 ms', '1.50 s', '1 min 15 s', '2 h 1 min', '2 d 7 h']
    """
    if seconds is None:
        return "?"
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 60:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 24 else f"{hours // 24} d {hours % 24} h"


def steps(standing: Standing) -> str:
    """The five steps on one line, for a pipe: always in the order of the table."""
    return " ".join(
        f"{service}={str(state).replace(' ', '-')}"
        for service, state in zip(saga.SERVICES, standing.steps, strict=True)
    )


def signs(standing: Standing) -> str:
    """The five steps as signs, for a narrow table."""
    return " ".join(STEP_SIGN[state] for state in standing.steps)


def legend() -> str:
    """What the signs mean."""
    return "   ".join(f"{sign} {state}" for state, sign in STEP_SIGN.items())


def where(standing: Standing) -> str:
    """Which service matters now: who failed it, or whose word is missing."""
    if standing.phase in {Phase.UNDONE, Phase.FAILED}:
        return standing.failed_at or "?"
    if standing.phase is Phase.COMPLETED:
        return ""
    return ", ".join(dict.fromkeys(expected.service for expected in standing.expected)) or "?"


def reason(story: Story, standing: Standing) -> str:
    """Why it failed, or what keeps it."""
    if standing.reason:
        return standing.reason
    trouble = story.trouble
    if trouble and not standing.phase.ended:
        return f"{trouble.became} {trouble.reason} at {trouble.service}, attempt {trouble.attempt}"
    return ""


def duration(standing: Standing, now: float) -> str:
    """How long it took, or how old it is."""
    if standing.phase.ended:
        return span(standing.took)
    return span(max(0.0, now - standing.began))


def title(id_: str, standing: Standing, detail: str) -> str:
    """What became of it, in one sentence."""
    match standing.phase:
        case Phase.COMPLETED:
            told = "completed: all of it happened"
        case Phase.UNDONE:
            told = f"undone: {_failure(standing)}, and what was done before is taken back"
        case Phase.FAILED:
            told = f"failed: {_failure(standing)}; nothing had been done yet"
        case Phase.STUCK:
            told = f"stuck: {standing.why_stuck}"
        case Phase.MOVING:
            told = f"being undone: {_failure(standing)}" if standing.backwards else "under way"
    return printable(f"{id_}: {told}" + (f" ({detail})" if detail else ""))


def _failure(standing: Standing) -> str:
    at = standing.failed_at or "a step that the history does not name"
    return f"{at} failed it, {standing.reason}" if standing.reason else f"{at} failed it"


def next_words(standing: Standing) -> list[str]:
    """What should come next, and who holds the baton."""
    told = []
    if standing.baton:
        told.append(f"{standing.baton} holds the baton")
    elif standing.backwards and not standing.phase.ended:
        told.append("nobody holds the baton: each service undoes its part by itself")
    return told + [_expectation(expected) for expected in standing.expected]


def _expectation(expected: Expected) -> str:
    since = f"since {clock(expected.since)}" if expected.since is not None else f"{NOT_TOLD} since when"
    return f"{expected.service} is to say {' or '.join(expected.says)}, asked by {expected.on} ({since})"


def advice(id_: str, standing: Standing | None) -> list[str]:
    """What a person can do about it."""
    if standing is None:
        return [
            "The history keeps seven days, and has holes: `saga audit` asks the databases.",
            f"`saga outcome {id_}` asks the services; `saga doctor` looks whether they tell the history.",
        ]
    match standing.phase:
        case Phase.UNDONE | Phase.FAILED:
            return ["Nothing was charged. Mend the reason, and pay under a new id: this one stays failed."]
        case Phase.STUCK if "parked" in standing.why_stuck:
            return ["`saga parked list` shows what waits for a person; `saga parked replay` sends it again."]
        case Phase.STUCK:
            told = [
                "`saga doctor` looks for what is missing; `saga audit` asks the databases how it really stands."
            ]
            if standing.baton:
                told.append(f"`saga abort {id_}` ends it, if its holder has not acted yet.")
            return told
        case _:
            return []


TIMELINE = ("time", "after", "service", "what", "message", "said", "waited/took", "notes")


def timeline_rows(timeline: Timeline) -> Iterable[tuple[str, ...]]:
    """The moments as rows: when, how long after the one before, who, what, on which message, saying what.

    `waited`: how long the message was on its way; `took`: how long its batch was worked on.
    """
    before: datetime | None = None
    for moment in timeline:
        after = "" if before is None else f"+{span((moment.at - before) / timedelta(seconds=1))}"
        before = moment.at
        said = ", ".join(type_ for type_, _ in moment.said)
        waited = span(moment.waited_ms / 1000) if moment.waited_ms else "?"
        took = f"{waited}/{span(moment.took_ms / 1000)}" if moment.what is not What.OPERATOR else ""
        yield clock(moment.at), after, moment.service, moment.what, moment.type, said, took, _notes(moment)


#: What only repeats a reason that another service gave, and that stands in its own row.
_HEARD = {What.COMPENSATION, What.CLOSED, What.IGNORED}


def _notes(moment: Moment) -> str:
    notes = []
    if moment.reason:
        detailed = moment.detail and moment.what not in _HEARD
        notes.append(f"{moment.reason}: {moment.detail}" if detailed else moment.reason)
    if moment.by or moment.why:
        notes.append(f"by {moment.by or '?'}" + (f": {moment.why}" if moment.why else ""))
    if moment.attempts > 1 or moment.what is What.RETRY:
        notes.append(f"attempt {moment.attempts}")
    if moment.delay_ms:
        notes.append(f"again within {span(moment.delay_ms / 1000)}")
    return "; ".join(notes)


def now() -> float:
    """Seconds since 1970."""
    return time.time()
