"""The fold: what the history tells becomes one story a saga, whatever the order, and never more than was told."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import saga
from common.history import NOTICE, Became, Entry, Record
from common.recovery import Deed
from ops.story.fold import Stories, fold
from ops.story.judging import OVERDUE_AFTER, RETRIED_FOR, STUCK_AFTER, judge
from ops.story.standing import Phase, Standing, StepState
from ops.story.story import Story
from ops.story.timeline import Timeline
from tests.support.history_script import BEGAN, Script, completed, refused

_REFUSING = [step.service for step in saga.SAGA if step.refusals]


def folded(records: Sequence[Record], id_: str = "p-1") -> Story:
    """The story of one saga."""
    stories = Stories()
    for record in records:
        fold(stories, record)
    return stories.sagas[id_]


def standing(script: Script, *, after: float = 0.0) -> Standing:
    """How a script's saga stands so many seconds after its last record."""
    return judge(folded(script.records), script.now + after)


def states(found: Standing) -> dict[str, str]:
    """The steps by service."""
    return {service: str(state) for service, state in zip(saga.SERVICES, found.steps, strict=True)}


def test_a_saga_that_all_happened_is_completed() -> None:
    """The main thing: seven records, five steps done, and how long it took."""
    found = standing(completed())
    assert found.phase is Phase.COMPLETED
    assert set(found.steps) == {StepState.DONE}
    assert found.took == pytest.approx(0.05)
    assert (found.baton, found.expected, found.holes) == (None, (), ())


@pytest.mark.parametrize("place", range(1, 4))
def test_the_baton_is_held_by_whoever_was_asked_last(place: int) -> None:
    """An operator's first question about a saga under way: whose turn is it, and since when."""
    script = Script().does(*saga.SERVICES[:place])
    found = standing(script, after=1)
    step = saga.SAGA[place]
    assert (found.phase, found.baton) == (Phase.MOVING, step.service)
    (expected,) = found.expected
    assert (expected.service, expected.on, expected.says) == (step.service, step.on, (step.emits, step.failed))
    assert expected.since == pytest.approx(script.now)
    assert found.steps[place] is StepState.UNDER_WAY


def test_after_the_pivot_payment_completes_and_the_user_is_told() -> None:
    """The pivot's event has two hearers; both words are missing until both are there."""
    script = Script().does("payment", "reservation", "point", "queue")
    found = standing(script)
    assert (found.phase, found.baton) == (Phase.MOVING, "payment")
    assert [expected.says for expected in found.expected] == [("payment.completed",), ("notification.sent",)]
    script.tells("payment", "queue.expired", deed=Deed.DID, said=("payment.completed",))
    found = standing(script)
    assert found.phase is Phase.COMPLETED
    assert [expected.service for expected in found.expected] == ["notify"]
    assert found.steps[-1] is StepState.UNDER_WAY


@pytest.mark.parametrize("service", _REFUSING)
def test_a_refusal_is_undone_step_by_step(service: str) -> None:
    """Wherever it is refused: everything before is undone, everything after is closed, and the reason is told."""
    reason = saga.step_of(service).refusals[0]
    found = standing(refused(service, reason))
    place = saga.SERVICES.index(service)
    assert found.phase is (Phase.UNDONE if place else Phase.FAILED)
    assert (found.failed_at, found.reason) == (service, reason)
    wanted = dict.fromkeys(saga.SERVICES[:place], "undone") | {service: "refused"}
    wanted |= dict.fromkeys(saga.SERVICES[place + 1 : -1], "closed") | {"notify": "done"}
    assert states(found) == wanted
    assert found.took is not None
    assert not found.holes


def test_until_its_compensations_are_told_a_refused_saga_is_being_undone() -> None:
    """Half undone is not undone: whoever has not spoken yet is named."""
    script = Script().does("payment", "reservation", "point").refuses("queue", "unknown_token")
    script.hears("reservation", "queue", "unknown_token", undoes=True)
    found = standing(script)
    assert (found.phase, found.backwards, found.baton) == (Phase.MOVING, True, None)
    assert [it.service for it in found.expected] == ["payment", "point", "notify"]
    assert [it.says for it in found.expected[:2]] == [("payment.cancelled",), ("point.restored",)]
    assert {it.on for it in found.expected} == {"queue.failed"}
    assert states(found)["reservation"] == "undone"
    assert states(found)["point"] == "undoing"


