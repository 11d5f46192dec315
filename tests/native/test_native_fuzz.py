"""Hostile messages by the thousand through a real broker to five real services, good payments among them."""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from common import saga, topology, wire
from fuzz import corpus, hostile, mutation
from fuzz.inputs import Letter, letter
from tests.support.eventually import eventually
from tests.support.raw_client import RawClient
from tests.support.saga import Theatre, depth, theatre, visit
from tools.broker import PrivateBroker

pytestmark = pytest.mark.broker

#: `make fuzz` sends more.
MESSAGES = int(os.environ.get("FUZZ_MESSAGES", "200"))
#: Where the figures go.
RESULT = os.environ.get("FUZZ_RESULT", "")
#: Hostile messages for each good payment.
_PER_PAYMENT = 40
_MOST_MEMORY_KB = 200 * 1024


@pytest.fixture
def stormed(node: PrivateBroker, tmp_path: Path) -> Iterator[Theatre]:
    """Five services of their own; what they do not know they give up on soon."""
    with theatre(node, tmp_path, UNKNOWN_TYPE_HOURS="0.0001") as opened:
        opened.start()
        yield opened


def storm(count: int) -> Iterator[Letter]:
    """So many hostile deliveries, the same in every run."""
    chance = random.Random(6)
    known = [*hostile.seeds("deliveries"), *corpus.kept("deliveries")]
    chance.shuffle(known)
    sent = 0
    while sent < count:
        data = known.pop() if known and sent % 2 else chance.choice(hostile.seeds("deliveries"))
        for _ in range(chance.randrange(4)):
            data = mutation.mutated("deliveries", data, chance)
        one = letter(data)
        if _is_let_in(one):
            sent += 1
            yield one


def _is_let_in(one: Letter) -> bool:
    """Whether the broker may take it: another's name, and a time to live that is no number, it refuses itself."""
    properties = wire.read_properties(b"\0\x3c\0\0" + bytes(8) + one.properties)
    return properties.user_id is None and properties.expiration is None


def send(house: Theatre, letters: list[Letter]) -> Counter[str]:
    """Publish all of them; how many the broker took, and how many it hung up on."""
    told: Counter[str] = Counter()
    client = RawClient(house.broker)
    for one in letters:
        flags = int.from_bytes(one.properties[:2].ljust(2, b"\0"), "big") & ~1
        try:
            client.publish(one.routing_key.encode()[:255], one.body, flags, one.properties[2:])
            told["taken"] += 1
        except (AssertionError, OSError):
            told["refused"] += 1
            client.close()
            client = RawClient(house.broker)
    client.close()
    return told


def memory_kb(house: Theatre, service: str) -> int:
    """What a service's process holds."""
    pid = house.stack.service(service).running.pid
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1])


@pytest.mark.timeout(3600)
async def test_no_message_of_a_storm_stops_a_service_or_spoils_a_neighbour(stormed: Theatre) -> None:
    """Whatever thousands of strangers send: every good payment completes, in the session that met them all."""
    wire.install()  # the observer, too, hears strangers
    letters = list(storm(MESSAGES))
    async with visit(stormed) as here:
        pays = await here.paying(max(2, MESSAGES // _PER_PAYMENT))
        told: Counter[str] = Counter(taken=0, refused=0)
        held: list[int] = []
        for place, pay in enumerate(pays):
            told += await asyncio.to_thread(send, stormed, letters[place :: len(pays)])
            await here.send(pay)
        assert told["taken"] > MESSAGES / 3, told
        await here.completed(*pays, seconds=60 + MESSAGES / 100)
        for service in saga.SERVICES:
            for queue in (topology.commands_queue(service), topology.events_queue(service)):
                if queue != "notify.commands":
                    await eventually(partial(_is_empty, stormed, queue), seconds=60 + MESSAGES / 100)
            said = stormed.stack.log(service).read_text()
            assert said.count("taking messages") == 1, f"{service} lost a session"
            assert "Traceback" not in said, f"{service} stumbled"
            held.append(memory_kb(stormed, service))
            assert held[-1] < _MOST_MEMORY_KB
        if RESULT:
            figures = {"rabbitmq": version(stormed), "payments": len(pays), "most_memory_mb": max(held) // 1024}
            keep(dict(told) | figures)


def keep(figures: dict[str, object]) -> None:
    """Write down what came of it, for docs/fuzz.md."""
    Path(RESULT).write_text(json.dumps(figures, indent=2) + "\n")


def version(house: Theatre) -> str:
    """Which RabbitMQ this is."""
    return str(house.api("GET", "/api/overview")["rabbitmq_version"])


async def _is_empty(house: Theatre, queue: str) -> bool:
    return await depth(house, queue) == 0
