"""The saga table and what is derived from it: complete, without contradictions, and nothing written twice."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import Path

import pytest

from common import saga, topology
from common.barrier import TABLE, Action, Kind, State, final_states
from common.messages import TYPES
from common.settings import Delay

ROOT = Path(__file__).parents[2]
DELAYS = tuple(Delay.parse(text) for text in ("1s", "5s", "30s", "5m"))
#: Decoded only to be parked: the table gives it no right to exist.
IMPOSSIBLE = "notify.failed"


def routed(objects: topology.Topology, exchange: str, key: str) -> set[str]:
    """The queues that a topic exchange puts a message in."""
    return {b.queue for b in objects.bindings if b.exchange == exchange and fnmatchcase(key, b.key)}


def test_every_routing_key_has_a_message_and_every_message_a_routing_key() -> None:
    """A key without a body could not be read, a body without a key never be sent."""
    assert set(TYPES) - {IMPOSSIBLE} == set(saga.vocabulary())
    assert len(saga.vocabulary()) == len(set(saga.vocabulary()))


def test_the_steps_follow_one_another() -> None:
    """Each step is done on what the one before it emits: the baton is never put down."""
    assert all(after.on == before.emits for before, after in pairwise(saga.SAGA))
    assert saga.SERVICES == ("payment", "reservation", "point", "queue", "notify")


def test_what_may_be_undone_lies_before_the_pivot_and_what_may_fail_not_after_it() -> None:
    """After the pivot the saga only goes forward, so nothing there may refuse."""
    pivot = saga.SAGA.index(saga.PIVOT)
    assert [step.pivot for step in saga.SAGA].count(True) == 1
    assert all(step.compensation for step in saga.SAGA[:pivot])
    assert not any(step.compensation for step in saga.SAGA[pivot:])
    assert all(step.refusals for step in saga.SAGA[: pivot + 1])
    assert not any(step.refusals for step in saga.SAGA[pivot + 1 :])


@pytest.mark.parametrize("step", saga.SAGA, ids=lambda step: step.service)
def test_every_service_learns_of_every_failure(step: saga.Step) -> None:
    """No chain can be cut in the middle when each one listens for itself."""
    assert saga.ANY_FAILED in saga.event_keys(step.service)
    assert saga.may_fail(saga.failed(step.service)) == bool(step.refusals)
    assert saga.is_awaited(saga.failed(step.service))


def test_what_a_service_waits_for_is_mandatory_and_what_observers_read_is_not() -> None:
    """A saga must not stop unseen, and must not stop either because nobody observes it."""
    awaited = {key for key in saga.vocabulary() if saga.is_awaited(key)}
    assert awaited == {
        *("payment.pay", "reservation.hold", "point.top_up", "queue.enter"),
        *("payment.paid", "reservation.confirmed", "point.deducted", "queue.expired"),
        *("payment.failed", "reservation.failed", "point.failed", "queue.failed"),
        "payment.settled",
    }


def test_a_service_that_takes_commands_can_reject_them() -> None:
    """A second command under a known id is answered, so the answer must be one of its keys."""
    for service in saga.SERVICES:
        rejects = saga.rejected(service) in saga.emitted_keys(service)
        assert rejects == bool(saga.command_keys(service))
    assert not saga.command_keys("notify")


def test_nobody_speaks_in_the_name_of_another() -> None:
    """A service's keys begin with its own name, by which its broker user is kept to them; notify's notices too."""
    for service in saga.SERVICES:
        prefix = "notification" if service == "notify" else service
        assert all(key.split(".")[0] == prefix for key in saga.emitted_keys(service))


def test_the_reason_codes_of_the_machinery_are_no_refusals() -> None:
    """Whoever reads a reason can tell a rule of the business from a fault."""
    refusals = {reason for part in (*saga.SAGA, *saga.COMMANDS) for reason in part.refusals}
    machinery = {saga.RETRIES_SPENT, saga.IDEMPOTENCY_CONFLICT, saga.DATA_ERROR}
    assert not refusals & machinery
    assert all(re.fullmatch(r"[a-z_]{1,64}", reason) for reason in refusals | machinery)


def test_a_name_that_is_not_in_the_table_is_no_service() -> None:
    """A typing error in a service's name must not pass for a service without duties."""
    with pytest.raises(KeyError):
        saga.step_of("refund")


def test_the_canvas_of_each_service_tells_what_the_table_says() -> None:
    """The first thing a reader of a service sees must not be out of date."""
    for step in saga.SAGA:
        canvas = (ROOT / f"{step.service}_svc" / "__init__.py").read_text()
        commands = [command for command in saga.COMMANDS if command.service == step.service]
        told: Sequence[str | None] = [
            *(step.on, step.emits, step.compensation, *step.refusals),
            *(part for command in commands for part in (command.on, command.answer, *command.refusals)),
        ]
        assert not [name for name in told if name and name not in canvas], step.service


