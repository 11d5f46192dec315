"""`saga dead` and `saga parked` beside real services: nothing is lost by looking, and no act tears a saga."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aio_pika
import pytest
import pytest_asyncio
from typer.testing import CliRunner

from common import bus, recovery, saga, topology
from common.history import Entry
from common.messages import Pay, TopUp
from common.settings import Settings
from ops.app import app
from ops.letters import users
from ops.letters.acting import Desk, Outcome
from ops.letters.letter import Letter
from ops.letters.queues import Drawer
from ops.story.reading import records
from tests.support.eventually import eventually
from tests.support.saga import Theatre, Visit, depth, theatre, visit
from tools.broker import PrivateBroker
from tools.loopback import free_ports
from tools.stack import ROOT

pytestmark = pytest.mark.broker

#: Started in place of `saga`, this dies where the letter is to go back.
DIES_BEFORE_THE_END = """
import os, signal, sys
from ops.letters.queues import Drawer

async def die(self, letter):
    os.kill(os.getpid(), signal.SIGKILL)

Drawer.send_back = die
from ops.app import run
run()
"""

#: For the point service: while the file is there, its handler fails, and so does the one of its dead letters.
BREAKS = """
import os
from importlib import import_module
from pathlib import Path

if "BROKEN" in os.environ:
    file = Path(os.environ["BROKEN"])
    work, barrier = import_module("point_svc.step").Work, import_module("common.barrier")
    decide, bury = work.decide, barrier.bury

    def decide_or_fail(self, message):
        if file.exists() and message.type == "reservation.confirmed":
            raise OverflowError("it does not fit")
        return decide(self, message)

    async def bury_or_fail(service, batch):
        if file.exists():
            raise OverflowError("nor does this")
        return await bury(service, batch)

    work.decide, barrier.bury = decide_or_fail, bury_or_fail
"""


@dataclass(frozen=True, slots=True)
class Said:
    """What the command told."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """Its document."""
        told: dict[str, Any] = json.loads(self.out)
        return told

    @property
    def outcomes(self) -> list[str]:
        """What became of each letter."""
        return [letter["outcome"] for letter in self.json["letters"]]


def environment(house: Theatre, url: str | None = None) -> dict[str, str]:
    """What an operator has set who knows the broker and the databases."""
    databases = {f"DATABASE_URL_{name.upper()}": at for name, at in house.stack.database_urls().items()}
    node = house.broker
    login = f"{node.user}:{node.password}"
    management = node.management_url.replace("://", f"://{login}@") + f"?vhost={house.vhost}"
    broker = house.url if url is None else url
    return databases | {"RABBITMQ_URL": broker, "RABBITMQ_MANAGEMENT_URL": management}


async def run(house: Theatre, *words: str, url: str | None = None) -> Said:
    """Run `saga` as an operator does; one at a time, for it is in this program, which is quicker."""
    known = environment(house, url)
    done = await asyncio.to_thread(lambda: CliRunner().invoke(app, words, env=known))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return Said(done.exit_code, done.stdout, done.stderr)


async def run_alone(house: Theatre, *words: str, program: tuple[str, ...] = ("-m", "ops")) -> Said:
    """Run `saga` as a program of its own, which may die."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *program,
        *words,
        cwd=ROOT,
        env=os.environ | environment(house),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return Said(process.returncode, out.decode(), err.decode())


async def park(here: Visit, service: str, pay: Pay) -> None:
    """Put the saga's command where its service parks it, signed as it signs."""
    user = here.theatre.broker.user
    await here.publish(
        topology.parked_queue(service),
        pay,
        exchange=topology.RECOVERY,
        headers={
            "x-type": saga.FIRST.on,
            "x-attempt": 3,
            "x-reason": "dead_letter_failed",
            "x-detail": "\u202eboom",
        },
        user_id=user,
        message_id=f"m-{pay.payment_id}",
    )


async def acts(house: Theatre, pay: Pay) -> list[Entry]:
    """What operators did to a payment, as the history tells."""
    async with aclosing(records(house.url, about=pay.payment_id)) as told:
        return [
            entry
            async for record in told
            for entry in record.entries
            if record.service == "operator" and entry.saga == pay.payment_id
        ]


