"""Where messages go: patterns, returns, alternate exchanges, copies."""

from __future__ import annotations

from datetime import UTC, datetime

from tests.support.broker_scenarios.base import bound
from tests.support.broker_stage import Stage


async def topics_are_matched_by_words(stage: Stage) -> None:
    """`*` is one word, `#` any number of them, none included, at either end and between."""
    client = await stage.client()
    await client.exchange("ex")
    patterns = ("a.b", "a.*", "*.b", "a.#", "#.b", "#", "*", "a.*.c", "a.#.c", "*.*", "#.#", "a.b.#", "#.b.#", "")
    for number, pattern in enumerate(patterns):
        await client.queue(f"q{number}")
        await client.bind(f"q{number}", "ex", pattern)
    for key in ("a.b", "a", "b", "a.c", "a.b.c", "a.b.b.c", "", "a.", ".a", "x.b", "a.b.c.d", "*", "#", "A.b"):
        await client.publish("ex", key, key, mandatory=True)
        for number, pattern in enumerate(patterns):
            count, _ = await client.looks(f"q{number}")
            stage.saw(key, pattern, count)


async def a_queue_gets_a_message_once_however_often_it_is_bound(stage: Stage) -> None:
    """Two bindings of a queue that match, and a binding made twice, deliver one copy."""
    client = await stage.client()
    await bound(client, "q", "a.*", "*.b", "a.b", "a.b")
    await client.publish("ex", "a.b", "once", mandatory=True)
    await client.waits("q", 1)
    await client.unbind("q", "ex", "a.b")
    await client.unbind("q", "ex", "a.b")
    await client.publish("ex", "a.b", "still bound", mandatory=True)
    await client.unbind("q", "ex", "a.*")
    await client.unbind("q", "ex", "*.b")
    await client.publish("ex", "a.b", "not bound", mandatory=True)
    await client.waits("q", 2)


async def what_goes_nowhere_comes_back_only_if_it_was_mandatory(stage: Stage) -> None:
    """A mandatory message that no queue is bound for is returned, then confirmed; another is just confirmed."""
    client = await stage.client()
    await bound(client, "q", "known")
    await client.publish("ex", "unknown", "mandatory", mandatory=True, message_id="m1")
    await client.publish("ex", "unknown", "not mandatory")
    await client.publish("ex", "known", "routed", mandatory=True)
    await client.publish("", "q", "by the default exchange", mandatory=True)
    await client.publish("", "nobody", "by the default exchange to nobody", mandatory=True)
    await client.read("q", 2)


async def an_alternate_exchange_counts_as_a_route(stage: Stage) -> None:
    """What only an alternate exchange routes is not returned; what even it cannot route is."""
    client = await stage.client()
    await bound(client, "odd", "odd.#", exchange="other")
    await client.exchange("ex", alternate_exchange="other")
    await client.queue("q")
    await client.bind("q", "ex", "known")
    await client.publish("ex", "known", "known", mandatory=True)
    await client.publish("ex", "odd.key", "odd", mandatory=True)
    await client.publish("ex", "neither", "neither", mandatory=True)
    await client.read("odd")
    await client.read("q")


async def a_queue_bound_to_everything_hides_that_the_target_is_missing(stage: Stage) -> None:
    """With an observer bound with `#`, nothing comes back any more: mandatory means nothing there."""
    client = await stage.client()
    await bound(client, "observer", "#")
    await client.publish("ex", "nobody.waits", "lost", mandatory=True)
    await client.read("observer")


async def copies_are_routed_too(stage: Stage) -> None:
    """CC and BCC are further routing keys; BCC is not shown; the key stays the one it was published with."""
    client = await stage.client()
    await bound(client, "a")
    await bound(client, "b")
    await bound(client, "c")
    headers = {"CC": ["b"], "BCC": ["c"], "other": "kept"}
    await client.publish("ex", "a", "three copies", mandatory=True, headers=headers)
    for queue in "abc":
        await client.read(queue)
    await client.publish("ex", "nobody", "a copy is a route", mandatory=True, headers={"CC": ["c", "c"]})
    await client.read("c")
    await client.waits("c", 0)


async def headers_arrive_as_they_were_sent(stage: Stage) -> None:
    """Texts, numbers, tables, lists and times come through; so does a header that looks like the broker's own."""
    client = await stage.client()
    await bound(client, "q")
    headers = {
        "text": "caf\u00e9",
        "number": -5,
        "big": 2**40,
        "yes": True,
        "nothing": None,
        "table": {"a": {"b": [1, "two"]}},
        "time": datetime(2020, 1, 1, tzinfo=UTC),
        "x-delivery-count": 7,
        "x-first-death-reason": "made up",
    }
    await client.publish("ex", "q", "with headers", headers=headers, message_id="m", expiration="600000")
    reader = await client.consume("q")
    await reader.nack(await reader.next())
    await reader.ack(await reader.next())