# --- the barrier


def test_the_barrier_has_an_answer_for_every_row_and_message() -> None:
    """A missing cell would be found by a customer."""
    assert set(TABLE) == {(state, kind) for state in (None, *State) for kind in Kind}


def test_only_done_is_ever_left() -> None:
    """An ending is an ending: whatever arrives then is answered or ignored, or breaks the protocol."""
    for (state, kind), action in TABLE.items():
        if state not in {None, State.DONE}:
            contradicts = (state is State.SETTLED) != (kind is Kind.SETTLEMENT)
            breaks = contradicts and kind in {Kind.FAILURE, Kind.SETTLEMENT}
            rest = Action.BREAK if breaks else Action.NOTHING
            assert action is (Action.ANSWER if kind is Kind.FORWARD else rest)


def test_a_service_forgets_only_what_nobody_waits_for() -> None:
    """A part that is done is open until its saga is settled; what comes after the pivot is final at once."""
    for service in saga.SERVICES:
        assert (State.DONE in final_states(service)) == (service == "notify")
        assert {State.SETTLED, State.FAILED, State.UNDONE, State.CLOSED} <= set(final_states(service))


# --- the topology


@pytest.mark.parametrize("service", saga.SERVICES)
def test_every_key_a_service_waits_for_reaches_one_of_its_queues(service: str) -> None:
    """Commands and events come apart, so that a flood of commands never holds up a saga."""
    objects = topology.derive(DELAYS)
    mine = {topology.commands_queue(service), topology.events_queue(service)}
    for key in saga.vocabulary():
        queues = routed(objects, topology.EVENTS, key) & mine
        expected = set()
        if key in saga.command_keys(service):
            expected = {topology.commands_queue(service)}
        elif any(fnmatchcase(key, wanted) for wanted in saga.event_keys(service)):
            expected = {topology.events_queue(service)}
        assert queues == expected, key


def test_whatever_is_published_mandatory_has_somewhere_to_go() -> None:
    """Otherwise the first saga would stop with an alarm."""
    objects = topology.derive(DELAYS)
    for key in saga.vocabulary():
        assert bool(routed(objects, topology.EVENTS, key)) == saga.is_awaited(key), key


def test_no_key_of_the_recovery_exchange_is_bound_twice() -> None:
    """A second target would hide that the first is missing, and every retry would come twice."""
    objects = topology.derive(DELAYS)
    keys = [binding.key for binding in objects.bindings if binding.exchange == topology.RECOVERY]
    assert len(keys) == len(set(keys))
    assert not [key for key in keys if "*" in key or "#" in key]
    for service in saga.SERVICES:
        for queue in (topology.dead_queue(service), topology.parked_queue(service)):
            assert routed(objects, topology.RECOVERY, queue) == {queue}
        for key in (topology.return_key(service), topology.replay_key(service)):
            assert routed(objects, topology.RECOVERY, key) == {topology.events_queue(service)}
        aborted = {topology.dead_queue(service)} if saga.step_of(service).refusals else set()
        assert routed(objects, topology.RECOVERY, topology.abort_key(service)) == aborted
        for delay in DELAYS:
            queue = topology.retry_queue(service, delay)
            assert queue == f"{service}.retry.{delay}"
            assert routed(objects, topology.RECOVERY, queue) == {queue}


def test_every_binding_leads_from_a_declared_exchange_to_a_declared_queue() -> None:
    """The broker refuses anything else, at the worst moment."""
    objects = topology.derive(DELAYS)
    names = [queue.name for queue in objects.queues]
    assert len(names) == len(set(names))
    for binding in (*objects.bindings, *objects.stale):
        assert binding.exchange in objects.exchanges
        assert binding.queue in names
        assert len(binding.key.encode()) <= 255


def test_stale_bindings_are_exactly_the_keys_that_the_table_does_not_list() -> None:
    """A step that is moved must not leave its queue listening, and no valid binding may be removed."""
    objects = topology.derive(DELAYS)
    valid = set(objects.bindings)
    assert not valid & set(objects.stale)
    for service in saga.SERVICES:
        queues = [topology.events_queue(service)]
        queues += [topology.commands_queue(service)] if saga.command_keys(service) else []
        for queue in queues:
            for key in saga.vocabulary():
                binding = topology.Binding(topology.EVENTS, key, queue)
                assert (binding in valid) != (binding in objects.stale)


