"""What users may do on a real broker, and what comes of it when somebody gets past it: played on any version.

What is expected is worked out from the saga table by itself here, not by the patterns that are being tried.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any
from urllib.parse import quote, urlsplit

import aio_pika
import aiormq
import pytest

from common import saga, topology
from common.messages import Enter, Failed, Hold, Pay, TopUp
from common.rights import NOT_ITS_OWNER, Role
from tests.support.eventually import eventually
from tests.support.rights import DELAYS, GRANTS, OBJECTS, USERS, Attempt, House, Person, encoded
from tools.rights import running

Scenario = Callable[[House], Awaitable[None]]

_AT_ONCE = 40
_COMMANDS = {key for service in saga.SERVICES for key in saga.command_keys(service)}
_RECOVERY_KEYS = [
    key
    for service in saga.SERVICES
    for key in (
        *(f"{service}.{way}" for way in ("return", "replay", "abort", "dead", "parked", "history")),
        *(f"{service}.retry.{delay}" for delay in DELAYS),
    )
] + ["operator.history"]
_KEYS = [*saga.vocabulary(), "notify.failed", "payment.refund", "", *_RECOVERY_KEYS]


def _may_publish(user: str, exchange: str, key: str) -> bool:
    role = USERS[user]
    if exchange == topology.EVENTS:
        if key in _COMMANDS:
            return role in {Role.CLIENT, Role.ACTS}
        return role is Role.SERVICE and key in saga.emitted_keys(user)
    if exchange != topology.RECOVERY:
        return False
    owner, _, way = key.partition(".")
    if role is Role.SERVICE:
        return owner == user and (way in {"dead", "parked", "history"} or way.startswith("retry."))
    may_abort = way == "abort" and owner != "notify"
    return role is Role.ACTS and (may_abort or key == "operator.history")


def _may_read(user: str, queue: str) -> bool:
    owner, _, kind = queue.partition(".")
    match USERS[user]:
        case Role.SERVICE:
            return owner == user and kind in {"events", "commands", "dead"}
        case Role.LOOKS:
            return queue == topology.HISTORY
        case Role.ACTS:
            return queue == topology.HISTORY or kind in {"dead", "parked"}
        case Role.DEPLOYER:
            return True
    return False


async def _all(probes: Iterable[Awaitable[None]]) -> None:
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(probe: Awaitable[None]) -> None:
        async with gate:
            await probe

    await asyncio.gather(*map(one, probes))


async def everybody_publishes_what_the_table_says_and_nothing_else(house: House) -> None:
    """Every user, every key, every exchange; the default exchange, too, which leads to any queue."""
    wrong: list[str] = []

    async def probe(person: Person, exchange: str, key: str) -> None:
        said = await person.publish(exchange, key)
        expected = "done" if _may_publish(person.user, exchange, key) else "AccessRefused"
        if said != expected:
            wrong.append(f"{person.user} publishes {key!r} to {exchange or 'the default exchange'}: {said}")

    for user in USERS:
        async with house.person(user) as person:
            asked = [(exchange, key) for exchange in OBJECTS.exchanges for key in _KEYS]
            asked += [("", queue.name) for queue in OBJECTS.queues] + [("amq.topic", "queue.failed")]
            await _all(probe(person, *one) for one in asked)
    assert not wrong, "\n".join(wrong)
    assert not any(
        _may_publish(user, exchange, "notify.failed") for user in USERS for exchange in OBJECTS.exchanges
    )


async def everybody_touches_the_objects_that_the_table_says_and_no_others(house: House) -> None:
    """Every user, every queue: read, purge, delete, declare, bind; and the exchanges."""
    wrong: list[str] = []

    async def probe(person: Person, what: str, attempt: Attempt, *, may: bool = False) -> None:
        said = await person.try_(attempt)
        if (said == "AccessRefused") == may:
            wrong.append(f"{person.user} {what}: {said}")

    for user, role in USERS.items():
        deploys = role is Role.DEPLOYER
        async with house.person(user) as person:
            probes = []
            for queue in OBJECTS.queues:
                name, reads = queue.name, _may_read(user, queue.name)
                attempts: dict[str, tuple[bool, Any]] = {
                    "declares": (
                        deploys,
                        partial(_declare, name=name, arguments=dict(queue.arguments)),
                    ),
                    "binds": (deploys, partial(_bind, queue=name, key=saga.ANY_FAILED)),
                }
                # To purge is to read, and to delete is to declare, so one service's queues stand for all.
                sample = name.startswith("point.")
                if name != topology.HISTORY:
                    attempts["reads"] = (reads, partial(_get, queue=name))
                    if sample and not reads:  # who may read may empty it, which would spoil what others look at
                        attempts["purges"] = (False, partial(_purge, queue=name))
                if sample and not deploys:
                    attempts["deletes"] = (False, partial(_delete, queue=name))
                probes += [probe(person, f"{what} {name}", it, may=may) for what, (may, it) in attempts.items()]
            for exchange in OBJECTS.exchanges:
                attempt = partial(_declare_exchange, name=exchange)
                probes.append(probe(person, f"declares {exchange}", attempt, may=deploys))
            probes += [
                probe(person, "makes a queue", partial(_declare, name="mine", arguments={})),
                probe(person, "makes an exchange", partial(_declare_exchange, name="mine")),
            ]
            await _all(probes)
    assert not wrong, "\n".join(wrong)


async def _declare(channel: aiormq.Channel, *, name: str, arguments: dict[str, Any]) -> None:
    await channel.queue_declare(name, durable=True, arguments=arguments)


async def _declare_exchange(channel: aiormq.Channel, *, name: str) -> None:
    await channel.exchange_declare(name, exchange_type="topic", durable=True)


async def _bind(channel: aiormq.Channel, *, queue: str, key: str) -> None:
    await channel.queue_bind(queue, topology.EVENTS, key)
    # Whoever may, leaves no trace.
    if topology.Binding(topology.EVENTS, key, queue) not in OBJECTS.bindings:
        await channel.queue_unbind(queue, topology.EVENTS, key)


async def _get(channel: aiormq.Channel, *, queue: str) -> None:
    await channel.basic_get(queue)


async def _purge(channel: aiormq.Channel, *, queue: str) -> None:
    await channel.queue_purge(queue)


async def _delete(channel: aiormq.Channel, *, queue: str) -> None:
    await channel.queue_delete(queue)


async def a_client_hears_answers_on_a_private_queue_and_nothing_that_a_step_waits_for(house: House) -> None:
    """Bound to a step's own event, it would hide that the service's queue is missing."""
    async with house.person("client") as person:
        for key in saga.vocabulary():
            told = await person.try_(partial(_hear, key=key))
            is_answer = key.endswith(".failed") or (key not in _COMMANDS and not saga.is_awaited(key))
            assert (told == "done") == is_answer, (key, told)
        for key in ("#", "*.*", "payment.*", "*.paid"):
            assert await person.try_(partial(_hear, key=key)) == "AccessRefused", key


async def _hear(channel: aiormq.Channel, *, key: str) -> None:
    declared = await channel.queue_declare(exclusive=True)
    await channel.queue_bind(declared.queue or "", topology.EVENTS, key)


async def dead_letters_of_a_private_queue_lead_to_no_queue_of_a_service(house: House) -> None:
    """A queue with somebody else's routing key for its dead letters would speak for them without publishing."""
    async with house.person("client") as person:
        for exchange in ("", topology.RECOVERY, "amq.topic"):
            arguments = {"x-dead-letter-exchange": exchange, "x-dead-letter-routing-key": "point.events"}
            attempt = partial(_declare_private, arguments=arguments)
            assert await person.try_(attempt) == "AccessRefused", exchange
    async with house.person("point") as person:
        arguments = {"x-dead-letter-exchange": topology.EVENTS, "x-dead-letter-routing-key": "queue.failed"}
        assert await person.try_(partial(_declare_private, arguments=arguments)) == "AccessRefused"