def test_retries_that_end_in_death_are_undone_with_their_reason() -> None:
    """Spent retries are a refusal like any other; the attempts are remembered."""
    script = Script().does("payment", "reservation")
    for attempt in (1, 2, 3, 4):
        script.retries("point", attempt=attempt)
    assert standing(script).steps[2] is StepState.UNDER_WAY
    script.refuses("point", saga.RETRIES_SPENT, attempt=5)
    for other in ("payment", "reservation"):
        script.hears(other, "point", saga.RETRIES_SPENT, undoes=True)
    found = standing(script)
    story = folded(script.records)
    assert (found.phase, found.reason) == (Phase.UNDONE, "retries_spent")
    assert story.trouble is not None
    assert (story.trouble.became, story.trouble.attempt) == ("dead", 5)


def test_a_planned_retry_is_waited_for_and_only_then_overdue() -> None:
    """Five minutes until the next attempt are no alarm; ten seconds more are one."""
    script = Script().does("payment").retries("reservation", attempt=4, delay_ms=300_000)
    assert standing(script, after=290).steps[1] is StepState.UNDER_WAY
    late = standing(script, after=300 + OVERDUE_AFTER + 1)
    assert (late.phase, late.overdue, late.steps[1]) == (Phase.MOVING, True, StepState.OVERDUE)


def test_a_silent_saga_is_overdue_and_then_stuck() -> None:
    """What nobody speaks of any more is what operators must find."""
    script = Script().does("payment", "reservation")
    assert not standing(script, after=OVERDUE_AFTER - 1).overdue
    assert standing(script, after=OVERDUE_AFTER + 1).steps[2] is StepState.OVERDUE
    assert standing(script, after=STUCK_AFTER - 1).phase is Phase.MOVING
    found = standing(script, after=STUCK_AFTER + 1)
    assert (found.phase, found.baton) == (Phase.STUCK, "point")
    assert judge(folded(script.records), script.now + 31, stuck_after=30).phase is Phase.STUCK


def test_a_compensation_that_is_tried_for_ever_is_stuck_after_a_while() -> None:
    """It is never given up, so it never is silent: it would look alive for ever."""
    script = Script().does("payment").refuses("reservation", "price_mismatch")
    for attempt in range(1, 6):
        script.retries("payment", attempt=attempt, delay_ms=300_000, type_="reservation.failed")
        script.at += timedelta(seconds=290)
    found = standing(script)
    assert script.now - folded(script.records).times[3] > RETRIED_FOR  # type: ignore[operator]
    assert found.phase is Phase.STUCK
    assert "again and again" in found.why_stuck


def test_a_parked_baton_is_stuck_at_once() -> None:
    """Nobody will take it up by itself, so there is nothing to wait for."""
    script = Script().does("payment").tells("reservation", "payment.paid", Became.PARKED, reason="invalid_fields")
    found = standing(script)
    assert found.phase is Phase.STUCK
    assert "parked" in found.why_stuck
    assert found.steps[1] is StepState.PARKED
    script.does("reservation")
    assert standing(script).phase is Phase.MOVING


def test_a_parked_second_command_leaves_the_first_payment_alone() -> None:
    """The same id with other content is parked: that is no trouble of the saga that is under way."""
    script = Script().does("payment")
    script.tells(
        "payment", "payment.pay", Became.PARKED, reason="idempotency_conflict", said=("payment.rejected",)
    )
    assert standing(script).phase is Phase.MOVING
    script.does("reservation", "point", "queue", "notify").finishes()
    assert standing(script).phase is Phase.COMPLETED


def test_a_notice_that_is_parked_does_not_change_how_the_saga_ended() -> None:
    """The payment stands; that the user was not told is said beside it."""
    script = Script().does(*saga.SERVICES).tells("payment", "queue.expired", deed=Deed.DID)
    script.tells("notify", NOTICE, Became.PARKED, reason="channel_failed")
    found = standing(script)
    assert (found.phase, found.steps[-1]) == (Phase.COMPLETED, StepState.PARKED)


def test_an_abort_shows_who_did_it_and_how_it_ended() -> None:
    """An operator's act is no word of a service: it moves nothing by itself."""
    script = Script().does("payment").acts("abort", by="kim", why="the hall burned down")
    story = folded(script.records)
    assert story.act is not None
    assert (story.act.act, story.act.by) == ("abort", "kim")
    assert standing(script).baton == "reservation"
    script.tells("reservation", "payment.paid", deed=Deed.FAILED, reason="aborted", said=("reservation.failed",))
    script.hears("payment", "reservation", "aborted", undoes=True)
    found = standing(script)
    assert (found.phase, found.failed_at, found.reason) == (Phase.UNDONE, "reservation", "aborted")