async def test_a_parked_conflict_is_listed_shown_and_discarded_with_a_reason(here: Visit, house: Theatre) -> None:
    """The whole walk of an operator: what is it, what does it say, away with it; and who did that, and why."""
    (pay,) = await here.paying()
    await here.send(pay)
    await here.completed(pay)
    other = pay.model_copy(update={"amount": pay.amount + 1})
    await here.publish(saga.FIRST.on, other)
    await here.hears(pay.payment_id, "payment.rejected")
    await eventually(lambda: here.copy(pay.payment_id, "payment.parked"))

    listed = await run(house, "parked", "list", "--service", "payment", "--json")
    assert listed.code == 0, listed
    groups = {(group["service"], group["reason"]): group["count"] for group in listed.json["groups"]}
    assert groups["payment", "idempotency_conflict"] >= 1
    (letter,) = [letter for letter in listed.json["letters"] if letter["saga"] == pay.payment_id]

    (masked,) = (await run(house, "parked", "show", pay.payment_id, "--json")).json["letters"]
    plain = {"payment_id": pay.payment_id, "reservation_id": pay.reservation_id, "amount": other.amount}
    hidden = {name: masked["body"][name] for name in ("user_id", "token")}
    assert masked["body"] == plain | hidden | {"expires_at": None}
    assert all(mask.startswith("***") for mask in hidden.values())
    assert masked["headers"]["x-reason"] == "idempotency_conflict"
    shown = await run(house, "parked", "show", letter["id"][:8])
    assert pay.user_id not in shown.out
    assert "idempotency_conflict" in shown.out

    replayed = await run(house, "parked", "replay", pay.payment_id, "--yes", "--force", "--json")
    assert (replayed.code, replayed.outcomes) == (1, ["refused"])
    dry = await run(house, "parked", "discard", pay.payment_id, "--why", "typed twice", "--json")
    assert (dry.code, dry.outcomes) == (0, ["would_be_done"])
    assert letter["id"] in parked(house, "payment")

    gone = await run(
        house, "parked", "discard", pay.payment_id, "--why", "typed twice", "--by", "kim", "--yes", "--json"
    )
    assert (gone.code, gone.outcomes) == (0, ["done"])
    assert letter["id"] not in parked(house, "payment")
    (act,) = await acts(house, pay)
    assert (act.type, act.by, act.why, act.reason) == ("discard", "kim", "typed twice", "idempotency_conflict")
    (listed_act,) = (await run(house, "acts", "--saga", pay.payment_id, "--json")).json["acts"]
    assert (listed_act["by"], listed_act["act"], listed_act["why"]) == ("kim", "discard", "typed twice")
    (told,) = [copy for copy in here.copies if copy.key == "operator.history" and pay.payment_id in str(copy.raw)]
    assert json.loads(told.body["kept"]["body"]) == json.loads(other.encode())
    assert (await run(house, "parked", "show", pay.payment_id)).code == 1


def parked(house: Theatre, service: str) -> list[str]:
    """Ids of what lies in a service's parked queue, as the management UI shows them."""
    return [letter["properties"].get("message_id") for letter in house.peek(topology.parked_queue(service))]


async def test_looking_takes_nothing_away_and_says_what_it_did_not_see(here: Visit, house: Theatre) -> None:
    """A queue is looked at a hundred times before somebody decides; its order stays, and so does all in it."""
    pays = [here.pay() for _ in range(12)]
    for pay in pays:
        await park(here, "notify", pay)
    before: list[str] = []
    # The first look settles the order, which a look in the management UI changes.
    for _ in range(3):
        looked = (await run(house, "parked", "list", "--service", "notify", "--json")).json
        assert looked["not_looked_at"] == {}
        seen = [letter["id"] for letter in looked["letters"]]
        assert len(seen) >= len(pays)
        assert seen == (before or seen)
        before = seen
    part = await run(house, "parked", "list", "--service", "notify", "--limit", "3")
    assert f"{len(before) - 3} more in notify.parked were not looked at" in part.err
    assert "\u202e" not in part.out
    assert sorted(parked(house, "notify")) == sorted(before)
    house.api("DELETE", "/api/queues/{v}/notify.parked/contents")


