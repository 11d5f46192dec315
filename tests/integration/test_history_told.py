"""What a service tells the history of each message: what became of it, why, and what it said."""

from __future__ import annotations

from structlog.testing import capture_logs

from common.consumer import Handle
from common.history import Entry, Record
from common.messages import Message
from common.recovery import Outcome
from common.unit_of_work import Batch
from tests.support import bodies
from tests.support.bench import Bench
from tests.support.hand_fed import HandFedInbox

TRACE = f"00-{'a' * 32}-{'b' * 16}-01"


async def told(bench: Bench, inbox: HandFedInbox, handle: Handle[Message] | None = None) -> list[Entry]:
    """What those who look on were told of the inbox."""
    records: list[Record] = []
    with bench.observers.joined_by(records.append):
        await bench.consume(inbox, handle=handle)
    assert {record.service for record in records} == {bench.service.name}
    assert all(record.took_ms > 0 for record in records)
    return [entry for record in records for entry in record.entries]


def short(entries: list[Entry]) -> list[tuple[str, str, str, str, str, list[str]]]:
    """The words of each entry that do not change from one run to the next."""
    return [
        (entry.saga, entry.type, entry.became, entry.deed, entry.reason, [type_ for type_, _ in entry.said])
        for entry in entries
    ]


async def test_each_message_of_a_batch_is_told_with_what_it_caused(payment: Bench) -> None:
    """Operators read from this alone what happened, so a refusal, a repetition and a nonsense differ."""
    inbox = HandFedInbox("payment.commands")
    inbox.deliver("payment.pay", bodies.command("p-1"), headers={"traceparent": TRACE})
    inbox.deliver("payment.pay", bodies.command("p-1"))
    inbox.deliver("payment.pay", bodies.command("p-2", amount=1_000_000_000))
    inbox.deliver("payment.pay", b"nonsense")
    entries = await told(payment, inbox)
    assert short(entries) == [
        ("p-1", "payment.pay", "done", "did", "", ["payment.paid"]),
        ("p-1", "payment.pay", "done", "repeated", "", ["payment.paid"]),
        ("p-2", "payment.pay", "dead", "", "over_limit", []),
        ("", "payment.pay", "parked", "", "not_json", []),
    ]
    assert entries[0].trace == TRACE
    ((_, said),) = entries[0].said
    assert said.startswith(TRACE[:36]), "the event belongs to the trace of its command"


async def test_two_messages_of_one_saga_in_one_batch_are_not_mixed_up(payment: Bench) -> None:
    """What completed the payment is not told as if the command had."""
    inbox = HandFedInbox("payment.events")
    inbox.deliver("payment.pay", bodies.command("p-1"))
    inbox.deliver("queue.expired", bodies.forward("queue.expired"))
    inbox.deliver("queue.expired", bodies.forward("queue.expired"))
    # Each alone, as it could not come in one batch in life: the payment must be there before it completes.
    first = HandFedInbox("payment.commands")
    first.deliver("payment.pay", bodies.command("p-1"))
    await told(payment, first)
    assert short(await told(payment, inbox)) == [
        ("p-1", "payment.pay", "done", "repeated", "", ["payment.paid"]),
        ("p-1", "queue.expired", "done", "did", "", ["payment.completed"]),
        ("p-1", "queue.expired", "done", "repeated", "", ["payment.completed"]),
    ]


async def test_a_failure_is_told_with_its_reason_where_it_undid_something(payment: Bench) -> None:
    """Why a payment was undone can be read in each service that undid it."""
    inbox = HandFedInbox("payment.commands")
    inbox.deliver("payment.pay", bodies.command("p-1"))
    inbox.deliver("queue.failed", bodies.failure("p-1"))
    inbox.deliver("queue.failed", bodies.failure("p-1"))
    assert short(await told(payment, inbox))[1:] == [
        ("p-1", "queue.failed", "done", "undid", "unknown_token", ["payment.cancelled"]),
        ("p-1", "queue.failed", "done", "ignored", "unknown_token", []),
    ]


async def test_a_failure_is_told_with_its_reason_where_it_was_only_remembered(point: Bench) -> None:
    """That a service will never do its part is the end of the saga there."""
    elsewhere = HandFedInbox("point.events")
    elsewhere.deliver("queue.failed", bodies.failure("p-1"))
    assert short(await told(point, elsewhere)) == [("p-1", "queue.failed", "done", "closed", "unknown_token", [])]


async def test_a_dead_letter_that_ends_a_saga_is_told_with_why_it_died(payment: Bench) -> None:
    """The last word of a saga that failed here."""
    inbox = HandFedInbox("payment.dead")
    headers = {"x-type": "payment.pay", "x-attempt": 5, "x-reason": "retries_spent", "x-detail": "it did not work"}
    inbox.deliver("payment.dead", bodies.command("p-1"), headers=headers, user_id="saga-payment")
    (entry,) = await told(payment, inbox)
    assert short([entry]) == [("p-1", "payment.pay", "done", "failed", "retries_spent", ["payment.failed"])]
    assert (entry.detail, entry.attempt) == ("it did not work", 5)


async def test_a_message_that_will_be_tried_again_is_told_with_when(payment: Bench) -> None:
    """Whoever waits for a payment sees that somebody still works on it."""

    async def stumbling(_: Batch[Message]) -> list[Outcome]:
        raise RuntimeError("boom")

    inbox = HandFedInbox("payment.commands")
    inbox.deliver("payment.pay", bodies.command("p-1"))
    (entry,) = await told(payment, inbox, stumbling)
    assert short([entry]) == [("p-1", "payment.pay", "retry", "", "error", [])]
    assert (entry.detail, entry.attempt, entry.delay_ms) == ("RuntimeError: boom", 1, 1000)


async def test_an_error_that_quotes_a_person_is_told_without_them(payment: Bench) -> None:
    """Databases quote the row that they stumble over; headers, logs and the history go much further than a row."""

    async def stumbling(batch: Batch[Message]) -> list[Outcome]:
        users = [message.body.model_dump()["user_id"] for message in batch.messages]
        raise RuntimeError(f"Key (user_id)=({users[0]}) already exists, for {users} and t-1.")

    inbox = HandFedInbox("payment.commands")
    inbox.deliver("payment.pay", bodies.command("p-1", user_id="kim"))
    inbox.deliver("payment.pay", bodies.command("p-2", user_id="lee"))
    entries: list[Entry] = []
    with payment.observers.joined_by(lambda record: entries.extend(record.entries)), capture_logs() as lines:
        copies = (await payment.consume(inbox, handle=stumbling)).copies
    said = "RuntimeError: Key (user_id)=(<user_id>) already exists, for ['<user_id>'] and <token>."
    assert [entry.detail for entry in entries] == [said, said]
    assert [copy.headers["x-detail"] for copy in copies] == [said, said]
    assert "p-1" in str(lines)
    assert "kim" not in str(lines)
    assert "lee" not in str(lines)


async def test_how_long_a_message_was_on_its_way_is_told_if_it_says_when_it_left(payment: Bench) -> None:
    """Lag is what shows first that a service falls behind; a stranger's nonsense about it is not believed."""
    inbox = HandFedInbox("payment.commands")
    for number, left in enumerate(
        (bodies.LONG_AGO, "yesterday", "2999-01-01T00:00:00Z", "2020-01-01T00:00:00", 7)
    ):
        inbox.deliver("payment.pay", bodies.command(f"p-{number}"), headers={"cloudEvents_time": left})
    waited = [entry.waited_ms for entry in await told(payment, inbox)]
    assert waited[0] > 100_000_000
    assert waited[1:] == [0, 0, 0, 0]