def test_an_act_on_what_no_service_knows_makes_no_saga() -> None:
    """Somebody may abort, or replay, what is not there."""
    assert not folded(Script().acts("abort").records).exists


def test_commands_beside_the_saga_are_no_sagas() -> None:
    """A held seat is nothing that could be stuck, even under the id of a payment."""
    stories = Stories()
    script = Script().tells("reservation", "reservation.hold", deed=Deed.ANSWERED, said=("reservation.held",))
    for record in script.records:
        assert fold(stories, record) == []
    assert stories.sagas == {}


def test_two_replicas_that_did_the_same_message_tell_one_story() -> None:
    """One did it, the other found it done and said the answer again."""
    script = Script().does("payment", "reservation")
    script.tells("reservation", "payment.paid", deed=Deed.REPEATED, said=("reservation.confirmed",), replica="2")
    script.does("point")
    script.tells("point", "reservation.confirmed", deed=Deed.REPEATED, said=("point.deducted",), replica="2")
    script.does("queue", "notify").finishes()
    found = standing(script)
    assert (found.phase, found.holes) == (Phase.COMPLETED, ())


def test_a_command_sent_again_after_the_end_changes_nothing() -> None:
    """Asking for the outcome makes services repeat their failures; the saga did not fail twice."""
    script = refused("point", "no_wallet")
    before = standing(script)
    script.tells("payment", "payment.pay", deed=Deed.REPEATED, said=("payment.failed",), seconds=60)
    for other in ("reservation", "point", "queue", "notify"):
        script.tells(other, "payment.failed", deed=Deed.IGNORED, reason="no_wallet")
    after = standing(script)
    assert (after.phase, after.failed_at, after.took) == (before.phase, before.failed_at, before.took)


def _without(script: Script, service: str, type_: str | None = None) -> list[Record]:
    return [
        record
        for record in script.records
        if record.service != service or (type_ is not None and record.entries[0].type != type_)
    ]


def test_a_lost_word_is_concluded_from_the_next_step_and_named_as_a_hole() -> None:
    """Whoever was asked for step three was told that step two was done; but nobody told when."""
    script = Script().does("payment", "reservation", "point")
    story = folded(_without(script, "reservation"))
    found = judge(story, script.now)
    assert found.baton == "queue"
    assert states(found)["reservation"] == "done"
    assert found.holes == (
        "reservation: its own word is missing; that it did its part follows from what came after",
    )
    lost = judge(folded(_without(script, "point")), script.now)
    assert lost.baton == "point"
    assert lost.expected[0].since is not None


def test_when_the_word_before_is_lost_nobody_says_since_when() -> None:
    """A time that was not told is not made up."""
    script = Script().does("payment", "reservation").retries("point", attempt=1)
    found = judge(folded(_without(script, "reservation")), script.now)
    assert found.expected[0].service == "point"
    assert found.expected[0].since is None


def test_an_event_that_nobody_believed_proves_nothing() -> None:
    """What was parked may be forged: it does not make the service that it names have done its part."""
    script = Script().does("payment").tells("point", "reservation.confirmed", Became.PARKED, reason="not_ours")
    assert standing(script).baton == "reservation"


def test_an_answer_said_again_tells_how_a_service_stands() -> None:
    """Whoever begins to listen late hears repetitions only; they are words as good as the first."""
    script = Script().tells("payment", "payment.pay", deed=Deed.REPEATED, said=("payment.paid",))
    assert standing(script).baton == "reservation"
    over = Script().tells("payment", "payment.pay", deed=Deed.REPEATED, said=("payment.failed",))
    assert standing(over).backwards


def test_the_service_that_failed_it_gives_the_reason_alone() -> None:
    """Before anybody else has heard of it, and whatever the others say later."""
    script = Script().refuses("payment", "over_limit")
    assert (standing(script).phase, standing(script).reason) == (Phase.FAILED, "over_limit")
    script.tells("notify", "payment.failed", deed=Deed.CLOSED, reason="something_else", seconds=-60)
    assert standing(script).reason == "over_limit"


def test_two_ends_of_one_saga_are_a_contradiction() -> None:
    """One baton, one end: whatever tells of two is wrong, and a person must look."""
    two = Script().refuses("payment", "over_limit").refuses("reservation", "aborted")
    closed = Script().tells("payment", "point.failed", deed=Deed.CLOSED).refuses("point", "no_wallet")
    late = Script().does("payment", "reservation").refuses("reservation", "aborted")
    nowhere = Script().tells("payment", "point.failed", deed=Deed.CLOSED)
    for script in (two, closed, late, nowhere):
        found = standing(script)
        assert (found.phase, found.baton) == (Phase.STUCK, None)
        assert "contradicts itself" in found.why_stuck