async def test_of_two_operators_one_replays_a_letter(here: Visit, house: Theatre) -> None:
    """Whoever holds the letter acts on it; the other one finds none, and nothing happens twice."""
    (pay,) = await here.paying()
    await park(here, "payment", pay)
    order = ("parked", "replay", f"m-{pay.payment_id}", "--service", "payment", "--yes", "--json")
    both = await asyncio.gather(*(run_alone(house, *order) for _ in range(2)))
    outcomes = sorted(outcome for said in both for outcome in said.outcomes)
    assert outcomes in (["done"], ["done", "refused"]), both
    await here.completed(pay)
    assert f"m-{pay.payment_id}" not in parked(house, "payment")
    assert [act.type for act in await acts(house, pay)] == ["replay"]


async def test_a_login_that_may_not_put_its_acts_on_record_changes_nothing(here: Visit, house: Theatre) -> None:
    """Who may read the letters, and no more, cannot send one back without anybody knowing."""
    (pay,) = await here.paying()
    await park(here, "payment", pay)
    name = f"operator-{here.mark}"
    place = urlsplit(house.url)
    url = place._replace(netloc=f"{name}:secret@{place.hostname}:{place.port}").geturl()
    rights = {"configure": "", "write": "", "read": ".*"}
    order = ("parked", "replay", pay.payment_id, "--service", "payment", "--yes")
    try:
        house.api("PUT", f"/api/users/{name}", {"password": "secret", "tags": ""})
        house.api("PUT", f"/api/permissions/{{v}}/{name}", rights)
        refused = await run(house, *order, url=url)
        assert refused.code == 2, refused
        assert "does not allow this" in refused.err
        assert f"m-{pay.payment_id}" in parked(house, "payment")
        house.api("PUT", f"/api/permissions/{{v}}/{name}", rights | {"write": topology.RECOVERY})
        assert (await run(house, *order, url=url)).code == 0
    finally:
        house.api("DELETE", f"/api/users/{name}")
    await here.completed(pay)


async def test_what_is_about_a_person_is_shown_to_whoever_puts_that_on_record(here: Visit, house: Theatre) -> None:
    """The user can be asked for by name one day who looked at their payments, and why."""
    (pay,) = await here.paying()
    await park(here, "payment", pay)
    show = ("parked", "show", pay.payment_id, "--service", "payment", "--json")
    assert (await run(house, *show, "--reveal")).code == 2, "without a reason"
    assert await acts(house, pay) == []
    masked = await run(house, *show)
    assert pay.user_id not in masked.out
    assert pay.token not in masked.out
    assert await acts(house, pay) == []
    seen = await run(house, *show, "--reveal", "--why", "ticket 7", "--by", "kim")
    assert seen.code == 0, seen
    assert seen.json["letters"][0]["body"]["user_id"] == pay.user_id
    (act,) = await acts(house, pay)
    assert (act.type, act.by, act.why) == ("reveal", "kim", "ticket 7")
    told = await run(house, "acts", "--saga", pay.payment_id)
    assert [line.split("\t")[1:4] for line in told.out.splitlines()[1:]] == [["kim", "reveal", pay.payment_id]]
    assert f"m-{pay.payment_id}" in parked(house, "payment"), "looking takes nothing away"
    assert (await run(house, *show[:-1], "--reveal", "--why", "ticket 7")).code == 0
    await run(house, "parked", "replay", pay.payment_id, "--service", "payment", "--yes")
    await here.completed(pay)


