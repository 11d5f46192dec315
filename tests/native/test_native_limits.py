"""Limits on a real broker: a flood is pushed back and in nobody else's way, and what is too large stays small."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import aio_pika
import pytest
from aio_pika.abc import AbstractExchange
from aio_pika.exceptions import AMQPError, DeliveryError

from common import channel, rights, saga, topology, wire
from common.messages import MAX_BODY, Body, Enter, Hold, Pay, TopUp
from common.settings import Settings
from tests.support.eventually import eventually
from tests.support.rights import House, house
from tests.support.saga import Theatre, Visit, audited, depth
from tools.broker import PrivateBroker

pytestmark = pytest.mark.broker

#: Commands that the flood sends at once, and how many of them may wait.
WAVE, ROOM = 3_000, 2_000
#: Messages that a service does at once.
BATCH = Settings.model_fields["batch_size"].default
#: What a service may hold: with nothing to do, some 60 MB.
MOST_MEMORY = 200 * 1024 * 1024


# --- a flood


@pytest.fixture(scope="module")
def fair(node: PrivateBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Five services under their own names, a client like any other, and one that has a lane."""
    home = tmp_path_factory.mktemp("fair")
    with house(node.broker.amqp_url, node.broker.management_url, home, lanes=("shop",)) as opened:
        opened.start()
        yield opened


@contextlib.contextmanager
def room_for(fair: House, commands: int) -> Iterator[None]:
    """So many commands may wait for the first service while the context is open; more are refused."""
    place = f"operator-policies/{fair.broker.vhost}/room"
    policy = {"pattern": r"^payment\.commands$", "definition": {"max-length": commands}, "apply-to": "queues"}
    fair.broker.ask("PUT", place, policy)
    try:
        yield
    finally:
        fair.broker.ask("DELETE", place)


@asynccontextmanager
async def entrance(fair: House, user: str, exchange: str) -> AsyncIterator[AbstractExchange]:
    """Where a client publishes its commands."""
    async with await aio_pika.connect(fair.url(user)) as connection:
        opened = await connection.channel(publisher_confirms=True, on_return_raises=True)
        yield await opened.get_exchange(exchange, ensure=False)


