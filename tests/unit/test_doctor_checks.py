"""Each check of the doctor, on a system that is whole but for one thing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

import pytest

from common import topology
from common.topology import EVENTS, RECOVERY, Binding
from ops.doctor.checks import CHECKS, examine
from ops.doctor.facts import Consumer, Exchange, Facts, Permission, Queue, TopicPermission
from ops.doctor.finding import Bad
from tests.support.doctor import (
    BROKER,
    HEALTHY,
    NOW,
    bound,
    point_logged_in_as,
    read_by,
    told,
    unbound,
    with_broker,
    with_database,
    with_exchange,
    with_levels,
    with_new_queue,
    with_node,
    with_queue,
    without_queue,
)

ALL = Permission(".*", ".*", ".*")


def with_lane(lane: str, *, unread: str = "", lacks: str = "") -> Facts:
    """The system with a lane for a client; one of its queues may be read by nobody, or missing."""
    objects = topology.derive(HEALTHY.delays, (lane,))
    more = [queue for queue in objects.queues if queue.name not in BROKER.queues and queue.name != lacks]
    like = BROKER.queues["point.commands"]
    readers = [
        Consumer(queue.name, f"{queue.name.partition('.')[0]} consume", "saga")
        for queue in more
        if queue.name != unread
    ]
    return with_broker(
        exchanges={**BROKER.exchanges, topology.lane_exchange(lane): Exchange()},
        queues={**BROKER.queues, **{queue.name: replace(like, arguments=queue.arguments) for queue in more}},
        bindings=BROKER.bindings | set(objects.bindings),
        consumers=(*BROKER.consumers, *readers),
    )


def observed_by_one_that_refuses(key: str) -> Facts:
    """The system with an observer whose queue refuses what does not fit."""
    full = Queue(arguments={"x-max-length": 0, "x-overflow": "reject-publish"})
    return with_broker(
        queues={**BROKER.queues, "mine": full}, bindings=BROKER.bindings | {Binding(EVENTS, key, "mine")}
    )


@dataclass(frozen=True, slots=True)
class Case:
    """A broken system, and the finding: how bad, about what, part of its text and of its mend."""

    facts: Facts
    bad: Bad
    subject: str
    told: str
    mend: str


#: What is broken; what the doctor says, and how it is mended.
BROKEN: dict[str, Case] = {
    "the broker lets nobody in": Case(
        replace(HEALTHY, broker=None, broker_refusal="No broker answers at h:5672"),
        Bad.WRONG,
        "broker",
        "No broker answers at h:5672",
        "`make up`",
    ),
    "the management API does not answer": Case(
        replace(HEALTHY, broker=None, management_refusal="No management API"),
        Bad.UNSEEN,
        "management",
        "No management API",
        "rabbitmq-plugins enable rabbitmq_management",
    ),
    "the broker is too old": Case(with_broker(version="3.9.27"), Bad.WRONG, "version", "3.9.27", "3.10"),
    "the broker is too new": Case(with_broker(version="5.0.0"), Bad.NOTE, "version", "5.0.0 is not known", "4.x"),
    "the broker is another": Case(
        with_broker(product="LavinMQ", version="4.2.0"), Bad.NOTE, "version", "LavinMQ", "RabbitMQ"
    ),
    "the broker tells no version": Case(with_broker(version="?"), Bad.WRONG, "version", "?", "upgrade"),
    "memory is short": Case(
        with_node(memory_alarm=True), Bad.WRONG, "nodes", "memory alarm", "vm_memory_high_watermark"
    ),
    "the disk is full": Case(with_node(disk_alarm=True), Bad.WRONG, "nodes", "disk alarm", "free disk space"),
    "a node is away": Case(with_node(running=False), Bad.WRONG, "nodes", "rabbit@one does not run", "start it"),
    "the network is split": Case(
        with_node(partitions=("rabbit@two",)), Bad.WRONG, "nodes", "rabbit@two", "restart"
    ),
    "file descriptors run out": Case(with_node(files_used=950), Bad.NOTE, "nodes", "950 of 1000", "ulimit -n"),
    "streams are switched off": Case(
        with_broker(feature_flags={"quorum_queue": True, "stream_queue": False}),
        Bad.WRONG,
        "features",
        "stream_queue",
        "`rabbitmqctl enable_feature_flag stream_queue`",
    ),
    "an exchange is missing": Case(
        with_broker(exchanges={EVENTS: Exchange()}),
        Bad.WRONG,
        "exchanges",
        f"{RECOVERY} is missing",
        "restart any service",
    ),
    "an exchange is of another kind": Case(
        with_exchange(kind="fanout"), Bad.WRONG, "exchanges", "but fanout", "delete it"
    ),
    "an exchange does not last": Case(
        with_exchange(durable=False), Bad.WRONG, "exchanges", "a restart forgets", "delete it"
    ),
    "an alternate exchange takes what has no route": Case(
        with_exchange(policy={"alternate-exchange": "all"}),
        Bad.WRONG,
        "exchanges",
        "alternate exchange",
        "remove the policy",
    ),
    "an alternate exchange was declared": Case(
        with_exchange(arguments={"alternate-exchange": "all"}),
        Bad.WRONG,
        "exchanges",
        "alternate exchange",
        "take it away",
    ),
    "a queue is missing": Case(
        without_queue("point.parked"), Bad.WRONG, "queues", "point.parked is missing", "restart any service"
    ),
    "the history is missing": Case(
        without_queue(topology.HISTORY),
        Bad.WRONG,
        "queues",
        f"{topology.HISTORY} is missing",
        "restart any service",
    ),
    "a queue has other arguments": Case(
        with_queue(
            "point.dead",
            arguments={**BROKER.queues["point.dead"].arguments, "x-queue-type": "classic"},
            leader=None,
            members=(),
            online=(),
        ),
        Bad.WRONG,
        "queues",
        "x-queue-type is classic, not quorum",
        "`rabbitmqctl delete_queue point.dead --if-empty`",
    ),
    "a queue has more arguments than it should": Case(
        with_queue("point.dead", arguments={**BROKER.queues["point.dead"].arguments, "x-expires": 1000}),
        Bad.WRONG,
        "queues",
        "x-expires is 1000, not set",
        "delete_queue",
    ),
    "a queue with other arguments holds messages": Case(
        with_queue("point.dead", arguments={}, messages=7),
        Bad.WRONG,
        "queues",
        "other arguments",
        "it holds 7 messages",
    ),
    "a queue does not last": Case(
        with_queue("point.dead", durable=False), Bad.WRONG, "queues", "a restart forgets it", "delete"
    ),
    "a retry level is missing": Case(
        without_queue("point.retry.5m"), Bad.WRONG, "queues", "point.retry.5m is missing", "restart any service"
    ),
    "all services use other retry levels": Case(
        with_levels("200ms", "2s", "10s"),
        Bad.WRONG,
        "retry levels",
        "the services retry after 200ms, 2s, 10s, RETRY_DELAYS says 1s,5m",
        "RETRY_DELAYS=200ms,2s,10s",
    ),
    "a retry level is left over": Case(
        with_new_queue("point.retry.9s"), Bad.NOTE, "retry levels", "point.retry.9s", "--if-empty"
    ),
    "messages are in a retry level that nobody names": Case(
        with_new_queue("point.retry.9s", messages=2),
        Bad.WRONG,
        "retry levels",
        "point.retry.9s",
        "it holds 2 messages",
    ),
    "a binding is missing": Case(
        unbound(EVENTS, "payment.paid", "reservation.events"),
        Bad.WRONG,
        "bindings",
        "reservation.events does not get payment.paid",
        "restart any service",
    ),
    "a binding of recovery is missing": Case(
        unbound(RECOVERY, "point.return", "point.events"),
        Bad.WRONG,
        "bindings",
        "point.events does not get point.return",
        "restart any service",
    ),
    "a binding is stale": Case(
        bound(Binding(EVENTS, "payment.paid", "point.events")),
        Bad.WRONG,
        "bindings",
        "point.events still gets payment.paid",
        "`rabbitmqadmin delete binding source=saga.events destination_type=queue destination=point.events",
    ),
    "a queue of ours is bound to what no table lists": Case(
        bound(Binding("amq.topic", "#", "point.events")),
        Bad.WRONG,
        "bindings",
        "point.events is bound to amq.topic with '#'",
        "delete binding source=amq.topic",
    ),
    "a stranger listens to recovery": Case(
        bound(Binding(RECOVERY, "point.parked", "mine")),
        Bad.WRONG,
        "strangers",
        "the queue mine listens to 'point.parked'",
        "delete binding source=saga.recovery",
    ),
    "an exchange of a stranger listens to recovery": Case(
        with_broker(elsewhere=frozenset({Binding(RECOVERY, "#", "copy")})),
        Bad.WRONG,
        "strangers",
        "the exchange copy listens to '#'",
        "destination_type=exchange",
    ),
    "an observer hears everything": Case(
        bound(Binding(EVENTS, "#", "mine")),
        Bad.NOTE,
        "strangers",
        "mine hears everything",
        "bind only what it needs",
    ),
    "a policy bounds a queue": Case(
        with_queue("point.events", policy={"max-length": 10}, policy_name="short"),
        Bad.WRONG,
        "policies",
        "the policy short gives point.events max-length",
        "rabbitmqctl list_policies",
    ),
    "a queue has no leader": Case(
        with_queue("point.events", leader=None, online=()),
        Bad.WRONG,
        "leaders",
        "point.events has no leader",
        "start rabbit@one",
    ),
    "a queue is in a minority": Case(
        with_queue("point.events", state="minority", members=("rabbit@one", "rabbit@two", "rabbit@three")),
        Bad.WRONG,
        "leaders",
        "(minority)",
        "start rabbit@three, rabbit@two",
    ),
    "a member of a queue is away": Case(
        with_queue("point.events", members=("rabbit@one", "rabbit@two")),
        Bad.NOTE,
        "leaders",
        "rabbit@two",
        "start rabbit@two",
    ),
    "a service is away": Case(
        with_broker(
            connections=tuple(it for it in BROKER.connections or () if not it.name.startswith("point ")),
            consumers=tuple(it for it in BROKER.consumers if not it.queue.startswith("point.")),
        ),
        Bad.WRONG,
        "services",
        "point is not connected: nobody reads point.events, point.commands, point.dead",
        "`make up`",
    ),
    "a service has half of its connections": Case(
        with_broker(connections=tuple(it for it in BROKER.connections or () if it.name != "point publish")),
        Bad.NOTE,
        "services",
        "point has 1 connections to consume and 0 to publish",
        "look again",
    ),
    "the connections may not be seen": Case(
        with_broker(connections=None), Bad.UNSEEN, "services", "may not be seen", "monitoring"
    ),
    "a publisher is blocked": Case(
        with_broker(
            connections=tuple(
                replace(it, state="blocked") if it.name == "payment publish" else it
                for it in BROKER.connections or ()
            )
        ),
        Bad.WRONG,
        "publishers",
        "blocks payment publish from 10.0.0.1",
        "alarm",
    ),
    "a queue of work is read by nobody": Case(
        with_broker(consumers=tuple(it for it in BROKER.consumers if it.queue != "point.dead")),
        Bad.WRONG,
        "consumers",
        "nobody reads point.dead",
        "`make up`",
    ),
    "a stranger reads a queue of work": Case(
        read_by(Consumer("point.events", "laptop", "ann")),
        Bad.WRONG,
        "consumers",
        "laptop reads point.events, which is point's",
        "close its connection",
    ),
    "somebody reads what is parked": Case(
        read_by(Consumer("point.parked", "", "ann")),
        Bad.WRONG,
        "consumers",
        "a connection without a name reads point.parked, which nobody should",
        "end that program",
    ),
    "somebody reads what waits for a retry": Case(
        read_by(Consumer("point.retry.5m", "laptop", "ann")),
        Bad.WRONG,
        "consumers",
        "point.retry.5m",
        "end that program",
    ),
    "a consumer's node does not answer": Case(
        with_broker(consumers=tuple(replace(it, answering=it.queue != "point.events") for it in BROKER.consumers)),
        Bad.NOTE,
        "consumers",
        "a consumer of point.events",
        "reach one another",
    ),
    "a service is logged in as guest": Case(
        point_logged_in_as("guest", permissions={"guest": ALL, "saga": ALL}),
        Bad.NOTE,
        "users",
        "point: logged in as guest",
        "rabbitmqctl add_user",
    ),
    "the permissions may not be seen": Case(
        with_broker(permissions=None), Bad.NOTE, "permissions", "may not see", "administrator"
    ),
    "a user has no permissions": Case(
        point_logged_in_as("bob"),
        Bad.WRONG,
        "permissions",
        "bob, point's user, has no permissions",
        r"`rabbitmqctl set_permissions bob '' '^(saga\.events|saga\.recovery)$' '^(point\.events|point",
    ),
    "a user may not publish copies": Case(
        point_logged_in_as("bob", permissions={"saga": ALL, "bob": Permission("", r"^saga\.events$", "^point")}),
        Bad.WRONG,
        "permissions",
        "bob may not do what point must: write saga.recovery",
        r"`rabbitmqctl set_permissions bob '' '^saga\.events$|^(saga\.recovery)$' '^point'`",
    ),
    "a pattern cannot be read": Case(
        point_logged_in_as("bob", permissions={"saga": ALL, "bob": Permission("", ".*", "(?<x>.*")}),
        Bad.NOTE,
        "permissions",
        "'(?<x>.*' cannot be read",
        "rabbitmqctl list_permissions",
    ),
    "a user may not publish its own failure": Case(
        point_logged_in_as(
            "bob",
            permissions={"saga": ALL, "bob": Permission("", ".*", ".*")},
            topic_permissions=(
                TopicPermission("bob", EVENTS, r"^point\.(deducted|restored|topped_up|rejected)$", ".*"),
            ),
        ),
        Bad.WRONG,
        "permissions",
        "bob may not publish point.failed to saga.events",
        r"bob saga.events '^point\.(deducted|restored|topped_up|rejected)$|^(point\.failed)$' '.*'`",
    ),
    "a service's own user may say what is another's": Case(
        point_logged_in_as(
            "point",
            permissions={"saga": ALL, "point": Permission("", f"^({EVENTS}|{RECOVERY})$", "^point")},
            topic_permissions=(
                TopicPermission(
                    "point",
                    EVENTS,
                    r"^point\.(deducted|failed|restored|topped_up|rejected)$|^queue\.failed$",
                    "^$",
                ),
                TopicPermission("point", RECOVERY, r"^point\.(dead|parked|history|retry\..*)$", "^$"),
            ),
        ),
        Bad.WRONG,
        "permissions",
        "point may publish queue.failed to saga.events, which it does not own",
        "tools.rights apply",
    ),
    "messages wait": Case(
        with_queue("point.events", messages=12, least=9),
        Bad.WRONG,
        "waiting",
        "12 messages have waited in point.events",
        "point's log",
    ),
    "more messages come than are done": Case(
        with_queue("point.events", messages=1200, least=900, acks=55.5),
        Bad.NOTE,
        "waiting",
        "55.5 a second",
        "replicas of point",
    ),
    "dead-lettering has come to a halt": Case(
        with_queue("point.retry.1s", messages=40, stranded=32),
        Bad.WRONG,
        "stranded",
        "32 messages cannot leave point.retry.1s",
        "go on by themselves",
    ),
    "a message cannot be dead-lettered": Case(
        with_queue("point.retry.1s", messages=1, stranded=1),
        Bad.NOTE,
        "stranded",
        "1 messages are on their way",
        "look again",
    ),
    "commands pile up": Case(
        with_queue("point.commands", messages=90_000), Bad.NOTE, "full", "90000 of at most 100000", "replicas"
    ),
    "commands are refused": Case(
        with_queue("point.commands", messages=100_000), Bad.WRONG, "full", "it refuses more", "publish fewer"
    ),
    "commands are refused by a policy": Case(
        with_queue("point.commands", messages=500, policy={"max-length": 500}, policy_name="small"),
        Bad.WRONG,
        "full",
        "point.commands holds 500 of at most 500",
        "publish fewer",
    ),
    "a policy drops commands": Case(
        with_queue("point.commands", policy={"max-length": 500, "overflow": "drop-head"}, policy_name="small"),
        Bad.WRONG,
        "policies",
        "the policy small gives point.commands overflow",
        "rabbitmqctl list_policies",
    ),
    "large commands pile up": Case(
        with_queue("point.commands", bytes_ready=260_000_000),
        Bad.NOTE,
        "full",
        "of at most 268435456 bytes",
        "LANES",
    ),
    "nobody reads a lane": Case(
        with_lane("shop", unread="point.commands.shop"),
        Bad.WRONG,
        "consumers",
        "nobody reads point.commands.shop",
        "LANES",
    ),
    "a lane lacks a queue": Case(
        with_lane("shop", lacks="point.commands.shop"),
        Bad.WRONG,
        "queues",
        "point.commands.shop is missing",
        "start",
    ),
    "an observer refuses events": Case(
        observed_by_one_that_refuses("payment.completed"),
        Bad.WRONG,
        "strangers",
        "mine hears 'payment.completed' on saga.events and refuses",
        "delete binding source=saga.events",
    ),
    "a compensation keeps failing": Case(
        with_queue("point.retry.5m", messages=1),
        Bad.NOTE,
        "retried",
        "point.retry.5m, the slowest level",
        "`saga list --stuck`",
    ),
    "a message is parked": Case(
        with_queue("point.parked", messages=3),
        Bad.NOTE,
        "parked",
        "3 messages are parked by point",
        "`saga parked list`",
    ),
    "a database does not answer": Case(
        with_database(refusal="connection refused"),
        Bad.WRONG,
        "databases",
        "connection refused",
        "DATABASE_URL_POINT",
    ),
    "a migration is missing": Case(
        with_database(applied=("0001_first",)),
        Bad.WRONG,
        "migrations",
        "point's database lacks 0002_more",
        "restart point",
    ),
    "a database is newer than we are": Case(
        with_database(applied=("0001_first", "0002_more", "0003_new")),
        Bad.NOTE,
        "migrations",
        "0003_new",
        "version",
    ),
    "a database is a standby": Case(with_database(read_only=True), Bad.WRONG, "servers", "standby", "primary"),
    "a database runs out of connections": Case(
        with_database(connections=190), Bad.NOTE, "servers", "190 of at most 200", "max_connections"
    ),
    "a database is old": Case(
        with_database(version="9.6.24"), Bad.NOTE, "servers", "9.6.24, older", "PostgreSQL 13"
    ),
    "events stay in the outbox": Case(
        with_database(unpublished=4, oldest=NOW - timedelta(hours=3)),
        Bad.WRONG,
        "outboxes",
        "4 events wait in point's outbox, the oldest for 3 hours",
        "point's log",
    ),
    "the broker's clock is late": Case(
        with_broker(ahead=timedelta(seconds=-9)), Bad.WRONG, "clocks", "9.0 s behind", "NTP"
    ),
    "a database's clock is early": Case(
        with_database(ahead=timedelta(seconds=7)), Bad.WRONG, "clocks", "point's database is 7.0 s ahead", "NTP"
    ),
    "a service's clock is early": Case(
        replace(HEALTHY, told=(told("point", 70, "reservation.confirmed"),)),
        Bad.WRONG,
        "clocks",
        "point (point-1) is 10.0 s ahead",
        "NTP",
    ),
    "a service acts before it was told to": Case(
        replace(
            HEALTHY,
            told=(told("payment", 20, "payment.pay", "payment.paid"), told("reservation", 1, "payment.paid")),
        ),
        Bad.WRONG,
        "clocks",
        "reservation (reservation-1) handled events 19.0 s before payment (payment-1) said them",
        "NTP",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_broken_is_found_and_its_mend_told(what: str) -> None:
    """One thing is broken, one thing is told: neither less nor anything that only follows from it."""
    case = BROKEN[what]
    findings = [finding for finding in examine(case.facts) if finding.bad is not Bad.OK]
    assert [(finding.bad, finding.subject) for finding in findings] == [(case.bad, case.subject)], findings
    assert case.told in findings[0].what
    assert case.mend in findings[0].mend


def test_every_check_has_something_that_it_finds() -> None:
    """A check that no snapshot here makes speak could be deleted unseen."""
    silent = [
        check
        for check in CHECKS
        if not any(finding.bad is not Bad.OK for case in BROKEN.values() for finding in check(case.facts))
    ]
    assert silent == []


def test_findings_are_whole_sentences_for_the_table() -> None:
    """A line break, or a mend that is missing, would spoil the columns or leave the reader alone."""
    findings = [finding for case in BROKEN.values() for finding in examine(case.facts)]
    assert all("\n" not in finding.what + finding.mend for finding in findings)
    assert all(bool(finding.mend) is (finding.bad is not Bad.OK) for finding in findings)
