"""The whole saga, each of its failures, its retries and its dead letters, as the world outside sees them."""

from __future__ import annotations

import json

import asyncpg
import pytest

from common import saga, topology
from common.messages import Pay
from common.settings import Delay
from containers.books import ALL_DONE, FAILED_AT
from containers.system import RETRY_DELAYS, System
from tests.e2e.sales import PRICE, Sales
from tests.support.eventually import eventually
from tools.client import Heard, connect

pytestmark = pytest.mark.container


async def test_a_payment_passes_through_all_five_services(system: System, sales: Sales) -> None:
    """The purpose of it all: seen in five databases, and as the events that tell of it."""
    heard: list[Heard] = []
    pay = sales.payment()
    await sales.prepared()
    async with connect(system.amqp_url, heard.append):
        await system.publish(pay)
        books = await sales.settled()

        def told() -> None:
            keys = [event.key for event in heard if event.body.get("payment_id") == pay.payment_id]
            assert sorted(keys) == sorted([step.emits for step in saga.SAGA] + [saga.COMPLETED])

        await eventually(told)
    assert books.states(pay.payment_id) == ALL_DONE
    assert books.row("payment", pay.payment_id)["state"] == "COMPLETED"
    assert books.row("reservation", pay.reservation_id)["state"] == "CONFIRMED"
    assert books.row("token", pay.token)["state"] == "EXPIRED"
    assert books.row("notice", pay.payment_id)["kind"] == "completed"
    sales.assert_exact(books, [pay])


async def test_a_payment_typed_into_the_management_ui_completes(system: System, sales: Sales) -> None:
    """A person has no AMQP client: no properties, no confirm, only a form."""
    pay = sales.payment()
    await sales.prepared()
    assert await system.publish_by_hand(pay)
    sales.assert_exact(await sales.settled(), [pay])


async def test_a_mistyped_command_is_returned_to_whoever_typed_it(system: System, sales: Sales) -> None:
    """A command that nobody takes must not look as if somebody had."""
    answer = await system.call(
        "POST",
        f"exchanges/%2F/{topology.EVENTS}/publish",
        properties={},
        routing_key="payment.pey",
        payload=sales.payment().encode(),
        payload_encoding="string",
    )
    assert answer == {"routed": False}


async def test_the_management_ui_shows_the_queues_of_the_design(system: System) -> None:
    """Outsiders depend on these names and kinds."""
    found = {queue["name"]: queue for queue in await system.call("GET", "queues/%2F")}
    expected = topology.derive([Delay.parse(delay) for delay in RETRY_DELAYS.split(",")])
    for queue in expected.queues:
        assert found[queue.name]["type"] == ("stream" if queue.name == topology.HISTORY else "quorum")
        assert found[queue.name]["durable"]
        assert queue.arguments.items() <= found[queue.name]["arguments"].items()
    exchanges = {exchange["name"]: exchange["type"] for exchange in await system.call("GET", "exchanges/%2F")}
    assert exchanges.items() >= {"saga.events": "topic", "saga.recovery": "topic"}.items()

    async def connections_tell_their_names() -> None:
        connections = await system.call("GET", "connections")
        names = {connection["client_properties"].get("connection_name") for connection in connections}
        assert names >= {f"{service} {use}" for service in saga.SERVICES for use in ("consume", "publish")}

    # The management plugin gathers such things every five seconds.
    await eventually(connections_tell_their_names)


async def test_messages_that_wait_for_a_stopped_service_can_be_counted(system: System, sales: Sales) -> None:
    """Whoever looks for the step where payments hang must see it in the queue's length."""
    payments = sales.good(3)
    await sales.prepared()
    await system.services["point"].stop()
    await system.publish(*payments)

    async def counted() -> None:
        queue = await system.call("GET", "queues/%2F/point.events")
        assert queue.get("messages") == 3

    await eventually(counted)
    await system.services["point"].start()
    sales.assert_exact(await sales.settled(), payments)