def test_where_a_saga_failed_is_concluded_only_if_one_step_is_left() -> None:
    """The history is read with holes: what the table forces is said, what it leaves open is not guessed."""
    script = refused("point", "no_wallet")
    without_point = judge(folded(_without(script, "point")), script.now)
    assert (without_point.phase, without_point.failed_at) == (Phase.UNDONE, "point")
    assert without_point.reason == "no_wallet"
    assert "point: its own word is missing" in without_point.holes[-1]
    heard = Script().tells("notify", "payment.failed", deed=Deed.CLOSED)
    assert standing(heard).failed_at == "payment"
    unsure = heard.tells("notify", "point.failed", deed=Deed.IGNORED)
    vague = standing(unsure)
    assert (vague.phase, vague.failed_at) == (Phase.MOVING, None)
    assert vague.holes == ("the history does not tell where it failed",)
    assert StepState.UNKNOWN in vague.steps


def test_a_compensation_that_was_not_told_is_still_waited_for() -> None:
    """That somebody was asked to undo its part does not tell that it did."""
    script = refused("queue", "unknown_token")
    found = judge(folded(_without(script, "point")), script.now)
    assert found.phase is Phase.MOVING
    assert [it.says for it in found.expected] == [("point.restored",)]


def test_an_end_whose_time_was_lost_has_no_duration() -> None:
    """That it completed is certain, as payment said so again; how long it took is not."""
    script = Script().does("payment", "reservation", "point", "queue")
    script.tells("payment", "queue.expired", deed=Deed.REPEATED, said=("payment.completed",))
    found = standing(script)
    assert (found.phase, found.took) == (Phase.COMPLETED, None)


def test_a_failure_after_the_pivot_is_called_a_contradiction() -> None:
    """It cannot be; if the history tells it, somebody forged an event, and a person must look."""
    script = completed().tells("point", "queue.failed", deed=Deed.UNDID, reason="forged")
    found = standing(script)
    assert found.phase is Phase.STUCK
    assert "contradicts itself" in found.why_stuck


def test_clocks_that_differ_give_no_duration() -> None:
    """Two hosts, two clocks: an end before its own steps is no end that a duration could be taken from."""
    script = Script().does("payment", "reservation", "point", "queue", "notify")
    script.at -= timedelta(hours=1)
    found = standing(script.finishes())
    assert (found.phase, found.took) == (Phase.COMPLETED, None)


def test_hostile_ids_and_reasons_stay_outside() -> None:
    """An id that no saga can have makes no story, and what is no reason code is kept nowhere."""
    stories = Stories()
    script = Script("[red]\x1b[2J").does("payment")
    script.id = "x" * 65
    script.does("payment")
    script.id = ""
    script.tells("payment", "payment.pay", Became.PARKED, reason="not_json")
    script.id = "p-1"
    script.tells("payment", "payment.pay", Became.RETRY, reason="[bold]" * 1000, attempt=10**30, delay_ms=10**30)
    script.tells("payment", "no.such.type", deed="no such deed")
    script.tells("stranger", "payment.pay", deed=Deed.DID)
    for record in script.records:
        fold(stories, record)
    assert list(stories.sagas) == ["p-1"]
    assert stories.nameless == 1
    trouble = stories.sagas["p-1"].trouble
    assert trouble is not None
    assert (trouble.reason, trouble.attempt) == ("?", 1_000_000)


def test_a_million_sagas_fit_into_memory() -> None:
    """`saga list` over a week of history must not take the machine down: half a kilobyte a saga, all in all."""
    import tracemalloc  # noqa: PLC0415 - only here

    count = 500
    records = [record for number in range(count) for record in completed(f"payment-{number:012}").records]
    stories = Stories()
    tracemalloc.start()
    try:
        for record in records:
            fold(stories, record)
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(stories.sagas) == count
    assert used / count < 800  # without batches each time is an object of its own, so this is the worst case