async def _declare_private(channel: aiormq.Channel, *, arguments: dict[str, Any]) -> None:
    await channel.queue_declare(exclusive=True, arguments=arguments)


async def nobody_signs_with_the_name_of_another(house: House) -> None:
    """The broker closes the channel: so what it passes on is signed by whoever published it, or not at all."""
    for user, key in (("client", "payment.pay"), ("point", "point.failed"), ("operator", "payment.pay")):
        async with house.person(user) as person:
            assert await person.publish(topology.EVENTS, key, signed="queue") == "PreconditionFailed"
            assert await person.publish(topology.EVENTS, key, signed=user) == "done"


async def nobody_makes_a_policy(house: House) -> None:
    """A policy gives any queue an exchange for its dead letters, and asks for no right on either."""
    for user in USERS:
        api = house.broker.as_(user, house.secrets.password(user))
        policy = {"pattern": ".*", "definition": {"dead-letter-exchange": topology.EVENTS}, "apply-to": "queues"}
        with pytest.raises(running.RefusedError, match=r"401|403"):
            api.ask("PUT", f"policies/{house.broker.place('mine')}", policy)


# With the services running


def _pay(name: str, **fields: object) -> Pay:
    told = {"payment_id": name, "user_id": f"{name}-u", "reservation_id": f"{name}-r", "token": f"{name}-t"}
    return Pay.model_validate(told | {"amount": 300} | fields)


