"""What the doctor concludes: neither too little nor too much, and how it tells people and programs."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from common import rights
from common.rights import Role, User
from common.topology import EVENTS, RECOVERY, Binding
from ops.doctor.checks import examine
from ops.doctor.facts import Permission, TopicPermission
from ops.doctor.finding import Bad
from ops.doctor.report import exit_code
from ops.output import Exit
from tests.support.doctor import (
    BROKER,
    HEALTHY,
    NOW,
    TOPOLOGY,
    with_broker,
    with_database,
    with_queue,
    without_queue,
)


def test_a_healthy_system_is_well() -> None:
    """A doctor who finds something in everybody is not listened to."""
    findings = examine(HEALTHY)
    assert [finding for finding in findings if finding.bad is not Bad.OK] == []
    assert len(findings) > 15
    assert exit_code(findings) is Exit.OK


def test_a_queue_that_is_missing_is_not_missed_a_second_time_by_its_bindings() -> None:
    """Its bindings went with it: who reads twelve lines for one cause mends the wrong one first."""
    facts = with_broker(
        queues={name: queue for name, queue in BROKER.queues.items() if name != "point.events"},
        bindings=frozenset(it for it in BROKER.bindings if it.queue != "point.events"),
    )
    wrong = [finding.what for finding in examine(facts) if finding.bad is Bad.WRONG]
    assert wrong == ["point.events is missing"]


def test_why_a_service_is_away_is_looked_for_in_the_rights_of_the_user_of_its_name() -> None:
    """A service that may not read its queue never stays connected, so its connections tell nothing."""
    everything = Permission(".*", ".*", ".*")
    facts = with_broker(
        connections=tuple(it for it in BROKER.connections or () if not it.name.startswith("point ")),
        permissions={"saga": everything, "point": Permission("", "^saga", "^payment")},
        topic_permissions=tuple(
            TopicPermission("point", topic.exchange, topic.write, topic.read)
            for topic in rights.grant(User("point", Role.SERVICE), TOPOLOGY).topics
        ),
    )
    wrong = [finding.what for finding in examine(facts) if finding.bad is Bad.WRONG]
    assert wrong[1:] == [
        "point may not do what point must: read point.events, point.commands, point.dead",
    ]


def test_a_backlog_that_came_just_now_is_no_waiting() -> None:
    """A burst is what queues are for."""
    facts = with_queue("point.events", messages=5000, least=0)
    assert exit_code(examine(facts)) is Exit.OK


def test_without_figures_of_the_last_minute_nothing_is_guessed_of_waiting() -> None:
    """A broker may keep no figures; that is no illness."""
    facts = with_queue("point.events", messages=5000, least=None, acks=None)
    assert exit_code(examine(facts)) is Exit.OK


def test_a_command_typed_for_a_new_broker_and_another_virtual_host_is_one_that_works_there() -> None:
    """The tool was written anew for 4.x and takes other words."""
    stale = Binding(EVENTS, "payment.paid", "point.events")
    facts = with_broker(version="4.0.5", vhost="my shop", bindings=BROKER.bindings | {stale})
    mends = [finding.mend for finding in examine(facts) if finding.subject == "bindings"]
    assert mends[0].startswith(
        "`rabbitmqadmin --vhost 'my shop' delete binding --source saga.events --destination-type queue "
        "--destination point.events --routing-key payment.paid`"
    )


def test_an_outbox_is_old_by_the_clock_of_its_database() -> None:
    """Our own clock may be wrong: it is told as such, and blames no outbox."""
    facts = with_database(unpublished=1, oldest=NOW + timedelta(minutes=59), ahead=timedelta(hours=1))
    subjects = {finding.subject for finding in examine(facts) if finding.bad is Bad.WRONG}
    assert subjects == {"clocks"}


def test_the_limit_of_clocks_is_what_the_caller_says() -> None:
    """Where machines are known to drift, seconds are no news."""
    facts = replace(with_database(ahead=timedelta(seconds=7)), clock_limit=timedelta(seconds=8))
    assert exit_code(examine(facts)) is Exit.OK


def test_what_nobody_asked_for_is_not_told() -> None:
    """With `--only databases` the broker is neither well nor ill."""
    facts = replace(HEALTHY, asked_broker=False, broker=None, told=())
    assert {finding.subject for finding in examine(facts)} == {
        "databases",
        "migrations",
        "servers",
        "outboxes",
        "clocks",
    }
    facts = replace(HEALTHY, databases=None)
    assert "databases" not in {finding.subject for finding in examine(facts)}


def test_the_exit_code_tells_a_program_how_bad_it_is() -> None:
    """A note wakes nobody up; what could not be looked at must not pass for well."""
    parked = with_queue("point.parked", messages=3)
    unseen = replace(HEALTHY, broker=None, management_refusal="none")
    missing = without_queue("point.parked")
    codes = [exit_code(examine(facts)) for facts in (parked, unseen, missing)]
    assert codes == [Exit.OK, Exit.COULD_NOT_LOOK, Exit.NEGATIVE]


def test_what_is_wrong_outweighs_what_could_not_be_seen() -> None:
    """The database that is down is news, also while the management API is."""
    facts = replace(with_database(refusal="down"), broker=None, management_refusal="none")
    assert exit_code(examine(facts)) is Exit.NEGATIVE


def test_a_look_at_nothing_is_no_good_news() -> None:
    """Nothing found because nothing was looked at."""
    assert exit_code([]) is Exit.COULD_NOT_LOOK


def test_what_is_not_there_is_not_praised() -> None:
    """A broker without queues has no queues without a leader, and that is no good news."""
    facts = replace(with_broker(queues={}, connections=(), consumers=(), nodes=()), databases={})
    praised = {finding.subject for finding in examine(facts) if finding.bad is Bad.OK}
    assert praised.isdisjoint(
        {"users", "permissions", "leaders", "services", "publishers", "migrations", "outboxes"}
    )


def test_a_user_whose_routing_keys_are_limited_to_those_of_its_service_is_well() -> None:
    """That is how it should be: each service may say its own words only."""
    facts = with_broker(
        connections=tuple(
            replace(it, user="point") if it.name.startswith("point ") else it for it in BROKER.connections or ()
        ),
        permissions={user: Permission(".*", ".*", ".*") for user in ("saga", "point")},
        topic_permissions=tuple(
            TopicPermission("point", exchange, r"^{username}\.", ".*") for exchange in (EVENTS, RECOVERY)
        ),
    )
    assert [finding for finding in examine(facts) if finding.bad is not Bad.OK] == []


def test_observers_with_queues_of_their_own_are_welcome() -> None:
    """The design says so: whoever wants to listen binds a queue, and nobody needs to know."""
    observer = Binding(EVENTS, "payment.completed", "shop.retry.9s")
    queue = replace(BROKER.queues["point.dead"], messages=5)
    facts = with_broker(bindings=BROKER.bindings | {observer}, queues={**BROKER.queues, "shop.retry.9s": queue})
    assert [finding for finding in examine(facts) if finding.bad is not Bad.OK] == []


def test_where_connections_may_not_be_seen_a_queue_that_nobody_reads_is_still_found() -> None:
    """Consumers are told by another list, and only whose they are is unknown."""
    facts = with_broker(
        connections=None, consumers=tuple(it for it in BROKER.consumers if it.queue != "point.dead")
    )
    told = [finding.what for finding in examine(facts) if finding.subject == "consumers"]
    assert told == ["nobody reads point.dead"]


def test_the_outbox_of_a_file_is_old_by_our_own_clock() -> None:
    """A file has no clock, and is on this machine."""
    told = {}
    for age in (timedelta(seconds=59), timedelta(minutes=90), timedelta(days=3)):
        facts = with_database(unpublished=1, oldest=NOW - age, ahead=None)
        told[age] = [finding.what for finding in examine(facts) if finding.bad is Bad.WRONG]
    texts = [found[0].rpartition(" for ")[2] if found else "" for found in told.values()]
    assert texts == ["", "90 min", "3 days"]


def test_what_holds_no_messages_is_simply_deleted() -> None:
    """And only if that is still so: the command itself looks again."""
    facts = with_queue("point.dead", arguments={"x-queue-type": "quorum"})
    (mend,) = [finding.mend for finding in examine(facts) if finding.subject == "queues"]
    assert mend.startswith("`rabbitmqctl delete_queue point.dead --if-empty`; then restart")


def test_metrics_that_nobody_sees_are_mentioned_where_the_plugins_are_told() -> None:
    """No illness: who wants the dashboards enables the plugin."""
    told = {finding.subject: finding.what for finding in examine(HEALTHY)}
    assert told["plugins"] == "rabbitmq_management; without rabbitmq_prometheus its metrics stay unseen"
    node = replace(BROKER.nodes[0], plugins=("rabbitmq_prometheus",))
    told = {finding.subject: finding.what for finding in examine(with_broker(nodes=(node,)))}
    assert told["plugins"] == "rabbitmq_prometheus"
