"""Gathers the facts: asks the management API, the databases and the history, all at once, and changes nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from common import topology
from common.recovery import Deed
from common.settings import Delay
from common.topology import Binding
from ops import where
from ops.broker import connected
from ops.doctor import databases
from ops.doctor.facts import (
    Broker,
    Connection,
    Consumer,
    Exchange,
    Facts,
    Node,
    Permission,
    Queue,
    Told,
    TopicPermission,
)
from ops.management import Management, RefusedError
from ops.output import CannotLookError
from ops.story.reading import records

#: Seconds over which queues are watched, from the figures that the broker keeps: nobody waits for them.
_WINDOW = 60
_STEP = 10
_HISTORY = timedelta(minutes=10)
#: Enough to compare the clocks of all replicas; a busy system tells this much in seconds.
_RECORDS = 500


async def look(
    delays: Sequence[Delay],
    *,
    at_broker: bool = True,
    at_databases: bool = True,
    clock_limit: timedelta = timedelta(seconds=5),
) -> Facts:
    """Gather the facts of what `ops.where` finds. What cannot be looked at is a fact, too."""
    async with asyncio.TaskGroup() as together:
        door = together.create_task(_knock()) if at_broker else None
        broker = together.create_task(_broker()) if at_broker else None
        stores = together.create_task(databases.look(where.database_urls())) if at_databases else None
    found, refusal = broker.result() if broker else (None, "")
    # A stream that is empty is no reason to wait for its end.
    history = found.queues.get(topology.HISTORY) if found else None
    said = await _told() if history and history.messages else ()
    return Facts(
        looked_at=datetime.now(UTC),
        delays=tuple(delays),
        asked_broker=at_broker,
        broker_refusal=door.result() if door else "",
        management_refusal=refusal,
        broker=found,
        databases=stores.result() if stores else None,
        told=said,
        clock_limit=clock_limit,
    )


async def _knock() -> str:
    """Why the broker does not let us in by AMQP; empty if it does."""
    try:
        async with connected():
            return ""
    except CannotLookError as error:
        return str(error)


async def _told() -> tuple[Told, ...]:
    """What the services did lately, by their own clocks; nothing where the history cannot be read."""
    found: list[Told] = []
    count = 0
    try:
        async with contextlib.aclosing(records(since=datetime.now(UTC) - _HISTORY)) as history:
            async for record in history:
                found += [
                    Told(
                        record.service,
                        record.replica,
                        record.at,
                        it.saga,
                        it.type,
                        tuple(event for event, _ in it.said),
                    )
                    for it in record.entries
                    # The first time only: an answer that is repeated may come long after it was heard.
                    if it.deed == Deed.DID
                ]
                count += 1
                if count == _RECORDS:
                    break
    except CannotLookError:
        # The queue or the login that is to blame is told by other checks.
        return ()
    return tuple(found)


async def _broker() -> tuple[Broker | None, str]:
    try:
        async with Management() as management:
            return await _ask(management), ""
    except CannotLookError as error:
        return None, str(error)


async def _ask(management: Management) -> Broker:
    overview = await management.get("/api/overview")
    every = {"lengths_age": _WINDOW, "lengths_incr": _STEP, "msg_rates_age": _WINDOW, "msg_rates_incr": _STEP}
    queues = await management.get("/api/queues/{vhost}", **every)
    bindings = await management.get("/api/bindings/{vhost}")
    connections = await _allowed(management, "/api/vhosts/{vhost}/connections")
    permissions = await _allowed(management, "/api/permissions")
    topics = await _allowed(management, "/api/topic-permissions")
    policies = {it["name"]: it["definition"] for it in await _allowed(management, "/api/policies/{vhost}") or ()}
    return Broker(
        address=management.address,
        vhost=management.vhost,
        product=overview.get("product_name", "RabbitMQ"),
        version=overview.get("product_version") or overview.get("rabbitmq_version", ""),
        nodes=tuple(map(_node, await _allowed(management, "/api/nodes") or ())),
        feature_flags={
            it["name"]: it["state"] != "disabled" for it in await _allowed(management, "/api/feature-flags") or ()
        },
        exchanges={it["name"]: _exchange(it, policies) for it in await management.get("/api/exchanges/{vhost}")},
        queues={it["name"]: _queue(it) for it in queues},
        bindings=frozenset(map(_binding, _to("queue", bindings))),
        elsewhere=frozenset(map(_binding, _to("exchange", bindings))),
        consumers=tuple(_consumers(await management.get("/api/consumers/{vhost}"), connections or ())),
        connections=None if connections is None else tuple(map(_connection, connections)),
        permissions=None
        if permissions is None
        else {
            it["user"]: Permission(it["configure"], it["write"], it["read"])
            for it in permissions
            if it["vhost"] == management.vhost
        },
        topic_permissions=None
        if topics is None
        else tuple(
            TopicPermission(it["user"], it["exchange"], it["write"], it["read"])
            for it in topics
            if it["vhost"] == management.vhost
        ),
        ahead=management.ahead,
    )


async def _allowed(management: Management, path: str) -> Any:  # noqa: ANN401 - JSON
    """What the API answers; None where this login may not see it, or the broker is too old to know it."""
    try:
        return await management.get(path)
    except RefusedError as refused:
        if refused.status in {401, 403, 404, 405}:
            return None
        raise


def _to(kind: str, bindings: Iterable[Mapping[str, Any]]) -> Iterable[Mapping[str, Any]]:
    return (it for it in bindings if it["destination_type"] == kind)


def _binding(it: Mapping[str, Any]) -> Binding:
    return Binding(it["source"], it["routing_key"], it["destination"])


def _node(it: Mapping[str, Any]) -> Node:
    return Node(
        name=it["name"],
        running=it.get("running", True),
        memory_alarm=it.get("mem_alarm", False),
        disk_alarm=it.get("disk_free_alarm", False),
        partitions=tuple(it.get("partitions", ())),
        files_used=_number(it.get("fd_used")),
        files_limit=_number(it.get("fd_total")),
        plugins=tuple(it.get("enabled_plugins", ())),
    )


def _number(value: object) -> int:
    """A figure of the API, which has words for what it does not know."""
    return value if isinstance(value, int) else 0


def _exchange(it: Mapping[str, Any], policies: Mapping[str, Mapping[str, Any]]) -> Exchange:
    return Exchange(
        kind=it["type"],
        durable=it["durable"],
        arguments=it.get("arguments", {}),
        policy=policies.get(it.get("policy") or "", {}),
    )


def _queue(it: Mapping[str, Any]) -> Queue:
    samples = [one["sample"] for one in it.get("messages_details", {}).get("samples", ())]
    acks = it.get("message_stats", {}).get("ack_details", {})
    return Queue(
        arguments=it.get("arguments", {}),
        durable=it["durable"],
        state=it.get("state", "unknown"),
        leader=it.get("leader") or _stream_leader(it),
        members=tuple(it.get("members", ())),
        online=tuple(it.get("online", ())),
        # A list where it is empty, on some versions.
        policy=dict(it.get("effective_policy_definition") or {}),
        policy_name=it.get("policy") or it.get("operator_policy") or "",
        messages=_number(it.get("messages")),
        bytes_ready=_number(it.get("message_bytes_ready")),
        stranded=_number(it.get("messages_dlx")),
        least=min(samples, default=None),
        acks=acks.get("avg_rate", 0.0) if samples else None,
    )


def _stream_leader(it: Mapping[str, Any]) -> str | None:
    """Of a stream, 3.10 tells the leader as the node that it is on."""
    node: str | None = it.get("node") if it.get("type") == "stream" and it.get("online") else None
    return node


def _connection(it: Mapping[str, Any]) -> Connection:
    return Connection(_name(it), it.get("user", ""), it.get("peer_host", "somewhere"), it.get("state", ""))


def _name(it: Mapping[str, Any]) -> str:
    name = it.get("user_provided_name") or it.get("client_properties", {}).get("connection_name")
    return name if isinstance(name, str) else ""


def _consumers(
    consumers: Iterable[Mapping[str, Any]], connections: Iterable[Mapping[str, Any]]
) -> Iterable[Consumer]:
    names = {it.get("name"): _name(it) for it in connections}
    for it in consumers:
        channel = it.get("channel_details") or {}
        yield Consumer(
            queue=it["queue"]["name"],
            connection=names.get(channel.get("connection_name"), ""),
            user=channel.get("user", ""),
            answering=it.get("activity_status", "up") in {"up", "single_active", "waiting"},
        )
