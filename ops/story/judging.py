"""How a saga stands at a moment: what follows from its words, and from how long nothing was heard of it. Pure."""

from __future__ import annotations

from common import saga
from common.history import Became
from ops.story.shape import PIVOT, Shape, shape_of
from ops.story.standing import Expected, Phase, Standing
from ops.story.story import LAST, Story, Word

#: Seconds of silence beyond what is planned after which a step is overdue, and a saga stuck.
OVERDUE_AFTER = 10.0
STUCK_AFTER = 120.0
#: Seconds that a saga may be tried again without getting on: all retry levels together are shorter.
RETRIED_FOR = 600.0


def judge(story: Story, now: float, *, stuck_after: float = STUCK_AFTER) -> Standing:
    """How a saga that exists stands at this moment (seconds since 1970)."""
    shape = shape_of(story.words)
    quiet = max(story.last, story.due)
    overdue = now - quiet > OVERDUE_AFTER
    why = "" if shape.ended else _why_stuck(story, shape, now, now - quiet > stuck_after)
    return Standing(
        phase=shape.ended or (Phase.STUCK if why else Phase.MOVING),
        steps=shape.steps_overdue if overdue else shape.steps,
        backwards=shape.backwards,
        baton=shape.baton,
        expected=tuple([_expected(story, shape, place) for place in (*shape.missing, *shape.notice)]),
        overdue=overdue and shape.ended is None,
        failed_at=None if shape.failed is None else saga.SERVICES[shape.failed],
        reason=story.cause.reason if story.cause and shape.backwards else "",
        began=story.first or 0.0,
        ended=_ended_at(story, shape) if shape.ended else None,
        quiet_since=quiet,
        why_stuck=why,
        holes=shape.holes,
    )


def _why_stuck(story: Story, shape: Shape, now: float, is_silent: bool) -> str:
    if shape.torn:
        return f"the history contradicts itself: {shape.torn}"
    if shape.parked:
        return f"a message waits for a person among the parked ones of {', '.join(shape.parked)}"
    if is_silent:
        return "nothing more has been heard of it"
    moved = max((time for time in story.times if time is not None), default=story.first or 0.0)
    trouble = story.trouble
    if trouble and trouble.became == Became.RETRY and now - moved > RETRIED_FOR:
        return f"{trouble.service} tries {trouble.type} again and again"
    return ""


def _expected(story: Story, shape: Shape, place: int) -> Expected:
    step = saga.SAGA[place]
    if shape.pivoted:
        says = step.emits if place == LAST else saga.COMPLETED
        return Expected(step.service, saga.PIVOT.emits, (says,), story.time(PIVOT, Word.DID))
    if shape.backwards:
        on = saga.ANY_FAILED if shape.failed is None else saga.SAGA[shape.failed].failed
        since = None if shape.failed is None else story.time(shape.failed, Word.FAILED)
        return Expected(step.service, on, (step.compensation or step.emits,), since)
    since = story.time(place - 1, Word.DID) if place else story.first
    return Expected(step.service, step.on, (step.emits, step.failed), since)


def _ended_at(story: Story, shape: Shape) -> float | None:
    """When the last word that it waited for was told; None if that is lost, or contradicts the other clocks."""
    if shape.pivoted:
        last, words = PIVOT, [story.time(0, Word.FINISHED)]
    elif not shape.failed:
        last, words = 0, [story.time(0, Word.FAILED)]
    else:
        last = shape.failed - 1
        words = [story.time(place, Word.UNDID) for place in range(shape.failed) if saga.SAGA[place].compensation]
    if any(time is None for time in words):
        return None
    ended = max(time for time in words if time is not None)
    done = [story.time(place, Word.DID) for place in range(last + 1)]
    return None if any(time is not None and time > ended for time in done) else ended
