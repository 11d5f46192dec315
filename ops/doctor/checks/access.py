"""Users and permissions: each service's user may do what the service does, and is not `guest`.

The patterns are the broker's, an Erlang dialect of the expressions that Python reads; one that Python cannot read
is told, not guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from common import saga, topology
from ops.doctor import mends
from ops.doctor.checks.services import of_service, queues_of_work
from ops.doctor.facts import Broker, Facts
from ops.doctor.finding import Finding, note, or_well, some, wrong

_GUEST = "guest"


def users(facts: Facts) -> Iterable[Finding]:
    """The services' users are told, and none is `guest`, whose password everybody knows."""
    if facts.broker is None:
        return []
    by_service = _users(facts.broker)
    guests = [service for service, names in by_service.items() if _GUEST in names]
    found = []
    if guests:
        vhost = facts.broker.vhost
        mend = (
            "make a user: `rabbitmqctl add_user saga`, "
            f"`rabbitmqctl set_permissions --vhost {vhost} saga '.*' '.*' '.*'`, and name it in RABBITMQ_URL"
        )
        found.append(
            note("users", f"{some(guests, limit=5)}: logged in as guest, whose password everybody knows", mend)
        )
    names = sorted({name for names in by_service.values() for name in names})
    return or_well(found, "users", f"the services log in as {some(names)}") if names else []


def permissions(facts: Facts) -> Iterable[Finding]:
    """Every service's user may publish to both exchanges and read its service's queues."""
    broker = facts.broker
    if broker is None:
        return []
    if broker.permissions is None:
        return [_may_not_see("permissions")]
    by_service = _users(broker)
    found = (
        it for service, names in by_service.items() for user in names for it in _permissions(broker, service, user)
    )
    return (
        or_well(found, "permissions", "the services' users may do what they must")
        if any(by_service.values())
        else []
    )


def _permissions(broker: Broker, service: str, user: str) -> Iterator[Finding]:
    has = (broker.permissions or {}).get(user)
    needed = {"write": (topology.EVENTS, topology.RECOVERY), "read": queues_of_work(service, broker.lanes)}
    if has is None:
        what = f"{user}, {service}'s user, has no permissions in virtual host {broker.vhost}"
        yield wrong("permissions", what, mends.grant(broker, user, None, **needed))
        return
    patterns = {"write": has.write, "read": has.read}
    lacks = {
        right: tuple(name for name in names if _matches(patterns[right], name) is False)
        for right, names in needed.items()
    }
    lacks = {right: names for right, names in lacks.items() if names}
    if lacks:
        told = "; ".join(f"{right} {some(names)}" for right, names in lacks.items())
        yield wrong(
            "permissions",
            f"{user} may not do what {service} must: {told}",
            mends.grant(broker, user, has, **lacks),
        )
    yield from _unreadable(user, patterns.values())


def topics(facts: Facts) -> Iterable[Finding]:
    """Where a user's routing keys are limited, those of its service are among them."""
    broker = facts.broker
    if broker is None or broker.topic_permissions is None:
        return []
    return [
        it
        for service, names in _users(broker).items()
        for user in names
        for it in _topics(facts, broker, service, user)
    ]


def _topics(facts: Facts, broker: Broker, service: str, user: str) -> Iterator[Finding]:
    needed = {topology.EVENTS: saga.emitted_keys(service), topology.RECOVERY: _recovery_keys(facts, service)}
    limited = [it for it in broker.topic_permissions or () if it.user == user and it.exchange in needed]
    for limit in limited:
        write = limit.write.replace("{username}", re.escape(user)).replace("{vhost}", re.escape(broker.vhost))
        lacks = tuple(key for key in needed[limit.exchange] if _matches(write, key) is False)
        if lacks:
            what = f"{user} may not publish {some(lacks)} to {limit.exchange}, which {service} must"
            mend = mends.grant_topic(broker, user, limit.exchange, limit.write, limit.read, lacks)
            yield wrong("permissions", what, mend)
        yield from _unreadable(user, [write])


def excess(facts: Facts) -> Iterable[Finding]:
    """Where a service has a user of its own name, that user may publish what is the service's and nothing else."""
    broker = facts.broker
    if broker is None or broker.permissions is None or broker.topic_permissions is None:
        return []
    return [
        it
        for service, names in _users(broker).items()
        if names == [service] and service in broker.permissions
        for it in _excess(facts, broker, service)
    ]


def _excess(facts: Facts, broker: Broker, service: str) -> Iterator[Finding]:
    has = (broker.permissions or {})[service]
    limits = {it.exchange: it.write for it in broker.topic_permissions or () if it.user == service}
    own = {topology.EVENTS: saga.emitted_keys(service), topology.RECOVERY: _recovery_keys(facts, service)}
    # The keys under which a service is given its own back are the broker's alone.
    recovery = [it.key for it in topology.derive(facts.delays).bindings if it.exchange == topology.RECOVERY]
    for exchange, keys in ((topology.EVENTS, saga.vocabulary()), (topology.RECOVERY, recovery)):
        may = [key for key in keys if _matches(has.write, exchange) and _matches(limits.get(exchange, ".*"), key)]
        if more := tuple(key for key in may if key not in own[exchange]):
            mend = "`python -m tools.rights apply` takes away what the saga table does not give"
            what = f"{service} may publish {some(more)} to {exchange}, which it does not own"
            yield wrong("permissions", what, mend)


def _recovery_keys(facts: Facts, service: str) -> tuple[str, ...]:
    levels = (topology.retry_queue(service, delay) for delay in facts.delays)
    named = (topology.dead_queue(service), topology.parked_queue(service), topology.history_key(service))
    return (*named, *levels)


def _unreadable(user: str, patterns: Iterable[str]) -> Iterator[Finding]:
    for pattern in patterns:
        if _matches(pattern, "") is None:
            mend = "look yourself: `rabbitmqctl list_permissions`"
            yield note("permissions", f"{user}'s pattern {pattern!r} cannot be read here", mend)


def _matches(pattern: str, name: str) -> bool | None:
    """Whether the broker would allow `name`: anywhere in it, and an empty pattern nothing. None: who knows."""
    try:
        return re.search(pattern or "^$", name) is not None
    except re.error:
        return None


def _may_not_see(subject: str) -> Finding:
    mend = "ask as a user with the tag `administrator`: RABBITMQ_MANAGEMENT_URL=http://user:password@host:15672"
    return note(subject, "this user of the management API may not see them", mend)


def _users(broker: Broker) -> dict[str, list[str]]:
    """Each service's users: those that it is logged in as; of one that is away, the user of its name."""
    found: dict[str, list[str]] = {}
    for service in saga.SERVICES:
        names = sorted({connection.user for connection in of_service(broker.connections, service)})
        found[service] = names or [name for name in broker.permissions or () if name == service]
    return found
