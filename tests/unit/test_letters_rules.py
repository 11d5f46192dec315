"""Which dead and parked letters may be replayed or discarded, held against the table of the barrier itself."""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime, timedelta

import pytest

from common import saga
from common.barrier import TABLE, Action, State
from common.barrier import Kind as Asked
from common.messages import TYPES
from ops.letters import rules
from ops.letters.letter import Kind, Letter, Properties, Role, read, role_of
from ops.letters.rules import Prospect, Verdict
from ops.letters.standing import ANSWERED, UNKNOWN, Standing
from tests.support.bodies import failure, forward, soon, valid

NOW = datetime.now(UTC)
STATES: list[State | None] = [None, *State]


def letter(service: str, type_: str, body: object | None = None, *, reason: str = "dead_letter_failed") -> Letter:
    """A parked letter of a service."""
    told = valid(type_) if body is None else body
    content = told if isinstance(told, bytes) else json.dumps(told).encode()
    written = {"x-type": type_, "x-reason": reason, "x-detail": "", "x-attempt": 4}
    return read(Kind.PARKED, service, content, Properties(message_id="m-1", user=service), written)


def standing(
    state: State | str | None = None,
    *,
    is_other: bool = False,
    past_pivot: bool = False,
    completed: bool = False,
) -> Standing:
    """What the databases say of it."""
    return Standing("databases", str(state or ""), is_other, past_pivot, completed)


def replay(it: Letter, known: Standing, now: datetime = NOW) -> Prospect:
    """What would come of a replay."""
    return rules.replay(it, known, now=now)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("step", saga.SAGA, ids=lambda step: step.service)
def test_a_forward_letter_goes_back_only_where_the_service_would_do_its_part(
    step: saga.Step, state: State | None
) -> None:
    """Anything else would be a repetition; and what it would do must never be thrown away."""
    it = letter(step.service, step.on)
    does = TABLE[state, Asked.FORWARD] is Action.DO
    assert replay(it, standing(state)).verdict is (Verdict.YES if does else Verdict.SETTLED)
    assert rules.discard(it, standing(state)).verdict is (Verdict.NEVER if does else Verdict.YES)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("service", [service for service in saga.SERVICES if service != saga.PIVOT.service])
def test_a_failure_goes_back_only_where_the_service_would_undo_or_close(service: str, state: State | None) -> None:
    """A compensation that is thrown away is never done; one that is done is only noise."""
    it = letter(service, "queue.failed")
    action = TABLE[state, Asked.FAILURE]
    does = action in {Action.UNDO, Action.CLOSE}
    otherwise = Verdict.NEVER if action is Action.BREAK else Verdict.SETTLED
    assert replay(it, standing(state)).verdict is (Verdict.YES if does else otherwise)
    assert rules.discard(it, standing(state)).verdict is (Verdict.NEVER if does else Verdict.YES)


@pytest.mark.parametrize("service", saga.SERVICES)
def test_a_failure_after_the_pivot_never_goes_back(service: str) -> None:
    """Reservation and point would undo their part of a completed payment, and no force may bring that about."""
    it = letter(service, "queue.failed", reason="protocol_broken")
    known = standing("done", past_pivot=True)
    assert replay(it, known).verdict is Verdict.NEVER
    assert not replay(it, known).allows(force=True)
    assert rules.discard(it, known).verdict is Verdict.YES


def test_the_pivots_own_row_says_that_it_is_past() -> None:
    """Where only the queue service's row is known, that is enough."""
    it = letter("queue", "point.failed", failure(service="point"))
    assert replay(it, standing("done")).verdict is Verdict.NEVER
    assert rules.discard(it, standing("done")).verdict is Verdict.YES
    assert rules.discard(it, standing()).verdict is Verdict.NEVER