def _fresh(word: str) -> str:
    return f"{word}-{secrets.token_hex(4)}"


async def _prepare(house: House, person: Person, pay: Pay) -> None:
    gifts = {
        "reservation.hold": Hold(
            reservation_id=pay.reservation_id, user_id=pay.user_id, seat=pay.reservation_id, price=300
        ),
        "point.top_up": TopUp(top_up_id=f"{pay.payment_id}-g", user_id=pay.user_id, amount=1000),
        "queue.enter": Enter(token=pay.token, user_id=pay.user_id),
    }
    for key, gift in gifts.items():
        assert await person.publish(topology.EVENTS, key, gift, mandatory=True) == "done"

    def ready() -> None:
        assert house.rows("reservation", "SELECT 1 FROM reservation WHERE reservation_id = ?", pay.reservation_id)
        assert house.rows("point", "SELECT 1 FROM wallet WHERE user_id = ?", pay.user_id)
        assert house.rows("queue", "SELECT 1 FROM token WHERE token = ?", pay.token)

    await eventually(ready)


def _states(house: House, pay: Pay) -> list[str]:
    rows = [
        house.rows(it, "SELECT state FROM saga_step WHERE saga_id = ?", pay.payment_id) for it in saga.SERVICES
    ]
    # What is done is settled in its time.
    return [str(found[0][0]).replace("settled", "done") if found else "" for found in rows]


def _untouched(house: House, pay: Pay) -> None:
    states = _states(house, pay)
    assert states == ["done"] * 5, states


async def _ends(house: House, pay: Pay, *states: str) -> None:
    def there() -> None:
        assert _states(house, pay) == list(states)

    await eventually(there)


async def _completed(house: House) -> Pay:
    async with house.person("client") as person:
        pay = _pay(_fresh("good"))
        await _prepare(house, person, pay)
        assert await person.publish(topology.EVENTS, "payment.pay", pay, mandatory=True) == "done"
    await _ends(house, pay, *["done"] * 5)
    return pay


async def sagas_go_on_with_the_rights_of_the_table(house: House) -> None:
    """Every way that the services need is open: events, retries, dead letters, compensation, history."""
    await _completed(house)
    async with house.person("client") as person:
        poor = _pay(_fresh("poor"))
        await _prepare(house, person, poor)
        dear = poor.model_copy(update={"token": "nobody-has-it"})
        assert await person.publish(topology.EVENTS, "payment.pay", dear, mandatory=True) == "done"
    await _ends(house, poor, "undone", "undone", "undone", "failed", "closed")
    # A failure that passes: the event waits in a retry level, and comes back under the service's own name.
    async with house.person("client") as person:
        again = _pay(_fresh("again"))
        await _prepare(house, person, again)
        house.faults("notify").make(raises=[again.payment_id])
        assert await person.publish(topology.EVENTS, "payment.pay", again, mandatory=True) == "done"
        await eventually(lambda: _mentions(house.stack.log("notify").read_text(), again.payment_id))
        house.faults("notify").mend()
    await _ends(house, again, *["done"] * 5)
    for service in saga.SERVICES:
        assert house.peek(topology.parked_queue(service)) == [], service


