"""Two replicas of a service on one database: whoever is first wins, and there is one effect."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime

import pytest
from tortoise import Model, connections

from common import db
from common.barrier import SagaStep
from common.consumer import Consumer, reading_messages
from common.messages import Message
from common.outbox import Outbox, Relay
from common.recovery import DONE, Dead, DeadLetter, Outcome, Parked
from common.settings import Settings
from common.unit_of_work import Batch, UnitOfWork
from notify_svc.models import Notice
from payment_svc.models import Payment
from point_svc.models import LedgerEntry, Wallet
from queue_svc.models import Token
from reservation_svc.models import Reservation, Seat
from tests.support import bodies
from tests.support.bench import Bench, Opens, enter, failure, forward, hold, top_up
from tests.support.eventually import eventually
from tests.support.hand_fed import HandFedInbox, HandFedSession

pytestmark = pytest.mark.server_only


class Replica:
    """A second life of a service: it has decided and written when `written` is set, and commits when told to."""

    def __init__(self, bench: Bench, messages: Sequence[Message], *, careful: bool = False) -> None:
        self._bench = bench
        self._messages = messages
        self._careful = careful
        self._unit_of_work = UnitOfWork(bench.life, Relay(10_000, bench.life))
        self.written = asyncio.Event()
        self.commit = asyncio.Event()

    async def run(self) -> list[Outcome]:
        """Do the batch in one transaction; as the consumer does, once more and with care after a lost race."""

        async def unit(now: datetime, outbox: Outbox) -> list[Outcome]:
            # So that it can be stopped between what it writes and its commit.
            await db.begin()
            outcomes = await self._bench.service.handle(Batch(self._messages, now, outbox, self._careful))
            await outbox.writes.flush()
            self.written.set()
            await self.commit.wait()
            return outcomes

        try:
            return await self._unit_of_work.run(unit)
        except Exception as error:
            if db.classify(error) is not db.Fault.RACE:
                raise
            self.lost = self._careful = True
            return await self._unit_of_work.run(unit)

    lost = False


async def waits_for_a_lock() -> bool:
    """Whether some transaction of this database is waiting for another."""
    connection = connections.get("default")
    rows = await connection.execute_query_dict(_WAITING[connection.capabilities.dialect])
    return bool(rows)


_WAITING = {
    "postgres": "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
    "mysql": "SELECT 1 FROM information_schema.innodb_trx AS trx JOIN information_schema.processlist AS process"
    " ON trx.trx_mysql_thread_id = process.id WHERE process.db = DATABASE() AND trx.trx_state = 'LOCK WAIT'",
}


async def race(
    bench: Bench, first: Sequence[Message], second: Sequence[Message], *, careful: bool = False
) -> tuple[Replica, list[list[Outcome]]]:
    """Let `first` write, `second` run into it, and only then `first` commit; the second one, and all outcomes."""
    one, two = Replica(bench, first, careful=careful), Replica(bench, second, careful=careful)
    two.commit.set()
    running = [asyncio.create_task(one.run())]
    await eventually(one.written.is_set, seconds=10)
    running.append(asyncio.create_task(two.run()))
    try:
        await eventually(waits_for_a_lock, seconds=10)
    finally:
        one.commit.set()
        outcomes = await asyncio.gather(*running)
    return two, outcomes


@pytest.fixture
async def prepared(opened: Opens, name: str) -> AsyncIterator[Bench]:
    """A service that has what the payments p-1 and p-2 need, but for the one thing they race for."""
    async with opened(name) as service:
        match name:
            case "reservation":
                await service.do(hold(), hold("r-2", seat="A-2"))
            case "point":
                await service.do(top_up())
            case "queue":
                await service.do(enter())
        await service.events()
        yield service


@pytest.mark.parametrize("name", ["payment", "reservation", "point", "queue", "notify"])
async def test_two_replicas_with_the_same_message_do_it_once(prepared: Bench, name: str) -> None:
    """Insert-first: the row is written by one, and the other one repeats the answer."""
    _, outcomes = await race(prepared, [forward(name)], [forward(name)])
    assert outcomes[0] == [DONE]
    if isinstance(outcomes[1][0], Dead):
        # It waited for the seat or the token, and found it taken: by its own saga, as the undertaker sees.
        letter = DeadLetter(forward(name), outcomes[1][0].reason, "taken", 1)
        outcomes[1] = await prepared.bury(letter)
    assert outcomes[1] == [DONE]
    assert await prepared.state() == "done"
    assert await SagaStep.all().count() == 1
    assert len(set(await prepared.said())) == (1 if name != "notify" else 0)
    match name:
        case "point":
            assert (await Wallet.get(user_id="ann")).balance == 70
            assert await LedgerEntry.filter(saga_id="p-1").count() == 1
        case "payment":
            assert await Payment.all().count() == 1
        case "notify":
            assert await Notice.all().count() == 1


@pytest.mark.parametrize("name", ["payment", "reservation", "point", "notify"])
async def test_two_replicas_with_the_same_compensation_undo_once(prepared: Bench, name: str) -> None:
    """Compare-and-set: `done` is left once."""
    if name == "notify":
        loser, outcomes = await race(prepared, [failure()], [failure()])
        assert loser.lost
        assert await Notice.all().count() == 1
        return
    await prepared.do(forward(name))
    await prepared.events()
    loser, outcomes = await race(prepared, [failure()], [failure()])
    assert loser.lost
    assert outcomes == [[DONE], [DONE]]
    assert await prepared.state() == "undone"
    assert len(await prepared.said()) == 1
    if name == "point":
        assert (await Wallet.get(user_id="ann")).balance == 100
        assert await LedgerEntry.filter(kind="restoration").count() == 1


@pytest.mark.parametrize("name", ["payment", "reservation", "point", "queue", "notify"])
@pytest.mark.parametrize("failure_first", [False, True])
async def test_a_message_and_the_failure_of_its_saga_end_in_one_of_two_ways(
    prepared: Bench, name: str, *, failure_first: bool
) -> None:
    """Done and undone, or never done: whichever replica commits first."""
    batches = [[forward(name)], [failure()]]
    loser, outcomes = await race(prepared, *(batches[::-1] if failure_first else batches))
    assert loser.lost
    if failure_first:
        assert await prepared.state() == "closed"
        assert outcomes == [[DONE], [DONE]]
    elif name == "queue":
        assert await prepared.state() == "done"
        assert isinstance(outcomes[1][0], Parked), "it came after the pivot"
    else:
        assert await prepared.state() == ("done" if name == "notify" else "undone")
    match name:
        case "payment":
            assert not await Payment.filter(state="PAID").exists()
        case "reservation":
            assert (await Reservation.get(reservation_id="r-1")).state == "HELD"
        case "point":
            assert (await Wallet.get(user_id="ann")).balance == 100
        case "queue":
            assert (await Token.get(token="t-1")).state == ("ACTIVE" if failure_first else "EXPIRED")
        case "notify":
            assert await Notice.all().count() == 1


@pytest.mark.parametrize("name", ["payment"])
@pytest.mark.parametrize("failure_first", [False, True])
async def test_the_pivot_and_a_failure_never_both_settle_a_payment(
    prepared: Bench, name: str, *, failure_first: bool
) -> None:
    """They cannot both be true; the second one is parked for a person."""
    await prepared.do(forward(name))
    await prepared.events()
    batches = [[forward("notify")], [failure()]]
    _, outcomes = await race(prepared, *(batches[::-1] if failure_first else batches))
    assert outcomes[0] == [DONE]
    assert isinstance(outcomes[1][0], Parked)
    assert (await Payment.get(payment_id="p-1")).state == ("CANCELLED" if failure_first else "COMPLETED")
    assert await prepared.said() == ["payment.cancelled" if failure_first else "payment.completed"]


@pytest.mark.parametrize("name", ["point"])
@pytest.mark.parametrize("careful", [False, True])
async def test_two_payments_from_one_wallet_are_both_deducted(
    prepared: Bench, name: str, *, careful: bool
) -> None:
    """The second replica starts from the balance that the first one left, not from the one before."""
    second, outcomes = await race(prepared, [forward(name, "p-1")], [forward(name, "p-2")], careful=careful)
    assert second.lost is not careful, "with care they only wait for each other's lock"
    assert outcomes == [[DONE], [DONE]]
    assert (await Wallet.get(user_id="ann")).balance == 40


@pytest.mark.parametrize("name", ["point"])
async def test_a_wallet_cannot_be_emptied_twice_at_once(prepared: Bench, name: str) -> None:
    """What was checked is what is changed, or nothing is."""
    _, outcomes = await race(prepared, [forward(name, "p-1", amount=80)], [forward(name, "p-2", amount=80)])
    assert outcomes[0] == [DONE]
    assert outcomes[1] != [DONE]
    assert (await Wallet.get(user_id="ann")).balance == 20


@pytest.mark.parametrize("name", ["point"])
async def test_two_first_top_ups_open_one_wallet(prepared: Bench, name: str) -> None:
    """Neither can find a row that is not there yet: the loser tries again."""
    assert prepared.service.name == name
    loser, outcomes = await race(prepared, [top_up("u-2", user_id="bob")], [top_up("u-3", user_id="bob")])
    assert loser.lost
    assert outcomes == [[DONE], [DONE]]
    assert (await Wallet.get(user_id="bob")).balance == 200


@pytest.mark.parametrize("name", ["reservation"])
@pytest.mark.parametrize("is_new", [False, True])
async def test_two_holds_of_one_seat_have_one_holder(prepared: Bench, name: str, *, is_new: bool) -> None:
    """Whether the seat was wanted before or not."""
    assert prepared.service.name == name
    seat = "A-9" if is_new else "A-1"
    await Seat.filter(seat="A-1").update(reservation_id=None)
    await race(prepared, [hold("r-8", seat=seat)], [hold("r-9", seat=seat, user_id="bob")])
    assert (await Seat.get(seat=seat)).reservation_id == "r-8"
    assert not await Reservation.filter(reservation_id="r-9").exists()
    assert sorted(await prepared.said()) == ["reservation.held", "reservation.rejected"]


@pytest.mark.parametrize("name", ["reservation"])
async def test_two_payments_for_one_reservation_confirm_it_once(prepared: Bench, name: str) -> None:
    """Whoever changes a reservation compares it with what was decided about."""
    _, outcomes = await race(prepared, [forward(name, "p-1")], [forward(name, "p-2")])
    assert outcomes[0] == [DONE]
    assert outcomes[1] != [DONE]
    assert (await Reservation.get(reservation_id="r-1")).payment_id == "p-1"


@pytest.mark.parametrize("name", ["queue"])
async def test_two_payments_with_one_token_use_it_once(prepared: Bench, name: str) -> None:
    """The pivot happens for one of them."""
    _, outcomes = await race(prepared, [forward(name, "p-1")], [forward(name, "p-2")])
    assert outcomes[0] == [DONE]
    assert outcomes[1] != [DONE]
    assert (await Token.get(token="t-1")).payment_id == "p-1"


@pytest.mark.parametrize(
    ("name", "table", "key", "row", "wanted"),
    [
        ("payment", Payment, "payment_id", lambda n: forward("payment", f"x-{n}"), lambda n: failure(f"x-{n}")),
        (
            *("reservation", Seat, "seat"),
            lambda n: hold(f"x-{n}", seat=f"x-{n}"),
            lambda n: hold(f"y-{n}", seat=f"x-{n}"),
        ),
        (
            *("point", Wallet, "user_id"),
            lambda n: top_up(f"x-{n}", user_id=f"x-{n}"),
            lambda n: forward("point", f"y-{n}", user_id=f"x-{n}"),
        ),
        ("queue", Token, "token", lambda n: enter(f"x-{n}"), lambda n: forward("queue", f"y-{n}", token=f"x-{n}")),
    ],
)
async def test_rows_are_locked_in_the_order_of_their_keys(
    prepared: Bench,
    table: type[Model],
    key: str,
    row: Callable[[int], Message],
    wanted: Callable[[int], Message],
) -> None:
    """Two batches that want the same rows in another order would otherwise lock each other out."""
    for number in reversed(range(10, 20)):
        await prepared.do(row(number))
    release, held = asyncio.Event(), asyncio.Event()

    async def in_the_way() -> None:
        async with db.transaction():
            await table.filter(**{key: "x-15"}).select_for_update()
            held.set()
            await release.wait()

    async def free() -> set[str]:
        async with db.transaction():
            rows = await table.filter(**{f"{key}__startswith": "x-"}).select_for_update(skip_locked=True)
        return {getattr(row, key) for row in rows}

    other = asyncio.create_task(in_the_way())
    await held.wait()
    working = asyncio.create_task(prepared.carefully(*(wanted(number) for number in range(19, 9, -1))))
    try:
        await eventually(waits_for_a_lock, seconds=10)
        assert await free() == {f"x-{number}" for number in range(16, 20)}
    finally:
        release.set()
        await asyncio.gather(other, working)


@pytest.mark.parametrize("name", ["payment", "reservation", "point", "queue", "notify"])
async def test_many_replicas_with_everything_at_once_agree(prepared: Bench, name: str) -> None:
    """A crowd of replicas, each with the same messages in another order: no error but lost races, one effect."""

    async def replica(number: int) -> None:
        messages = [forward(name), failure(), failure("p-3"), forward(name)]
        for message in messages[number % 4 :] + messages[: number % 4]:
            for _ in range(50):
                try:
                    await prepared.do(message)
                    break
                except Exception as error:
                    if db.classify(error) is not db.Fault.RACE:
                        raise
            else:
                pytest.fail("it lost fifty races")

    await asyncio.gather(*(replica(number) for number in range(8)))
    assert await prepared.state("p-3") == "closed"
    assert await SagaStep.all().count() == 2
    if name == "point":
        assert (await Wallet.get(user_id="ann")).balance == 100
        assert sorted(entry.amount for entry in await LedgerEntry.filter(saga_id="p-1")) in ([], [-30, 30])


@pytest.mark.parametrize("name", ["point"])
@pytest.mark.parametrize("size", [1, 50])
async def test_two_replicas_on_one_hot_wallet_lose_no_message_its_attempts(
    prepared: Bench, name: str, size: int
) -> None:
    """Whoever loses a race takes care from then on: nobody loses for ever, and nobody is retried later."""
    await prepared.do(top_up("u-hot", amount=10_000))
    payments = iter(range(200))

    async def replica() -> list[tuple[str, str | int]]:
        session = HandFedSession(name)
        consumer = Consumer(
            session, Settings(), UnitOfWork(prepared.life, Relay(10_000, prepared.life)), prepared.relay,
            reading_messages(Settings()), prepared.service.handle, prepared.observers,
        )  # fmt: skip
        while numbers := list(itertools.islice(payments, size)):
            inbox = HandFedInbox("point.events")
            for number in numbers:
                inbox.deliver(
                    "reservation.confirmed", bodies.forward("reservation.confirmed", f"hot-{number}", amount=1)
                )
            await consumer._work(inbox, inbox.take(size))
        return session.told()

    told = await asyncio.gather(replica(), replica(), replica())
    assert not any(told), "nothing was copied to a retry level"
    assert (await Wallet.get(user_id="ann")).balance == 10_100 - 200
    assert await LedgerEntry.filter(saga_id__startswith="hot-").count() == 200