def test_the_pivots_event_completes_a_payment_once() -> None:
    """Payment waits for it while it is provisional, and only then."""
    it = letter(saga.FIRST.service, saga.PIVOT.emits)
    assert it.role is Role.COMPLETION
    assert replay(it, standing("done", past_pivot=True)).verdict is Verdict.YES
    assert rules.discard(it, standing("done", past_pivot=True)).verdict is Verdict.NEVER
    completed = standing("done", past_pivot=True, completed=True)
    assert replay(it, completed).verdict is Verdict.SETTLED
    assert rules.discard(it, completed).verdict is Verdict.YES
    for state in ("", "undone", "failed", "closed"):
        assert replay(it, standing(state)).verdict is Verdict.NEVER, state
    assert rules.discard(it, standing()).verdict is Verdict.NEVER


@pytest.mark.parametrize("step", saga.SAGA[:-1], ids=lambda step: step.service)
def test_what_a_completed_saga_has_forgotten_is_settled(step: saga.Step) -> None:
    """Its rows go one day, and its payment stays: a letter of it must not look like work to be done."""
    it = letter(step.service, step.on)
    forgotten = standing(past_pivot=True, completed=True)
    assert replay(it, forgotten).verdict is Verdict.SETTLED
    assert rules.discard(it, forgotten).verdict is Verdict.YES
    notice = letter(saga.SAGA[-1].service, saga.SAGA[-1].on)
    assert replay(notice, forgotten).verdict is Verdict.YES, "a notice comes after the completion"
    assert rules.discard(notice, forgotten).verdict is Verdict.NEVER


@pytest.mark.parametrize("type_", ["payment.paid", "queue.failed", "payment.settled"])
def test_what_was_said_by_somebody_who_may_not_goes_away_and_never_back(type_: str) -> None:
    """A forged message must not lie there for ever because the saga that it names, if there is one, is open."""
    it = letter("reservation", type_, reason="not_its_owner")
    for known in (standing(), standing("done"), UNKNOWN):
        assert replay(it, known).verdict is Verdict.NEVER
        assert rules.discard(it, known).verdict is Verdict.YES


def test_what_is_older_than_its_service_remembers_never_goes_back() -> None:
    """It would be parked again, for the same reason."""
    it = letter("reservation", "payment.paid", reason="too_old")
    assert replay(it, standing()).verdict is Verdict.NEVER
    assert rules.discard(it, standing(completed=True, past_pivot=True)).verdict is Verdict.YES


def test_a_settlement_may_go_back_and_may_go_away() -> None:
    """It tells of many sagas, which are all complete: nothing is undone by it, and it is said again."""
    it = letter("point", saga.SETTLED, json.dumps({"payment_ids": ["p-1", "p-2"]}).encode())
    assert it.role is Role.SETTLEMENT
    assert replay(it, UNKNOWN).verdict is Verdict.YES
    assert rules.discard(it, UNKNOWN).verdict is Verdict.YES


@pytest.mark.parametrize("command", saga.COMMANDS, ids=lambda command: command.on)
def test_a_command_beside_the_saga_is_done_once_and_may_always_go(command: saga.Command) -> None:
    """No saga waits for it; the one who sent it just gets no answer."""
    it = letter(command.service, command.on)
    assert replay(it, standing()).verdict is Verdict.YES
    assert replay(it, standing(ANSWERED)).verdict is Verdict.SETTLED
    for known in (standing(), standing(ANSWERED), UNKNOWN):
        assert rules.discard(it, known).verdict is Verdict.YES


@pytest.mark.parametrize("state", [state for state in STATES if state])
def test_a_conflict_never_goes_back_and_may_go(state: State) -> None:
    """It is refused for ever, whatever became of the first payment, and no saga hangs on it."""
    it = letter("payment", "payment.pay", reason="idempotency_conflict")
    for known in (standing(state), standing(state, is_other=True)):
        assert replay(it, known).verdict is Verdict.NEVER
        assert rules.discard(it, known).verdict is Verdict.YES


def test_other_content_is_a_conflict_whatever_the_letter_says() -> None:
    """The content decides, not a header."""
    assert replay(letter("payment", "payment.pay"), standing("done", is_other=True)).verdict is Verdict.NEVER
    hold = letter("reservation", "reservation.hold")
    assert replay(hold, standing(ANSWERED, is_other=True)).verdict is Verdict.NEVER