def _mentions(text: str, name: str) -> None:
    assert name in text


async def what_its_owner_did_not_publish_is_parked_and_nothing_is_done(house: House) -> None:
    """The second wall, alone: somebody whom the broker lets publish all, signing with their own name or not."""
    pay = await _completed(house)
    failed = Failed(
        payment_id=pay.payment_id, user_id=pay.user_id, service="queue", reason="no", detail="no", attempts=1
    )
    for signed in (house.administrator, None):
        async with house.root() as root:
            said = await root.publish(topology.EVENTS, "queue.failed", failed, signed=signed, mandatory=True)
        assert said == "done"
        for service in ("payment", "reservation", "point", "notify"):
            letter = await house.parked(service, pay.payment_id)
            assert letter["x-reason"] == NOT_ITS_OWNER, letter
            assert letter["x-type"] == "queue.failed"
            assert letter.get("x-published-by") == signed
            assert letter["user_id"] == service
        house.forget_letters()
    _untouched(house, pay)


async def a_header_that_copies_to_other_keys_forges_nothing(house: House) -> None:
    """CC and BCC: since 4.0.3 the broker looks at them; before, the services see who it was."""
    pay = await _completed(house)
    failed = Failed(
        payment_id=pay.payment_id, user_id=pay.user_id, service="queue", reason="no", detail="no", attempts=1
    ).encode()
    for user, exchange, key, aim, hit in (
        ("client", topology.EVENTS, "payment.pay", "queue.failed", ("payment", "reservation", "point", "notify")),
        ("client", topology.EVENTS, "queue.enter", "reservation.confirmed", ("point",)),
        ("operator", topology.EVENTS, "payment.pay", "queue.failed", ("notify",)),
        ("notify", topology.EVENTS, "notification.sent", "queue.failed", ("point",)),
        ("notify", topology.RECOVERY, "notify.parked", "point.return", ("point",)),
        ("notify", topology.RECOVERY, "notify.parked", "point.replay", ("point",)),
        ("notify", topology.RECOVERY, "notify.parked", "point.dead", ("point",)),
        ("notify", topology.RECOVERY, "notify.parked", "point.abort", ("point",)),
        ("operator", topology.RECOVERY, "operator.history", "point.return", ("point",)),
    ):
        for header in ("CC", "BCC"):
            for signed in (user, None):
                house.forget_letters()
                headers = {header: [aim], "x-type": "queue.failed", "x-published-by": "queue"}
                body = failed.encode()
                async with house.person(user) as person:
                    said = await person.publish(exchange, key, body, headers=headers, signed=signed)
                if house.checks_copies:
                    assert said == "AccessRefused", (user, aim, header)
                    continue
                assert said == "done", (user, aim, header, said)
                for service in hit:
                    letter = await house.parked(service, pay.payment_id)
                    # The key in the header is nowhere to be read: only the one that it came with.
                    assert letter["x-type"] == key
                    assert letter["x-reason"] in {NOT_ITS_OWNER, "not_ours", "invalid_fields"}, letter
    _untouched(house, pay)
    house.forget_letters()


async def a_message_that_dies_in_a_private_queue_forges_nothing(house: House) -> None:
    """It comes with the right key, but its publisher is still written on it."""
    async with house.person("client") as person:
        channel = await person.connection.channel(publisher_confirms=True)
        queue = await channel.declare_queue(
            exclusive=True,
            arguments={
                "x-message-ttl": 1,
                "x-dead-letter-exchange": topology.EVENTS,
                "x-dead-letter-routing-key": "queue.failed",
            },
        )
        await queue.bind(topology.EVENTS, saga.COMPLETED)
        pay = await _completed(house)
        for service in ("payment", "reservation", "point", "notify"):
            letter = await house.parked(service, pay.payment_id)
            assert (letter["x-reason"], letter["x-published-by"]) == (NOT_ITS_OWNER, "payment")
    _untouched(house, pay)
    house.forget_letters()