@pytest.mark.parametrize(
    ("service", "reason", "wrong"),
    [
        ("payment", "over_limit", {"price": 2_000_000}),
        ("payment", "deadline_passed", {"expires_at": "2020-01-01T00:00:00Z"}),
        ("reservation", "unknown_reservation", {"held": False}),
        ("reservation", "price_mismatch", {"amount": PRICE - 1}),
        ("point", "no_wallet", {"points": 0}),
        ("point", "balance_too_low", {"points": PRICE - 1}),
        ("queue", "unknown_token", {"issued": False}),
    ],
)
async def test_a_refusal_undoes_every_step_before_it(
    system: System, sales: Sales, service: str, reason: str, wrong: dict[str, object]
) -> None:
    """None of it happened, wherever it failed; and the user is told."""
    # `expires_at` goes into the command as a time; all else is said to the sale.
    pay = sales.payment(**wrong)  # type: ignore[arg-type]
    await sales.prepared()
    await system.publish(pay)
    books = await sales.settled()
    assert books.states(pay.payment_id) == FAILED_AT[service]
    assert books.failure(pay.payment_id) == (service, reason)
    assert books.row("notice", pay.payment_id)["kind"] == "failed"
    sales.assert_exact(books, [])
    assert all(row["state"] == "HELD" for row in books.tables["reservation"].values())
    assert all(row["state"] == "ACTIVE" for row in books.tables["token"].values())


#: A table of each service into which its step writes the payment's id.
_WRITES = {
    "payment": ("payment", "payment_id"),
    "reservation": ("reservation", "payment_id"),
    "point": ("ledger_entry", "saga_id"),
    "queue": ("token", "payment_id"),
}


@pytest.mark.parametrize("service", _WRITES)
async def test_spent_retries_are_a_failure_like_any_other(system: System, sales: Sales, service: str) -> None:
    """A step that can never be done must end its saga, and must not spoil its neighbours."""
    doomed, *neighbours = sales.good(4, users=1)
    await sales.prepared()
    async with system.broken(service, *_WRITES[service], doomed.payment_id):
        await system.publish(doomed, *neighbours)
        books = await sales.settled()
    assert books.states(doomed.payment_id) == FAILED_AT[service]
    assert books.failure(doomed.payment_id) == (service, "retries_spent")
    answer = json.loads(books.steps[service][doomed.payment_id]["answer"])
    assert answer["attempts"] == 1 + len(RETRY_DELAYS.split(","))
    assert "a bad day" in answer["detail"]
    sales.assert_exact(books, neighbours)


async def test_a_statement_that_the_database_cancels_is_no_lost_database(system: System, sales: Sales) -> None:
    """One payment whose statement is always cancelled must not hold up everybody else's for ever."""
    doomed, *neighbours = sales.good(4)
    await sales.prepared()
    async with system.broken("point", "ledger_entry", "saga_id", doomed.payment_id, code="57014"):
        await system.publish(doomed, *neighbours)
        books = await sales.settled(seconds=20)
    assert books.failure(doomed.payment_id) == ("point", "retries_spent")
    sales.assert_exact(books, neighbours)


async def test_a_dead_letter_tells_why_where_when_and_after_how_many_attempts(
    system: System, sales: Sales
) -> None:
    """A person who looks into a dead queue must find there all that there is to know."""
    pay = sales.payment()
    await sales.prepared()
    async with (
        system.broken("point", "ledger_entry", "saga_id", pay.payment_id),
        # The undertaker fails as well, so the letter goes round and can be looked at.
        system.broken("point", "saga_step", "saga_id", pay.payment_id),
    ):
        await system.publish(pay)

        async def seen() -> dict[str, object]:
            for queue in ("point.dead", "point.retry.300ms", "point.retry.600ms"):
                for message in await system.look(queue):
                    headers: dict[str, object] = message["properties"].get("headers", {})
                    if pay.payment_id in message["payload"] and int(str(headers["x-attempt"])) > 3:
                        return headers
            raise AssertionError("no such letter yet")

        headers = await eventually(seen)
    assert headers["x-type"] == "reservation.confirmed"
    assert headers["x-reason"] == "dead_letter_failed"
    assert "a bad day" in str(headers["x-detail"])
    assert headers["x-failed-in"] in {"point.dead", "point.events"}
    assert str(headers["x-first-failed-at"]).startswith("20")
    await sales.settled()