def test_a_conflict_whose_first_payment_is_gone_is_a_payment() -> None:
    """A database that was set back has forgotten the first one; the second may be the only one left."""
    it = letter("payment", "payment.pay", reason="idempotency_conflict")
    assert replay(it, standing()).verdict is Verdict.YES
    assert rules.discard(it, standing()).verdict is Verdict.NEVER


@pytest.mark.parametrize("type_", ["payment.paid", "queue.failed", "reservation.hold"])
def test_what_nobody_knows_needs_force_to_go_back(type_: str) -> None:
    """The service's barrier absorbs a replay too many, so an operator may insist."""
    refused = replay(letter("reservation", type_), UNKNOWN)
    assert refused.verdict is Verdict.UNKNOWN
    assert not refused.allows()
    assert refused.allows(force=True)


@pytest.mark.parametrize(("service", "type_"), [("reservation", "payment.paid"), ("point", "queue.failed")])
def test_what_nobody_knows_is_not_discarded(service: str, type_: str) -> None:
    """It may be the only message that carries its saga on, or undoes it."""
    assert not rules.discard(letter(service, type_), UNKNOWN).allows()


def test_what_cannot_be_read_never_goes_back() -> None:
    """It would only be parked again, and no force teaches the service to read it."""
    for body in (b"pay please", b"\xff", b"[1]", b'{"payment_id": "p-1"}'):
        it = letter("payment", "payment.pay", body)
        refused = replay(it, standing())
        assert refused.verdict is Verdict.NEVER
        assert not refused.allows(force=True)
        assert "cannot read it" in refused.says


@pytest.mark.parametrize("reason", ["bad_headers", "unknown_origin"])
def test_what_was_wrong_beside_the_body_is_not_smuggled_in(reason: str) -> None:
    """The copy has lost the headers that were wrong, so a replay of it would be believed."""
    assert replay(letter("payment", "payment.pay", reason=reason), standing()).verdict is Verdict.NEVER


def test_an_unreadable_command_may_go_and_an_unreadable_baton_may_not() -> None:
    """Nothing has begun by the first; a saga waits for the second, whoever spoilt it."""
    command = letter("payment", "payment.pay", b'{"payment_id": "p-1"}')
    assert rules.discard(command, standing()).verdict is Verdict.YES
    assert rules.discard(command, UNKNOWN).verdict is Verdict.YES
    baton = letter("reservation", "payment.paid", b'{"payment_id": "p-1"}')
    assert baton.key == "p-1"
    refused = rules.discard(baton, standing())
    assert refused.verdict is Verdict.NEVER
    assert "command again" in refused.instead
    assert rules.discard(baton, standing("done")).verdict is Verdict.YES
    assert not rules.discard(baton, UNKNOWN).allows()


def test_nonsense_that_names_no_saga_may_go() -> None:
    """Else a stranger could fill a queue with what nobody may take away."""
    it = letter("reservation", "payment.paid", b"poison")
    assert it.key == ""
    assert rules.discard(it, UNKNOWN).verdict is Verdict.YES


def test_an_unknown_type_goes_back_to_the_same_service_whoever_can_be_asked() -> None:
    """Only the service knows whether its version has learnt it."""
    it = letter("point", "point.refund", {"payment_id": "p-1"}, reason="unknown_type")
    assert it.role is Role.UNKNOWN
    for known in (UNKNOWN, standing(), standing("done")):
        assert replay(it, known).verdict is Verdict.YES
    assert replay(it, standing("undone")).verdict is Verdict.SETTLED
    assert replay(it, standing("done", past_pivot=True, completed=True)).verdict is Verdict.SETTLED


def test_an_unknown_type_of_an_open_saga_is_kept() -> None:
    """It may be a step, or a compensation, of the next version."""
    it = letter("point", "point.refund", {"payment_id": "p-1"}, reason="unknown_type")
    assert not rules.discard(it, UNKNOWN).allows()
    assert rules.discard(it, standing()).verdict is Verdict.NEVER
    assert rules.discard(it, standing("done")).verdict is Verdict.NEVER
    assert rules.discard(it, standing("undone")).verdict is Verdict.YES
    assert rules.discard(letter("point", "point.refund", {"a": 1}), UNKNOWN).verdict is Verdict.YES