async def test_an_audit_is_put_on_record_with_what_it_found(here: Visit, house: Theatre) -> None:
    """Whoever asks later whether anybody looked after the accident is told who did, and what they saw."""
    (pay,) = await here.paying()
    await here.send(pay)
    await here.completed(pay)
    why = f"after the crash {here.mark}"
    audited = await run(house, "audit", "--by", "kim", "--why", why, "--json")
    assert audited.code in {0, 1}, audited
    assert audited.json["recorded"] is True
    found = (await run(house, "acts", "--by", "kim", "--json")).json["acts"]
    (act,) = [it for it in found if it["why"] == why]
    assert act["act"] == "audit"
    assert act["found"] == ("clean" if audited.json["clean"] else "violations")
    assert "saga" in act["detail"]


async def test_an_audit_without_a_broker_counts_all_the_same(house: Theatre) -> None:
    """It is needed most where much is broken; and it says at once that nobody will know of it."""
    (port,) = free_ports(1)
    audited = await run(house, "audit", "--json", url=f"amqp://kim:secret@127.0.0.1:{port}/")
    assert audited.code in {0, 1}, audited
    assert audited.json["recorded"] is False
    assert "No broker answers" in audited.err
    assert "secret" not in audited.err
    alone = await run(house, "audit", "--json", url="")
    assert "nobody says which broker" in alone.err


async def test_the_broker_tells_in_whose_name_a_letter_goes_back(house: Theatre) -> None:
    """What is signed by another user than the one that consumes was not put there by the service."""
    node = house.broker
    url = node.management_url.replace("://", f"://{node.user}:{node.password}@") + f"?vhost={house.vhost}"

    async def all_told() -> None:
        assert await users.of_services(url) == dict.fromkeys(saga.SERVICES, node.user)

    await eventually(all_told)
    assert await users.of_services(None) == {}


