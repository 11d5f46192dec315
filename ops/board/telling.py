"""One saga's story for the page: what is known, what should come next, and each moment in plain words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from common import saga
from ops.output import printable
from ops.story.judging import judge
from ops.story.standing import Phase, Standing, StepState
from ops.story.story import Story
from ops.story.telling import advice, next_words, span, title
from ops.story.timeline import Moment, Timeline, What

#: The shape of a moment's mark on the page, and what was done.
_WORDS: dict[What, tuple[str, str]] = {
    What.COMMAND: ("go", "did its part on"),
    What.EVENT: ("go", "did its part on"),
    What.REPEATED: ("quiet", "said its answer again to"),
    What.RETRY: ("wait", "put off"),
    What.DEAD_LETTER: ("bad", "gave up on"),
    What.PARKED: ("bad", "parked, for a person,"),
    What.FAILED: ("bad", "ended the saga on"),
    What.COMPENSATION: ("back", "took its part back on"),
    What.CLOSED: ("quiet", "remembered never to do its part, on"),
    What.NOTICE: ("good", "delivered the"),
    What.IGNORED: ("quiet", "had nothing to do on"),
    What.OPERATOR: ("quiet", "was asked for"),
    What.UNKNOWN: ("quiet", "handled"),
}
_LABELS = {
    Phase.MOVING: "Under way",
    Phase.COMPLETED: "Completed",
    Phase.UNDONE: "Failed, all undone",
    Phase.FAILED: "Refused at the first step",
    Phase.STUCK: "Stuck",
}
_TONES = {
    StepState.DONE: "good",
    StepState.UNDER_WAY: "go",
    StepState.REFUSED: "bad",
    StepState.OVERDUE: "bad",
    StepState.PARKED: "bad",
    StepState.UNDOING: "back",
    StepState.UNDONE: "back",
}
#: Whose own reason it is; the others only repeat why the saga failed.
_GIVES_REASON = {What.RETRY, What.DEAD_LETTER, What.PARKED, What.FAILED, What.OPERATOR, What.UNKNOWN}
_REFUSALS = {step.service: frozenset(step.refusals) for step in saga.SAGA}
_MOST_TEXT = 400
#: Moments that are shown: the first ones, and the last.
_MOST_FIRST, _MOST_LAST = 100, 200

#: The address at which a trace can be seen, by its id; None where nobody said.
Traces = Callable[[str], str | None]


def tell(timeline: Timeline, story: Story | None, *, now: float, traces: Traces) -> dict[str, Any] | None:
    """All that the page shows of a saga; None if nothing is known. `now` is in seconds since 1970."""
    moments = list(timeline)
    if not moments:
        return None
    hidden = max(0, len(moments) - _MOST_FIRST - _MOST_LAST)
    shown = moments if not hidden else moments[:_MOST_FIRST] + moments[-_MOST_LAST:]
    hidden += timeline.left_out
    links = [[f"Trace {trace[:8]}", address] for trace in timeline.traces[:3] if (address := traces(trace))]
    told = {"id": timeline.id, "links": links, "hidden": hidden, "events": [_event(moment) for moment in shown]}
    if story is None or not story.exists:
        # A command beside the sagas, or what an operator did: it has moments, but no steps to judge.
        return told | {
            "state": "",
            "label": "Beside the sagas",
            "ended": False,
            "said": "This is no saga; this is what became of its messages.",
            "facts": [],
            "steps": [],
            "next": [],
        }
    standing = judge(story, now)
    reason, detail = timeline.why_failed
    return told | {
        "state": standing.phase.value,
        "label": _LABELS[standing.phase],
        "ended": standing.phase.ended and not standing.expected,
        "said": _said(timeline.id, standing, detail if standing.reason and reason == standing.reason else ""),
        "facts": _facts(standing, moments),
        "steps": [
            [service, state.value, _TONES.get(state, "")]
            for service, state in zip(saga.SERVICES, standing.steps, strict=True)
        ],
        "next": [*(_sentence(line) for line in next_words(standing)), *advice(timeline.id, standing)],
    }


def _said(id_: str, standing: Standing, detail: str) -> str:
    told = title(id_, standing, _text(detail)).removeprefix(f"{id_}: ")
    return _sentence(told)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", ")")) else ".")


def _event(moment: Moment) -> dict[str, Any]:
    mark, did = _what(moment)
    return {
        "at": round(moment.at.timestamp() * 1000, 3),
        "service": _text(moment.service),
        "type": _text(moment.type),
        "mark": mark,
        "did": did,
        "more": [_text(line) for line in _more(moment)],
    }


def _what(moment: Moment) -> tuple[str, str]:
    if moment.what is What.DEAD_LETTER and moment.reason in _REFUSALS.get(moment.service, ()):
        return "bad", "refused"
    if moment.what is What.EVENT:
        if moment.type == saga.PIVOT.emits and moment.service == saga.FIRST.service:
            return "good", "completed on"
        if moment.service == saga.SERVICES[-1]:
            return "go", "noted the notice down on"
    return _WORDS[moment.what]


def _more(moment: Moment) -> list[str]:
    lines = []
    if moment.reason and moment.what in _GIVES_REASON:
        lines.append(f"{moment.reason}: {moment.detail}" if moment.detail else moment.reason)
    if moment.by or moment.why:
        lines.append(f"by {moment.by or 'somebody'}" + (f": {moment.why}" if moment.why else ""))
    if moment.said:
        lines.append("said " + ", ".join(type_ for type_, _ in moment.said))
    times = []
    if moment.attempts > 1 or moment.what is What.RETRY:
        times.append(f"attempt {moment.attempts}")
    if moment.delay_ms:
        times.append(f"again within {span(moment.delay_ms / 1000)}")
    if moment.waited_ms:
        times.append(f"waited {span(moment.waited_ms / 1000)}")
    if moment.took_ms:
        times.append(f"batch took {span(moment.took_ms / 1000)}")
    if moment.replica:
        times.append(f"by {moment.replica}")
    return [*lines, ", ".join(times)] if times else lines


def _text(text: str) -> str:
    """A stranger's text: no control characters, and not the whole of a flood."""
    return printable(text, limit=_MOST_TEXT)


def _facts(standing: Standing, moments: list[Moment]) -> list[list[str]]:
    facts = []
    if standing.took is not None:
        facts.append(["Took", span(standing.took)])
    if standing.baton:
        facts.append(["Holds the baton", standing.baton])
    if standing.failed_at:
        facts.append(["Failed at", standing.failed_at])
    retries = sum(moment.what is What.RETRY for moment in moments)
    if retries:
        facts.append(["Retries", str(retries)])
    if standing.holes:
        facts.append(["Words missing", str(len(standing.holes))])
    return facts