def test_a_notice_that_no_channel_took_is_not_told_as_sent() -> None:
    """Its body says `notification.sent`, which is just what did not happen."""
    it = letter("notify", "notification.sent", reason="channel_failed")
    assert it.role is Role.OWN
    refused = replay(it, standing("done"))
    assert refused.verdict is Verdict.NEVER
    assert "tell the user" in refused.instead
    assert rules.discard(it, UNKNOWN).verdict is Verdict.YES


def test_what_the_service_does_not_take_is_neither_its_work_nor_its_loss() -> None:
    """A wrong binding brought it, and a failure that the table rules out nobody undoes."""
    for it in (letter("payment", "point.deducted"), letter("point", "notify.failed")):
        assert replay(it, standing()).verdict is Verdict.NEVER
        assert rules.discard(it, standing()).verdict is Verdict.YES


def test_a_deadline_that_has_passed_is_told_before_the_replay() -> None:
    """Who replays it should know that the service will refuse, and the saga be undone."""
    it = letter("point", "reservation.confirmed", forward("reservation.confirmed", expires_at=soon(1)))
    assert "goes on" in replay(it, standing()).says
    late = replay(it, standing(), now=NOW + timedelta(hours=1))
    assert late.verdict is Verdict.YES
    assert "deadline passed" in late.says
    assert "undone" in late.says


def test_after_the_pivot_no_deadline_counts() -> None:
    """Notify tells the user, however late."""
    it = letter("notify", "queue.expired", forward("queue.expired", expires_at=soon(-60)))
    assert "goes on" in replay(it, standing()).says


def test_force_never_does_what_does_harm() -> None:
    """It is for what is pointless or unknown only."""
    allowed = {verdict for verdict in Verdict if Prospect(verdict, "").allows(force=True)}
    assert allowed == {Verdict.YES, Verdict.SETTLED, Verdict.UNKNOWN}
    assert [verdict for verdict in Verdict if Prospect(verdict, "").allows()] == [Verdict.YES]


@pytest.mark.parametrize("service", saga.SERVICES)
def test_there_is_an_answer_for_whatever_may_lie_there(service: str) -> None:
    """Every type in every queue in every state: no letter stumbles, and whoever is refused is told what to do."""
    for type_, state in itertools.product([*TYPES, "point.refund", ""], ["", *State, ANSWERED]):
        bodies: list[object] = [None if type_ in TYPES else {}, b"", b"{}"]
        known = [UNKNOWN, standing(state), standing(state, past_pivot=True, completed=True)]
        for it, stands in itertools.product([letter(service, type_, body) for body in bodies], known):
            for prospect in (replay(it, stands), rules.discard(it, stands)):
                assert prospect.says
                assert prospect.instead or prospect.verdict is Verdict.YES


@pytest.mark.parametrize("service", saga.SERVICES)
def test_no_letter_is_a_trap(service: str) -> None:
    """What may neither go back nor be taken away is what the saga's command, sent again, makes superfluous."""
    for type_, state in itertools.product(TYPES, ["", *State]):
        for it in (letter(service, type_), letter(service, type_, b'{"payment_id": "p-1"}')):
            known = standing(state)
            if not replay(it, known).allows(force=True) and not rules.discard(it, known).allows():
                assert "command again" in rules.discard(it, known).instead, (it.role, state)


def test_roles_are_those_of_the_saga_table() -> None:
    """A step or command that is added to the table must be told apart here, too."""
    roles = {(service, type_): role_of(service, type_) for service in saga.SERVICES for type_ in TYPES}
    assert [key for key, role in roles.items() if role is Role.FORWARD] == [
        (step.service, step.on) for step in saga.SAGA
    ]
    assert {key for key, role in roles.items() if role is Role.COMMAND} == {
        (command.service, command.on) for command in saga.COMMANDS
    }
    assert [key for key, role in roles.items() if role is Role.COMPLETION] == [("payment", "queue.expired")]
    assert role_of("point", "point.refund") is Role.UNKNOWN