def test_every_queue_is_a_quorum_queue_with_an_explicit_delivery_limit() -> None:
    """The default limit of RabbitMQ 4 would lose the message that a person has looked at 21 times."""
    for queue in topology.derive(DELAYS).queues:
        if queue.name == topology.HISTORY:
            continue
        assert queue.arguments["x-queue-type"] == "quorum"
        peeked = queue.name.endswith((".dead", ".parked")) or ".retry." in queue.name
        assert queue.arguments["x-delivery-limit"] == (10**9 if peeked else topology.DELIVERY_LIMIT)


def test_the_history_is_a_stream_that_forgets_by_age_and_size() -> None:
    """Nobody reads it empty, so without a limit it would fill the broker's disk, and stop the saga after all."""
    objects = topology.derive(DELAYS)
    (stream,) = [queue for queue in objects.queues if queue.name == topology.HISTORY]
    assert stream.arguments["x-queue-type"] == "stream"
    assert stream.arguments["x-max-age"] == "7D"
    assert stream.arguments["x-max-length-bytes"] == 2 * 1024**3
    bound = {binding for binding in objects.bindings if binding.queue == topology.HISTORY}
    assert bound == {
        topology.Binding(topology.RECOVERY, f"{teller}.history", topology.HISTORY)
        for teller in (*saga.SERVICES, "operator")
    }


def test_what_is_dead_lettered_is_dead_lettered_at_least_once_to_a_bound_key() -> None:
    """RabbitMQ silently falls back to at-most-once when one argument is missing."""
    objects = topology.derive(DELAYS)
    for queue in objects.queues:
        arguments = queue.arguments
        if queue.name == topology.HISTORY:
            continue
        service = queue.name.split(".")[0]
        assert arguments["x-dead-letter-strategy"] == "at-least-once"
        assert arguments["x-overflow"] == "reject-publish"
        assert arguments["x-dead-letter-exchange"] == topology.RECOVERY
        key = str(arguments["x-dead-letter-routing-key"])
        if queue.name.endswith((".dead", ".parked")):
            # Only what an operator rejects leaves the end of the road: nothing expires there.
            assert key == topology.replay_key(service)
            assert "x-message-ttl" not in arguments
            continue
        is_retry = ".retry." in queue.name
        assert key == (topology.return_key(service) if is_retry else topology.dead_queue(service))
        assert routed(objects, topology.RECOVERY, key)


def test_only_queues_of_commands_are_bounded() -> None:
    """A full queue of events would block the services in a ring; a full queue of commands tells its publisher."""
    for queue in topology.derive(DELAYS).queues:
        assert ("x-max-length" in queue.arguments) == queue.name.endswith(".commands")
        assert queue.arguments.get("x-overflow") in {"reject-publish", None}, "what is confirmed would be dropped"
        assert "x-expires" not in queue.arguments


def test_a_lane_leads_one_clients_commands_to_queues_of_its_own() -> None:
    """It is bounded like the others' queue, dead-letters like it, and nothing but its commands gets in."""
    objects, without = topology.derive(DELAYS, ("shop",)), topology.derive(DELAYS)
    assert all(queue in objects.queues for queue in without.queues)
    assert set(objects.exchanges) - set(without.exchanges) == {"saga.lane.shop"}
    arguments = {queue.name: queue.arguments for queue in objects.queues}
    for service in saga.SERVICES:
        lane = topology.lane_queue(service, "shop")
        assert topology.holds_commands(lane, service)
        keys = {binding.key for binding in objects.bindings if binding.queue == lane}
        assert keys == set(saga.command_keys(service))
        assert (lane in arguments) == bool(keys)
        if keys:
            assert arguments[lane] == arguments[topology.commands_queue(service)]
    assert {it.exchange for it in objects.bindings if it not in without.bindings} == {"saga.lane.shop"}
    assert not topology.holds_commands("payment.commands", "pay")
    assert not topology.holds_commands("payment.events", "payment")


def test_a_retry_queue_waits_as_long_as_its_name_says() -> None:
    """The name is the only place where a person sees the delay, and arguments can never be changed."""
    ttl = {queue.name: queue.arguments.get("x-message-ttl") for queue in topology.derive(DELAYS).queues}
    assert ttl["payment.retry.1s"] == 1_000
    assert ttl["notify.retry.5m"] == 300_000
    assert {name for name, value in ttl.items() if value is not None} == {
        f"{service}.retry.{delay}" for service in saga.SERVICES for delay in DELAYS
    }


def test_the_targets_of_dead_lettering_are_declared_first() -> None:
    """At-least-once keeps what has nowhere to go, and 32 such messages stall a queue."""
    objects = topology.derive(DELAYS)
    names = [queue.name for queue in objects.queues]
    for service in saga.SERVICES:
        work = [names.index(topology.events_queue(service))]
        assert names.index(topology.dead_queue(service)) < min(work)
        assert all(names.index(topology.retry_queue(service, delay)) > max(work) for delay in DELAYS)
