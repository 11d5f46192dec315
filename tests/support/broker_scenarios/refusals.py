"""What the broker does not let a client do, and when a queue takes no more."""

from __future__ import annotations

from tests.support.broker_scenarios.base import SHORT, bound, to_the_dead
from tests.support.broker_stage import Stage


async def a_claimed_user_must_be_the_user(stage: Stage) -> None:
    """A message that names another user closes the channel; one that names its own is taken."""
    client = await stage.client()
    await bound(client, "q")
    await client.publish("ex", "q", "my own name", user_id=stage.user)
    other = await client.sibling()
    await other.publish("ex", "q", "somebody else's", user_id="somebody-else")
    await other.ends()
    await client.waits("q", 1)


async def arguments_of_a_queue_cannot_change(stage: Stage) -> None:
    """Declaring again with the same arguments is allowed; with others it closes the channel."""
    client = await stage.client()
    await client.queue("q", message_ttl=1000, delivery_limit=5)
    await client.asks("the same again", client.queue("q", message_ttl=1000, delivery_limit=5))
    for what, arguments in (
        ("another value", {"message_ttl": 2000, "delivery_limit": 5}),
        ("one less", {"message_ttl": 1000}),
        ("one more", {"message_ttl": 1000, "delivery_limit": 5, "max_length": 5}),
    ):
        other = await client.sibling()
        await other.asks(what, other.queue("q", **arguments))
    await client.exchange("ex")
    other = await client.sibling()
    await other.asks("another type of exchange", other.exchange("ex", "fanout"))
    other = await client.sibling()
    await other.asks("another alternate exchange", other.exchange("ex", alternate_exchange="elsewhere"))


async def what_is_not_there_is_not_found(stage: Stage) -> None:
    """Looking at, binding, consuming or publishing to what does not exist closes the channel."""
    client = await stage.client()
    await bound(client, "q")
    other = await client.sibling()
    await other.asks("look at a queue", other.looks("none"))
    other = await client.sibling()
    await other.asks("bind a queue", other.bind("none", "ex", "a"))
    other = await client.sibling()
    await other.asks("bind to an exchange", other.bind("q", "none", "a"))
    other = await client.sibling()
    await other.asks("consume", other.consume("none"))
    other = await client.sibling()
    await other.publish("none", "a", "to an exchange")
    other = await client.sibling()
    await other.asks("unbind a queue", other.unbind("none", "ex", "a"))
    other = await client.sibling()
    await other.asks("delete a queue", other.delete("none"))
    await client.waits("q", 0)


async def an_expiration_must_be_a_number(stage: Stage) -> None:
    """An expiration that is no number closes the channel."""
    client = await stage.client()
    await bound(client, "q")
    for wrong in ("soon", "-1", "1.5"):
        other = await client.sibling()
        await other.publish("ex", "q", f"expires {wrong!r}", expiration=wrong)
    await client.publish("ex", "q", "fine", expiration="100000")
    await client.read("q")


async def a_full_queue_refuses(stage: Stage) -> None:
    """A bounded queue that refuses tells its publisher; below its limit again, it takes messages again."""
    client = await stage.client()
    await bound(client, "q", max_length=5, overflow="reject-publish")
    for number in range(9):
        await client.publish("ex", "q", str(number), mandatory=True)
    await client.publish("ex", "nobody", "elsewhere")
    late = await client.sibling()
    await late.publish("ex", "q", "by another channel", mandatory=True)
    await client.waits("q", 6)
    reader = await (await client.sibling()).consume("q", prefetch=1)
    await client.waits("q", 5)
    await client.publish("ex", "q", "when 5 waited", mandatory=True)
    await reader.ack(await reader.next())
    await client.waits("q", 4)
    await client.publish("ex", "q", "when 4 waited", mandatory=True)
    await late.publish("ex", "q", "when 5 waited again", mandatory=True)
    await client.waits("q", 6)
    await client.publish("ex", "q", "when 6 waited", mandatory=True)


async def a_full_queue_opens_at_four_fifths(stage: Stage) -> None:
    """A queue that has begun to refuse goes on until it is down to 80 per cent of its bound."""
    client = await stage.client()
    await bound(client, "q", max_length=10, overflow="reject-publish")
    for number in range(12):
        await client.publish("ex", "q", str(number))
    reader = await client.consume("q", prefetch=1)
    for left in (10, 9, 8):
        delivered = await reader.next()
        await client.waits("q", left)
        await client.publish("ex", "q", f"when {left} waited")
        await reader.ack(delivered)


async def what_cannot_leave_fills_a_queue(stage: Stage) -> None:
    """Dead letters without a target count: a queue that cannot get rid of them is full in the end."""
    client = await stage.client()
    await bound(client, "q", max_length=2, message_ttl=SHORT, **to_the_dead())
    for number in range(4):
        await client.publish("ex", "q", str(number))
    await client.waits("q", 0)
    await client.publish("ex", "q", "too late")
    await bound(client, "dead", "gone", exchange="dlx")
    await client.read("dead", 3)


async def what_comes_after_a_fault_is_not_heard(stage: Stage) -> None:
    """A channel that is closed takes nothing that was sent behind the fault."""
    client = await stage.client()
    await bound(client, "q")
    other = await client.sibling()
    await other.publish("ex", "q", "before")
    await other.publish_at_once("ex", "q", [("fault", "somebody-else"), ("behind it", None)])
    await other.ends()
    await client.read("q")
    await client.waits("q", 0)


async def bytes_fill_a_queue_too(stage: Stage) -> None:
    """A bound on bytes counts the bodies of what is ready."""
    client = await stage.client()
    await bound(client, "q", max_length_bytes=100, overflow="reject-publish")
    for number in range(4):
        await client.publish("ex", "q", f"{number}" * 40)
    await client.waits("q", 3)
    reader = await client.consume("q", prefetch=2)
    await reader.arrived(2)
    await client.publish("ex", "q", "what is out does not count")
    await client.waits("q", 2)


async def one_full_queue_of_two_refuses_for_both(stage: Stage) -> None:
    """A publish is refused when one of its queues refuses, though the other has it."""
    client = await stage.client()
    await bound(client, "full", "key", max_length=1, overflow="reject-publish")
    await bound(client, "free", "key")
    for number in range(4):
        await client.publish("ex", "key", str(number))
    await client.waits("full", 2)
    await client.waits("free", 4)


async def a_full_queue_drops_its_head(stage: Stage) -> None:
    """A bounded queue that does not refuse gives up its oldest, at most once, with a reason of its own."""
    client = await stage.client()
    await bound(client, "dead", "gone", exchange="dlx")
    await bound(client, "q", max_length=2, dead_letter_exchange="dlx", dead_letter_routing_key="gone")
    for number in range(4):
        await client.publish("ex", "q", str(number))
    await client.waits("q", 2)
    await client.read("dead", 2)
    await client.read("q", 2)
