"""Stories and moments as documents for programs: the same as people are told, field by field."""

from __future__ import annotations

from typing import Any

from common import saga
from ops.story.standing import Standing
from ops.story.story import Story
from ops.story.telling import moment_of
from ops.story.timeline import Moment


def story_json(story: Story, standing: Standing, now: float) -> dict[str, Any]:
    """A story for programs. Times are RFC 3339, durations seconds; null: the history does not tell."""
    return {
        "id": story.id,
        "phase": standing.phase,
        "steps": dict(zip(saga.SERVICES, standing.steps, strict=True)),
        "backwards": standing.backwards,
        "baton": standing.baton,
        "expected": [
            {
                "service": expected.service,
                "on": expected.on,
                "says": list(expected.says),
                "since": moment_of(expected.since),
            }
            for expected in standing.expected
        ],
        "overdue": standing.overdue,
        "failed_at": standing.failed_at,
        "reason": standing.reason,
        "why_stuck": standing.why_stuck,
        "began": moment_of(standing.began),
        "ended": moment_of(standing.ended),
        "took_s": standing.took,
        "age_s": max(0.0, now - standing.began),
        "last": moment_of(story.last),
        "trouble": _trouble_json(story),
        "act": _act_json(story),
        "holes": list(standing.holes),
    }


def _trouble_json(story: Story) -> dict[str, Any] | None:
    trouble = story.trouble
    if trouble is None:
        return None
    told: dict[str, Any] = {"at": moment_of(trouble.at), "service": trouble.service, "type": trouble.type}
    return told | {"became": trouble.became, "reason": trouble.reason, "attempt": trouble.attempt}


def _act_json(story: Story) -> dict[str, Any] | None:
    act = story.act
    return None if act is None else {"at": moment_of(act.at), "act": act.act, "by": act.by}


def moment_json(moment: Moment) -> dict[str, Any]:
    """A moment of a timeline for programs."""
    return {
        "at": moment.at,
        "service": moment.service,
        "replica": moment.replica,
        "what": moment.what,
        "type": moment.type,
        "became": moment.became,
        "deed": moment.deed,
        "said": [type_ for type_, _ in moment.said],
        "reason": moment.reason,
        "detail": moment.detail,
        "attempt": moment.attempts or None,
        "next_attempt_within_s": moment.delay_ms / 1000 if moment.delay_ms else None,
        "waited_ms": moment.waited_ms or None,
        "batch_took_ms": moment.took_ms,
        "trace": moment.trace,
        "by": moment.by,
        "why": moment.why,
    }