async def an_operator_gives_a_letter_back_and_cannot_change_it(house: House) -> None:
    """Rejected, it is the broker that returns it: as the service wrote it, and a forged one stays what it was."""
    pay = await _completed(house)
    failed = Failed(
        payment_id=pay.payment_id, user_id=pay.user_id, service="queue", reason="no", detail="no", attempts=1
    )
    async with house.root() as root:
        await root.publish(topology.EVENTS, "queue.failed", failed)
    first = await house.parked("point", pay.payment_id)
    async with house.person("operator") as person:
        channel = await person.connection.channel(publisher_confirms=False)
        queue = await channel.get_queue(topology.parked_queue("point"), ensure=False)
        letter = await queue.get(timeout=10)
        assert letter is not None
        await letter.reject(requeue=False)

    def parked_again() -> None:
        found = house.peek(topology.parked_queue("point"))
        assert len(found) == 1
        headers = found[0]["properties"]["headers"]
        assert headers["x-first-failed-at"] != first["x-first-failed-at"]
        assert headers["x-reason"] == NOT_ITS_OWNER

    await eventually(parked_again)
    _untouched(house, pay)
    house.forget_letters()


async def an_operator_ends_a_saga_and_nobody_else_does(house: House) -> None:
    """A dead letter for the holder of the baton; that of a service is parked, wherever it got it in."""
    async with house.person("client") as client, house.person("operator") as operator:
        for user in ("operator", "notify"):
            pay = _pay(_fresh(user))
            await _prepare(house, client, pay)
            body = encoded(**pay.model_dump(mode="json", exclude_none=True))
            if user == "operator":
                assert await operator.publish(topology.RECOVERY, "payment.abort", body, signed=user) == "done"
                await _ends(house, pay, "failed", "closed", "closed", "closed", "closed")
                continue
            async with house.person(user) as person:
                refused = await person.publish(topology.RECOVERY, "payment.abort", body, signed=user)
                assert refused == "AccessRefused"
            with house.hole_in_the_first_wall(user):
                async with house.person(user) as person:
                    assert await person.publish(topology.RECOVERY, "payment.abort", body, signed=user) == "done"
            assert (await house.parked("payment", pay.payment_id))["x-reason"] == NOT_ITS_OWNER
    house.forget_letters()


async def operators_work_with_their_own_logins(house: House) -> None:
    """The one who looks sees sagas and can do nothing; the one who acts pays, replays and aborts."""
    done = await _completed(house)
    seen = await house.saga("observer", "show", done.payment_id, "--json")
    assert seen.code == 0, seen
    for order in (("parked", "list"), ("abort", "nobody", "--service", "payment", "--yes", *_FIELDS)):
        refused = await house.saga("observer", *order)
        assert refused.code == 2, refused
        assert house.secrets.password("observer") not in refused.text
    async with house.person("client") as person:
        pay, other = _pay(_fresh("paid")), _pay(_fresh("stopped"))
        for one in (pay, other):
            await _prepare(house, person, one)
    paid = await house.saga("operator", "pay", *_options(pay), "--wait")
    assert paid.code == 0, paid
    aborted = await house.saga(
        "operator",
        "abort",
        other.payment_id,
        "--service",
        "payment",
        "--why",
        "a test",
        "--yes",
        *_options(other)[2:],
    )
    assert aborted.code == 0, aborted
    await _ends(house, other, "failed", "closed", "closed", "closed", "closed")
    # Parked by the service itself: a payment that cannot be read, replayed by the operator, is parked once more.
    async with house.person("client") as person:
        await person.publish(topology.EVENTS, "payment.pay", encoded(payment_id=f"{other.payment_id}-x"))
    await house.parked("payment", f"{other.payment_id}-x")
    listed = await house.saga("operator", "parked", "list", "--service", "payment")
    assert listed.code == 0, listed
    house.forget_letters()