async def taken(entry: AbstractExchange, key: str, command: Body) -> bool:
    """Publish a command once; whether the broker took it."""
    message = aio_pika.Message(command.encode().encode(), delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
    try:
        await entry.publish(message, key, mandatory=True, timeout=60)
    except DeliveryError:
        return False
    return True


def unheard_of(name: str) -> Pay:
    """A payment for a reservation that nobody made: it is taken, refused in the second step, and undone."""
    return Pay(payment_id=name, user_id=name, reservation_id=name, token=name, amount=1)


def states(fair: House, start: str) -> dict[str, str]:
    """The payments whose id begins so, and their states."""
    return dict(fair.rows("payment", "SELECT payment_id, state FROM payment WHERE payment_id LIKE ?", f"{start}%"))


async def test_a_flood_is_pushed_back_loses_nothing_and_is_not_in_the_way_of_a_client_with_a_lane(
    fair: House,
) -> None:
    """All that was confirmed is settled, what was refused was never there, and the other client does not wait."""
    async with (
        await aio_pika.connect(fair.url("client")) as deaf,
        entrance(fair, "client", topology.EVENTS) as crowd,
        entrance(fair, "shop", topology.lane_exchange("shop")) as shop,
    ):
        # It hears all that fails and never reads: the broker bounds it, whatever its client says.
        unread = await (await deaf.channel()).declare_queue(exclusive=True)
        await unread.bind(topology.EVENTS, saga.ANY_FAILED)
        good = [await prepared(fair, shop, f"shop-{number}") for number in range(3)]
        with room_for(fair, ROOM):
            confirmed = await flooded(crowd)
        for pay in good:
            assert await taken(shop, saga.FIRST.on, pay)
        await eventually(
            lambda: states(fair, "shop") == dict.fromkeys([pay.payment_id for pay in good], "COMPLETED")
        )
        went_before = len(states(fair, "flood"))

        def all_undone() -> None:
            found = states(fair, "flood")
            assert found.keys() == confirmed
            assert set(found.values()) == {"CANCELLED"}

        await eventually(all_undone, seconds=120)
        bounds = await eventually(lambda: policy_of(fair, unread.name))
        assert bounds == dict(rights.PRIVATE_QUEUE)
    # The wait is told in payments, not in seconds: of the flood, which was there first, many were still waiting.
    assert went_before < len(confirmed) - BATCH, f"{went_before} of {len(confirmed)} went before"
    assert await audited(fair.stack) == []


async def flooded(entry: AbstractExchange) -> set[str]:
    """Send payments as fast as the broker takes them, until it pushes back; which were confirmed."""
    confirmed: set[str] = set()
    for wave in range(10):
        pays = [unheard_of(f"flood-{wave}-{number}") for number in range(WAVE)]
        were_taken = await asyncio.gather(*(taken(entry, saga.FIRST.on, pay) for pay in pays))
        confirmed |= {pay.payment_id for pay, was in zip(pays, were_taken, strict=True) if was}
        if not all(were_taken):
            return confirmed
    raise AssertionError(f"{len(confirmed)} commands were taken, and none refused")


def policy_of(fair: House, queue: str) -> dict[str, Any]:
    """What policies add to a queue's arguments; empty until the broker has told its figures for the first time."""
    return dict(
        fair.broker.ask("GET", f"queues/{fair.broker.vhost}/{queue}").get("effective_policy_definition") or {}
    )


async def prepared(fair: House, entry: AbstractExchange, name: str) -> Pay:
    """A payment that has all that it needs: a held seat, points, a token."""
    for key, command, service, there in (
        (
            "reservation.hold",
            Hold(reservation_id=name, user_id=name, seat=name, price=300),
            "reservation",
            "SELECT 1 FROM reservation WHERE reservation_id = ?",
        ),
        (
            "point.top_up",
            TopUp(top_up_id=name, user_id=name, amount=1_000),
            "point",
            "SELECT 1 FROM wallet WHERE user_id = ?",
        ),
        ("queue.enter", Enter(token=name, user_id=name), "queue", "SELECT 1 FROM token WHERE token = ?"),
    ):
        assert await taken(entry, key, command)
        await eventually(partial(fair.rows, service, there, name))
    return Pay(payment_id=name, user_id=name, reservation_id=name, token=name, amount=300)


async def test_a_lane_is_its_clients_alone(fair: House) -> None:
    """Whoever may fill another's lane could keep them waiting after all."""
    pay = unheard_of("lane")
    for user, expected in (("shop", "done"), ("client", "AccessRefused"), ("operator", "AccessRefused")):
        async with fair.person(user) as person:
            said = await person.publish(topology.lane_exchange("shop"), saga.FIRST.on, pay, mandatory=True)
            assert said == expected, user
            event = await person.publish(topology.lane_exchange("shop"), "payment.paid", pay)
            assert event == "AccessRefused", user
    await eventually(lambda: states(fair, "lane") == {"lane": "CANCELLED"})


async def test_whoever_pays_while_the_queue_is_full_is_told_to_try_again(fair: House) -> None:
    """Nothing was taken, so nothing can be lost; and the same command is taken when there is room."""
    assert not fair.stack.stop("payment")
    words = ["pay", "--wait", "--id", "late"]
    words += ["--user", "u", "--reservation", "r", "--token", "t", "--amount", "5"]
    async with entrance(fair, "client", topology.EVENTS) as crowd:
        with room_for(fair, 1):

            async def is_full() -> bool:
                return not await taken(crowd, saga.FIRST.on, unheard_of(f"full-{next(numbers)}"))

            numbers = itertools.count()
            await eventually(is_full)
            said = await fair.saga("operator", *words)
    assert said.code == 2, said.text
    assert "Nothing was taken" in said.text
    assert "Try again" in said.text
    fair.start("payment")
    said = await fair.saga("operator", *words)
    assert said.code == 1, said.text
    assert "unknown_reservation" in said.text
    assert await audited(fair.stack) == []


async def test_an_event_that_is_refused_stays_in_the_outbox_and_is_said_again(fair: House) -> None:
    """An observer whose queue refuses has the service refused; no saga waits for that, and nothing is lost."""
    async with (
        await aio_pika.connect(fair.url("client")) as connection,
        entrance(fair, "client", topology.EVENTS) as crowd,
    ):
        refusing: dict[str, Any] = {"x-max-length": 0, "x-overflow": "reject-publish"}
        queue = await (await connection.channel()).declare_queue(exclusive=True, arguments=refusing)
        await queue.bind(topology.EVENTS, "reservation.failed")
        assert await taken(crowd, saga.FIRST.on, unheard_of("observed"))
        await eventually(lambda: states(fair, "observed") == {"observed": "CANCELLED"})
        await eventually(lambda: "the broker refused it" in fair.stack.log("reservation").read_text())
        assert fair.rows("reservation", "SELECT type FROM outbox") == [("reservation.failed",)]
        said = await fair.saga("operator", "doctor")
        assert f"{queue.name} hears 'reservation.failed' on saga.events and refuses" in " ".join(said.text.split())
    with contextlib.closing(sqlite3.connect(fair.stack.database("reservation"), timeout=10)) as rows, rows:
        rows.execute("UPDATE outbox SET due_at = '2020-01-01 00:00:00+00:00'")
    await eventually(lambda: fair.rows("reservation", "SELECT type FROM outbox") == [])
    assert await audited(fair.stack) == []


async def test_a_client_that_takes_too_much_is_cut_off_and_nobody_else(fair: House) -> None:
    """Connections, channels and queues are the broker's memory, which all share."""
    most = next(one.most for one in fair.granted if one.user.name == "client")
    assert most
    async with contextlib.AsyncExitStack() as held:

        async def connect() -> bool:
            try:
                connection = await aio_pika.connect(fair.url("client"))
            except (AMQPError, ConnectionError):
                return False
            held.push_async_callback(connection.close)
            return True

        # One of the tests before may still be counted for a moment; one too many never gets in.
        opened = 0
        while opened <= most.connections and await connect():
            opened += 1
        assert 0 < opened <= most.connections
        async with entrance(fair, "shop", topology.EVENTS) as shop:
            assert await taken(shop, saga.FIRST.on, unheard_of("beside"))
    await eventually(lambda: states(fair, "beside"))


# --- what is large


async def test_a_body_that_is_too_large_is_parked_in_part(here: Visit) -> None:
    """A copy of all of it would cost more than what it says is worth; its beginning tells whose it is."""
    mark, size = f"{here.mark}-large", 1024 * 1024
    body = json.dumps({"payment_id": mark}).encode().ljust(size)
    await here.publish("payment.pay", body)
    parked = await here.recovers(mark, "payment.parked")
    assert parked.raw == body[: channel.KEPT_OF_TOO_LARGE]
    assert parked.headers["x-reason"] == "too_large"
    assert parked.headers["x-left-out"] == size - channel.KEPT_OF_TOO_LARGE
    assert str(size) in parked.headers["x-detail"]


async def test_headers_that_are_too_large_are_parked_and_their_neighbours_done(here: Visit) -> None:
    """Each header is an object that takes many times its bytes, and hundreds of deliveries are held at once."""
    many = {f"h{number}": list(range(9)) for number in range(30)}
    large = {"h": "x" * wire.MAX_HEADER_BYTES}
    (pay,) = await here.paying()
    for name, headers in (("many", many), ("large", large)):
        odd = here.pay()
        await here.publish(saga.FIRST.on, odd, headers=headers)
        parked = await here.recovers(odd.payment_id, "payment.parked")
        assert parked.headers["x-reason"] == "bad_headers", name
        assert "the limit is" in parked.headers["x-detail"], name
        assert here.event(odd.payment_id, "payment.paid") is None
        here.commands.remove(odd)
    await here.send(pay)
    await here.completed(pay)


async def test_the_largest_messages_do_not_make_a_service_large(empty: Theatre) -> None:
    """Each of its queues holds more than it takes at once, of the largest that it reads, and some beyond that."""
    empty.start("payment")
    assert not empty.stack.stop("payment")
    ways = {"payment.commands": saga.FIRST.on, "payment.events": saga.PIVOT.emits, "payment.dead": "payment.dead"}
    largest = b'{"payment_id": "' + b"x" * (MAX_BODY - 18) + b'"}'
    assert len(largest) == MAX_BODY
    async with await aio_pika.connect(empty.url) as connection:
        opened = await connection.channel(publisher_confirms=True, on_return_raises=True)
        for key in ways.values():
            exchange = topology.RECOVERY if key == "payment.dead" else topology.EVENTS
            entry = await opened.get_exchange(exchange, ensure=False)
            bodies = [largest] * 450 + [largest * 256] * 3
            for start in range(0, len(bodies), 50):
                batch = [aio_pika.Message(body) for body in bodies[start : start + 50]]
                await asyncio.gather(*(entry.publish(message, key, mandatory=True) for message in batch))
    empty.start("payment")

    async def all_parked() -> bool:
        return await depth(empty, "payment.parked") == 3 * 453

    await eventually(all_parked, seconds=60)
    for queue in ways:
        assert await depth(empty, queue) == 0
    assert empty.stack.log("payment").read_text().count("taking messages") == 2
    held = peak(empty, "payment")
    assert held < MOST_MEMORY, f"{held // 1024 // 1024} MiB"


def peak(house: Theatre, service: str) -> int:
    """The most that a service's process ever held, in bytes."""
    pid = house.stack.service(service).running.pid
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
