"""Every check of the doctor, in the order in which a person would ask."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ops.doctor.checks import access, clocks, databases, messages, objects, server, services
from ops.doctor.facts import Facts
from ops.doctor.finding import Finding

Check = Callable[[Facts], Iterable[Finding]]

CHECKS: tuple[Check, ...] = (
    server.reachable,
    server.version,
    server.nodes,
    server.features,
    objects.exchanges,
    objects.queues,
    objects.levels,
    objects.bindings,
    objects.strangers,
    objects.policies,
    objects.leaders,
    services.connected,
    services.blocked,
    services.consumers,
    access.users,
    access.permissions,
    access.topics,
    access.excess,
    messages.waiting,
    messages.stranded,
    messages.full,
    messages.retried,
    messages.parked,
    databases.reachable,
    databases.migrations,
    databases.servers,
    databases.outboxes,
    clocks.broker,
    clocks.of_databases,
    clocks.of_services,
)


def examine(facts: Facts) -> list[Finding]:
    """Everything that there is to say about these facts."""
    return [finding for check in CHECKS for finding in check(facts)]
