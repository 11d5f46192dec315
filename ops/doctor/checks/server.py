"""The broker itself: can it be reached, is it one we know, are its nodes well."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ops.doctor.facts import Facts, Node
from ops.doctor.finding import Finding, note, ok, or_well, some, unseen, wrong

_OLDEST = (3, 10)
_UNKNOWN = (5, 0)
#: What queues need that could be switched off: on a broker that was upgraded, new features wait to be enabled.
_NEEDED_FLAGS = ("quorum_queue", "stream_queue")
_FILES_NEARLY_USED = 0.9


def reachable(facts: Facts) -> Iterator[Finding]:
    """The broker lets us in, and its management API answers."""
    if not facts.asked_broker:
        return
    if facts.broker_refusal:
        yield wrong("broker", facts.broker_refusal, "`make up` starts one; RABBITMQ_URL names another")
    if facts.management_refusal:
        mend = (
            "name it in RABBITMQ_MANAGEMENT_URL, like http://user:password@host:15672; "
            "the broker serves it after `rabbitmq-plugins enable rabbitmq_management`"
        )
        yield unseen("management", facts.management_refusal, mend)
    elif not facts.broker_refusal and facts.broker:
        yield ok("broker", f"{facts.broker.address} answers, virtual host {facts.broker.vhost}")


def version(facts: Facts) -> Iterator[Finding]:
    """The broker's version is one that this system is made for."""
    broker = facts.broker
    if broker is None:
        return
    told = f"{broker.product} {broker.version}"
    if broker.release < _OLDEST:
        yield wrong("version", f"{told} has no at-least-once dead-lettering", "upgrade to RabbitMQ 3.10 or later")
    elif broker.product != "RabbitMQ" or broker.release >= _UNKNOWN:
        yield note(
            "version", f"{told} is not known here", "use RabbitMQ 3.10 to 4.x, or run the tests against this one"
        )
    else:
        yield ok("version", told)


def nodes(facts: Facts) -> Iterable[Finding]:
    """Every node runs, raises no alarm and sees the others."""
    if facts.broker is None:
        return []
    names = some(node.name for node in facts.broker.nodes)
    return or_well((found for node in facts.broker.nodes for found in _node(node)), "nodes", f"no alarm: {names}")


def _node(node: Node) -> Iterator[Finding]:
    if not node.running:
        yield wrong("nodes", f"{node.name} does not run", "start it; its queues' other members go on meanwhile")
    if node.memory_alarm:
        mend = "free memory, or raise `vm_memory_high_watermark`; publishers are blocked until then"
        yield wrong("nodes", f"{node.name} raises the memory alarm", mend)
    if node.disk_alarm:
        mend = "free disk space, or lower `disk_free_limit`; publishers are blocked until then"
        yield wrong("nodes", f"{node.name} raises the disk alarm", mend)
    if node.partitions:
        mend = "see that the nodes reach one another, then restart those of the smaller side"
        yield wrong("nodes", f"{node.name} has lost sight of {some(node.partitions)}", mend)
    if node.files_limit and node.files_used > _FILES_NEARLY_USED * node.files_limit:
        what = f"{node.name} uses {node.files_used} of {node.files_limit} file descriptors"
        yield note("nodes", what, "raise the limit (`ulimit -n`) before connections are refused")


def features(facts: Facts) -> Iterator[Finding]:
    """What the queues need is switched on."""
    broker = facts.broker
    if broker is None:
        return
    for flag in _NEEDED_FLAGS:
        if broker.feature_flags.get(flag) is False:
            yield wrong("features", f"{flag} is switched off", f"`rabbitmqctl enable_feature_flag {flag}`")
    plugins = sorted({plugin for node in broker.nodes for plugin in node.plugins})
    unseen_metrics = (
        "" if "rabbitmq_prometheus" in plugins else "; without rabbitmq_prometheus its metrics stay unseen"
    )
    yield ok("plugins", f"{some(plugins, limit=8) or 'not told'}{unseen_metrics}")