async def test_what_was_done_before_the_broker_went_away_is_told(
    here: Visit, house: Theatre, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of an order is done: the operator must know which half, and of which one nobody knows."""
    pays = await here.paying(3)
    for pay in pays:
        await park(here, "payment", pay)
    replay, replayed = Desk.replay, []

    async def replay_one(self: Desk, drawer: Drawer, letter: Letter, *rest: Any, **named: Any) -> Outcome:  # noqa: ANN401
        replayed.append(letter.key)
        if len(replayed) > 1:
            raise ConnectionResetError
        return await replay(self, drawer, letter, *rest, **named)

    order = ("parked", "replay", "--reason", "dead_letter_failed", "--service", "payment", "--yes", "--json")
    with monkeypatch.context() as patch:
        patch.setattr(Desk, "replay", replay_one)
        said = await run(house, *order)
    assert said.code == 2, said
    assert "went away" in said.err
    assert said.outcomes == ["done", "not_done", "not_done"]
    whys = [letter["because"] for letter in said.json["letters"]]
    assert whys[1].startswith("nobody knows")
    assert whys[2].startswith("nothing was done")
    assert (await run(house, *order)).outcomes == ["done", "done"]
    await here.completed(*pays)


@pytest_asyncio.fixture
async def vacant(empty: Theatre) -> AsyncIterator[Visit]:
    """All objects of the broker, and no service that takes anything out of them."""
    async with bus.open_session(empty.url, "point") as session:
        await session.declare(topology.derive(Settings().retry_delays))
    # No observer: it would hear all, so whatever is published would find a queue.
    async with await aio_pika.connect(empty.url) as connection:
        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        yield Visit(empty, "vacant", channel, await channel.get_exchange(topology.EVENTS))


async def test_what_cannot_be_put_on_record_stays_masked(vacant: Visit, empty: Theatre) -> None:
    """A history that takes nothing must not be the way to look unseen; for a night without one there is a word."""
    pay = vacant.pay()
    await park(vacant, "payment", pay)
    binding = f"/api/bindings/{{v}}/e/{topology.RECOVERY}/q/{topology.HISTORY}"
    show = ("parked", "show", pay.payment_id, "--service", "payment", "--reveal", "--why", "ticket 7", "--json")
    empty.api("DELETE", f"{binding}/{topology.history_key('operator')}")
    refused = await run(empty, *show)
    assert refused.code == 1, refused
    assert pay.user_id not in refused.out
    assert "does not keep who does it" in refused.err
    seen = await run(empty, *show, "--unrecorded")
    assert seen.json["letters"][0]["body"]["user_id"] == pay.user_id
    empty.api("POST", binding, {"routing_key": topology.history_key("operator"), "arguments": {}})
    assert (await run(empty, *show)).code == 0
    assert [act.type for act in await acts(empty, pay)] == ["reveal"]


async def test_what_the_broker_gave_up_on_goes_back_as_it_was(vacant: Visit, empty: Theatre) -> None:
    """It is signed by the stranger who published it: nobody writes another one, and its type is not lost."""
    gift = TopUp(top_up_id="u-1", user_id="kim", amount=5)
    await vacant.publish("point.top_up", gift, expiration=0.001)
    await eventually(lambda: empty.peek("point.dead"))
    (letter,) = (await run(empty, "dead", "show", "u-1", "--json")).json["letters"]
    assert (letter["type"], letter["killed"]) == ("point.top_up", True)
    done = await run(empty, "dead", "replay", "u-1", "--force", "--yes", "--json")
    assert (done.code, done.outcomes) == (0, ["done"])
    await eventually(lambda: empty.peek("point.events"))
    assert empty.peek("point.dead") == []
    (back,) = empty.peek("point.events")
    assert back["routing_key"] == topology.replay_key("point")
    assert json.loads(back["payload"]) == json.loads(gift.encode())
    headers = back["properties"]["headers"]
    origin = recovery.provenance(
        "point", empty.broker.user, routing_key=back["routing_key"], user_id=None, headers=headers
    )
    # Nothing is left of its past but that it may be what kills the service.
    assert (origin.type, origin.history.attempts, origin.history.is_suspect) == ("point.top_up", 0, True)


async def test_a_queue_of_an_older_version_is_known_as_one_that_loses_what_is_rejected(empty: Theatre) -> None:
    """Its letters have no way back: to reject one there would throw it away."""
    node = empty.broker
    url = node.management_url.replace("://", f"://{node.user}:{node.password}@") + f"?vhost={empty.vhost}"
    async with bus.open_session(empty.url, "point") as session:
        await session.declare(topology.derive(Settings().retry_delays))
    assert await users.without_a_way_back(url) == frozenset()
    empty.api("DELETE", "/api/queues/{v}/point.parked")
    old = {"durable": True, "arguments": {"x-queue-type": "quorum"}}
    empty.api("PUT", "/api/queues/{v}/point.parked", old)
    assert await users.without_a_way_back(url) == {"point.parked"}


async def test_without_the_history_nothing_is_done_unless_that_is_said(vacant: Visit, empty: Theatre) -> None:
    """An act that nobody keeps is done by nobody; who must act all the same says so, and throws nothing away."""
    pay = vacant.pay()
    await park(vacant, "payment", pay)
    empty.api("DELETE", f"/api/queues/{{v}}/{topology.HISTORY}")
    listed = await run(empty, "parked", "replay", pay.payment_id, "--json")
    assert listed.outcomes == ["refused"]
    assert "The history cannot be asked either" in listed.err
    order = ("parked", "replay", pay.payment_id, "--force", "--yes", "--json")
    unkept = await run(empty, *order)
    assert (unkept.code, unkept.outcomes) == (1, ["not_done"])
    assert "does not keep who does it" in unkept.json["letters"][0]["because"]
    assert len(parked(empty, "payment")) == 1
    assert empty.peek("payment.events") == []
    assert (await run(empty, *order, "--unrecorded")).code == 2, "it has to say why"
    replayed = await run(empty, *order, "--unrecorded", "--why", "the stream is gone")
    assert (replayed.code, replayed.outcomes) == (0, ["done"])
    await eventually(lambda: empty.peek("payment.events"))
    await park(vacant, "notify", pay)
    away = await run(empty, "parked", "discard", pay.payment_id, "--why", "not its", "--yes", "--json")
    assert (away.code, away.outcomes) == (1, ["not_done"])
    assert len(parked(empty, "notify")) == 1


@pytest.fixture(scope="module")
def broken(node: PrivateBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Theatre]:
    """Services of which point fails on every payment, and can decide no dead letter either, until `mend`."""
    home = tmp_path_factory.mktemp("broken")
    (home / "sitecustomize.py").write_text(BREAKS)
    with theatre(node, home) as opened:
        opened.start("payment", "reservation", "queue", "notify", ready=False)
        opened.start("point", PYTHONPATH=f"{home}:{ROOT}", BROKEN=str(home / "is-broken"), ready=False)
        opened.stack.wait_ready()
        yield opened


@pytest_asyncio.fixture
async def stuck(broken: Theatre) -> AsyncIterator[tuple[Visit, Pay]]:
    """A payment that is parked in the point service because its handler failed; the cause is mended."""
    fault = broken.home / "is-broken"
    async with visit(broken) as here:
        (pay,) = await here.paying()
        fault.touch()
        await here.send(pay)
        await here.recovers(pay.payment_id, "point.parked")
        await eventually(lambda: parked(broken, "point"))
        fault.unlink()
        yield here, pay
        await here.settled()


async def test_a_letter_whose_handler_failed_is_replayed_and_its_saga_completes(
    stuck: tuple[Visit, Pay], broken: Theatre
) -> None:
    """The baton lies in the parked queue: it may not be thrown away, and brought back it goes on as if new."""
    here, pay = stuck
    refused = await run(broken, "parked", "discard", pay.payment_id, "--why", "away", "--yes", "--json")
    assert (refused.code, refused.outcomes) == (1, ["refused"])
    (letter,) = refused.json["letters"]
    assert "tear" in letter["because"]
    assert f"saga abort {pay.payment_id}" in letter["instead"]
    dry = await run(broken, "parked", "replay", "--reason", "dead_letter_failed", "--json")
    assert (dry.code, dry.outcomes) == (0, ["would_be_done"])
    assert len(parked(broken, "point")) == 1
    assert here.states(pay.payment_id)["point"] is None

    done = await run(
        broken, "parked", "replay", pay.payment_id, "--yes", "--by", "kim", "--why", "mended", "--json"
    )
    assert (done.code, done.outcomes) == (0, ["done"])
    await here.completed(pay)
    assert await depth(broken, "point.parked") == 0
    (act,) = await acts(broken, pay)
    assert (act.type, act.by, act.why) == ("replay", "kim", "mended")


async def test_a_replay_that_dies_before_its_end_leaves_the_letter_and_a_right_saga(
    stuck: tuple[Visit, Pay], broken: Theatre
) -> None:
    """It is on record and did not happen; the letter is where it was, and the next replay does it."""
    here, pay = stuck
    order = ("parked", "replay", pay.payment_id, "--yes", "--json")
    died = await run_alone(broken, *order, program=("-c", DIES_BEFORE_THE_END))
    assert died.code == -9, died
    await eventually(lambda: parked(broken, "point"))
    assert here.states(pay.payment_id)["point"] is None
    assert [act.type for act in await acts(broken, pay)] == ["replay"]
    again = await run(broken, *order)
    assert (again.code, again.outcomes) == (0, ["done"])
    await here.completed(pay)
    assert await depth(broken, "point.parked") == 0


async def test_a_letter_of_a_settled_saga_is_refused_and_forced_does_nothing_twice(
    stuck: tuple[Visit, Pay], broken: Theatre
) -> None:
    """Its command was sent once more and walked the saga on: the letter is only a repetition now."""
    here, pay = stuck
    await here.send(pay)
    await here.completed(pay)
    order = ("parked", "replay", pay.payment_id, "--yes", "--json")
    again = await run(broken, *order)
    assert (again.code, again.outcomes) == (1, ["refused"])
    assert again.json["letters"][0]["verdict"] == "settled"
    said = here.events(pay.payment_id).count("point.deducted")
    forced = await run(broken, *order, "--force")
    assert (forced.code, forced.outcomes) == (0, ["done"])
    # It was absorbed: the service said again what it said, and took no points again.
    await here.hears(pay.payment_id, "point.deducted", times=said + 1)
    await here.completed(pay)
    assert await depth(broken, "point.parked") == 0