async def test_a_compensation_is_never_given_up(system: System, sales: Sales) -> None:
    """Giving up half-way would leave the seat sold and the points gone: it waits, in sight, and then happens."""
    pay = sales.payment(issued=False)
    await sales.prepared()
    async with system.broken("reservation", "reservation", "state", "HELD"):
        await system.publish(pay)

        async def tried_again_and_again() -> None:
            found = [
                message["properties"]["headers"]
                for queue in ("reservation.retry.300ms", "reservation.retry.600ms")
                for message in await system.look(queue)
                if pay.payment_id in message["payload"]
            ]
            assert any(headers["x-attempt"] > 4 for headers in found)

        await eventually(tried_again_and_again)
    books = await sales.settled()
    assert books.states(pay.payment_id) == FAILED_AT["queue"]
    sales.assert_exact(books, [])


async def test_what_cannot_be_read_is_parked_and_nothing_else_is_disturbed(
    system: System, sales: Sales, mark: str
) -> None:
    """Nobody can be blamed for it, so a person must find it, with a reason, beside payments that went well."""
    payments = sales.good(3)
    await sales.prepared()
    bad = [
        (b"{" + mark.encode(), "not_json"),
        (b"\xff" + mark.encode(), "not_utf8"),
        (json.dumps([mark]).encode(), "not_an_object"),
        (json.dumps({"payment_id": mark}).encode(), "invalid_fields"),
        (sales.payments[0].encode().replace('"amount":1000', '"amount":1.0').encode(), "invalid_fields"),
    ]
    await system.publish(payments[0], *(("payment.pay", body) for body, _ in bad), *payments[1:])
    books = await sales.settled()
    sales.assert_exact(books, payments)

    async def parked() -> None:
        reasons = [
            message["properties"]["headers"]["x-reason"]
            for message in await system.look("payment.parked")
            if message["payload_encoding"] == "base64" or mark in message["payload"]
        ]
        assert sorted(reasons) == sorted(reason for _, reason in bad)

    await eventually(parked)


async def test_the_same_payment_with_another_amount_is_answered_and_parked(system: System, sales: Sales) -> None:
    """An idempotency key that is used twice for different things protects nobody."""
    pay = sales.payment()
    await sales.prepared()
    await system.publish(pay)
    await sales.settled()
    heard: list[Heard] = []
    async with connect(system.amqp_url, heard.append):
        await system.publish(Pay.model_validate(dict(pay) | {"amount": 1}))
        await eventually(lambda: "payment.rejected" in [event.key for event in heard])
    sales.assert_exact(await sales.settled(), [pay])


async def test_a_command_sent_again_is_answered_again_and_done_once(system: System, sales: Sales) -> None:
    """That is how a client that heard nothing asks for the outcome."""
    good, bad = sales.payment(), sales.payment(issued=False)
    await sales.prepared()
    await system.publish(good, bad)
    await sales.settled()
    heard: list[Heard] = []
    async with connect(system.amqp_url, heard.append):
        await system.publish(good, bad)

        def answered() -> None:
            told = {(event.body.get("payment_id"), event.key) for event in heard}
            assert {(good.payment_id, "payment.completed"), (bad.payment_id, "payment.failed")} <= told

        await eventually(answered)
    sales.assert_exact(await sales.settled(), [good])


async def test_a_service_cannot_enter_the_database_of_another(system: System) -> None:
    """What belongs to a service can only be reached through the exchange, also by mistake."""
    for service in saga.SERVICES:
        for other in saga.SERVICES:
            address = system.database_url(other).replace(f"{other}:{other}@", f"{service}:{service}@")
            if service == other:
                await (await asyncpg.connect(address)).close()
            else:
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await asyncpg.connect(address)