_FIELDS = ("--user", "u", "--reservation", "r", "--token", "t", "--amount", "300")


def _options(pay: Pay) -> tuple[str, ...]:
    told = {"id": pay.payment_id, "user": pay.user_id, "reservation": pay.reservation_id, "token": pay.token}
    words = [word for name, value in told.items() for word in (f"--{name}", value)]
    return (*words, "--amount", str(pay.amount))


async def a_password_changes_while_the_services_work(house: House) -> None:
    """Whoever is connected stays; whoever connects anew reads the file; the old password opens nothing."""
    old = house.url("point")
    running.rotate(house.broker, "point", house.secrets)
    with pytest.raises((aiormq.exceptions.AMQPError, ConnectionError)):
        await aio_pika.connect(old)
    await _completed(house)
    # Nobody is let in before the file is there again; a service waits for it.
    file = house.secrets.file("point")
    aside = file.rename(file.with_suffix(".aside"))
    await eventually(lambda: _cut_off(house, "point"))
    await eventually(lambda: _mentions(house.stack.log("point").read_text(), "RABBITMQ_URL_FILE"))
    aside.rename(file)
    await _completed(house)
    for address in (old, house.url("point")):
        assert str(urlsplit(address).password) not in house.stack.log("point").read_text()


def _cut_off(house: House, user: str) -> None:
    """Close a user's connections, once the management API has heard of them."""
    all_ = house.broker.ask("GET", f"vhosts/{house.broker.vhost}/connections")
    names = [it["name"] for it in all_ if it["user"] == user]
    assert names, f"{user} is not connected yet, as far as is known"
    for name in names:
        house.broker.ask("DELETE", f"connections/{quote(name, safe='')}")


async def what_is_applied_again_changes_nothing_and_what_was_changed_is_mended(house: House) -> None:
    """It is run by every deployment; and a right that somebody added by hand is gone after it."""
    assert list(running.apply(house.broker, GRANTS, house.secrets)) == []
    everything = {"configure": ".*", "write": ".*", "read": ".*"}
    house.broker.ask("PUT", f"permissions/{house.broker.place('client')}", everything)
    house.broker.ask("DELETE", f"topic-permissions/{house.broker.place('point')}")
    topic = {"exchange": "amq.topic", "write": ".*", "read": ".*"}
    house.broker.ask("PUT", f"topic-permissions/{house.broker.place('queue')}", topic)
    changes = list(running.apply(house.broker, GRANTS, house.secrets))
    assert changes == ["point: routing keys", "queue: routing keys", "client: permissions"]
    assert list(running.apply(house.broker, GRANTS, house.secrets)) == []


#: Those for which no service may run: their queues are filled with all sorts.
EMPTY: dict[str, Scenario] = {
    scenario.__name__: scenario
    for scenario in (
        everybody_publishes_what_the_table_says_and_nothing_else,
        everybody_touches_the_objects_that_the_table_says_and_no_others,
        a_client_hears_answers_on_a_private_queue_and_nothing_that_a_step_waits_for,
        dead_letters_of_a_private_queue_lead_to_no_queue_of_a_service,
        nobody_signs_with_the_name_of_another,
        nobody_makes_a_policy,
        what_is_applied_again_changes_nothing_and_what_was_changed_is_mended,
    )
}

#: Those that are played in front of the five services.
PLAYED: dict[str, Scenario] = {
    scenario.__name__: scenario
    for scenario in (
        sagas_go_on_with_the_rights_of_the_table,
        what_its_owner_did_not_publish_is_parked_and_nothing_is_done,
        a_header_that_copies_to_other_keys_forges_nothing,
        a_message_that_dies_in_a_private_queue_forges_nothing,
        an_operator_gives_a_letter_back_and_cannot_change_it,
        an_operator_ends_a_saga_and_nobody_else_does,
        operators_work_with_their_own_logins,
        a_password_changes_while_the_services_work,
    )
}