_SCRIPTS = {
    "completed": completed(),
    "refused at once": refused("payment", "over_limit"),
    "refused in the middle": refused("point", "no_wallet"),
    "refused at the pivot": refused("queue", "unknown_token"),
    "retried": Script()
    .does("payment")
    .retries("reservation", attempt=1)
    .retries("reservation", attempt=2, delay_ms=9),
    "aborted": Script().does("payment").acts("look").acts("abort").refuses("reservation", "aborted"),
    "parked": Script().does("payment").tells("reservation", "payment.paid", Became.PARKED, reason="not_json"),
    "sent again": refused("point", "no_wallet").tells(
        "payment", "payment.pay", deed=Deed.REPEATED, said=("payment.failed",)
    ),
    "done twice": Script().does("payment", "payment", "reservation", "reservation"),
    "torn": completed().tells("point", "queue.failed", deed=Deed.UNDID, reason="forged"),
}


@settings(max_examples=25)
@pytest.mark.parametrize("name", _SCRIPTS)
@given(choice=st.data())
def test_any_order_of_the_records_tells_the_same_story(name: str, choice: st.DataObject) -> None:
    """Services do not wait for one another: the story depends on what was told, not on when it was read."""
    script = _SCRIPTS[name]
    lost = choice.draw(st.sets(st.sampled_from(range(len(script.records))), max_size=2))
    in_order = [record for index, record in enumerate(script.records) if index not in lost]
    twice = in_order * choice.draw(st.integers(1, 2))
    shuffled = choice.draw(st.permutations(twice))
    stories = [folded(records) for records in (in_order, shuffled) if records]
    assert stories[:1] == stories[1:]
    for story in stories[:1]:
        later = script.now + choice.draw(st.sampled_from([0, 20, 500]))
        assert judge(story, later) == judge(stories[1], later)
    timelines = [Timeline("p-1"), Timeline("p-1")]
    for timeline, records in zip(timelines, (shuffled, in_order), strict=True):
        for record in records:
            timeline.add(record)
    assert list(timelines[0]) == list(timelines[1])


@pytest.mark.parametrize("name", _SCRIPTS)
def test_told_backwards_it_is_the_same_story(name: str) -> None:
    """The order that differs most, without luck."""
    script = _SCRIPTS[name]
    assert folded(script.records[::-1]) == folded(script.records)


_ENTRIES = st.builds(
    Entry,
    saga=st.just("p-1"),
    type=st.sampled_from([*saga.vocabulary(), NOTICE, "unknown.type"]),
    became=st.sampled_from(list(Became)),
    deed=st.sampled_from(["", *Deed]),
    reason=st.sampled_from(["", "no_wallet", "[red]"]),
    attempt=st.integers(-1, 9),
    delay_ms=st.integers(-1, 10**6),
    said=st.lists(st.tuples(st.sampled_from(saga.vocabulary()), st.just("")), max_size=2),
)
_RECORDS = st.builds(
    Record,
    service=st.sampled_from([*saga.SERVICES, "operator", "stranger"]),
    replica=st.just("1"),
    at=st.datetimes().map(lambda at: at.replace(tzinfo=BEGAN.tzinfo)),
    took_ms=st.floats(0, 10**6),
    entries=st.lists(_ENTRIES, max_size=3),
)


@settings(max_examples=50)
@given(records=st.lists(_RECORDS, max_size=12), chance=st.randoms(use_true_random=False))
def test_whatever_is_told_a_conclusion_is_drawn_and_it_is_always_the_same(
    records: list[Record], chance: random.Random
) -> None:
    """The history may be forged or torn: that is no reason to fall over, nor to depend on the order."""
    one, other = Stories(), Stories()
    for record in records:
        fold(one, record)
    for record in chance.sample(records, len(records)):
        fold(other, record)
    assert one.sagas == other.sagas
    for story in one.sagas.values():
        found = judge(story, BEGAN.timestamp())
        assert found.phase.ended or found.phase is Phase.STUCK or found.expected
        assert len(found.steps) == len(saga.SAGA)


@pytest.mark.parametrize("order", [1, -1])
def test_a_command_that_nobody_could_read_is_gone_once_it_is_thrown_away(order: int) -> None:
    """It began nothing; else the list of what is stuck would keep it for a week."""
    script = Script("p-7").tells("payment", "payment.pay", Became.PARKED, reason="invalid_fields")
    assert folded(script.records, "p-7").exists
    script.acts("discard")
    assert not folded(script.records[::order], "p-7").exists
    again = Script("p-7", script.at).tells("payment", "payment.pay", Became.PARKED, reason="invalid_fields")
    assert folded([*script.records, *again.records], "p-7").exists, "it came again"


def test_what_is_thrown_away_of_a_saga_that_moved_is_still_a_story() -> None:
    """Only what never began is nothing."""
    script = Script().does("payment").tells("reservation", "payment.paid", Became.PARKED, reason="protocol_broken")
    assert folded(script.acts("discard").records).exists
