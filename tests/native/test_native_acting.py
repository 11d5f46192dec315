"""The `saga` command acts on five running services: it pays, tells endings, and aborts before the pivot only."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock
from urllib.parse import urlsplit

import pytest

from common import history, saga, topology
from common.messages import Pay
from ops.app import run
from ops.output import Exit
from ops.story.reading import records
from tests.support.eventually import eventually
from tests.support.saga import FILLED, PRICE, Theatre, Visit, theatre
from tools.broker import PrivateBroker

pytestmark = pytest.mark.broker

NOWHERE = {f"DATABASE_URL_{service.upper()}": "sqlite:///nowhere" for service in saga.SERVICES}


@pytest.fixture(scope="module")
def house(node: PrivateBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Theatre]:
    """Services that try again after ten minutes only: what fails at one of them stays there."""
    with theatre(node, tmp_path_factory.mktemp("patient"), RETRY_DELAYS="10m") as opened:
        opened.start(sabotaged=True)
        yield opened


@dataclass(frozen=True, slots=True)
class Left:
    """What a command left with: its code, its document if it told one, and what it warned of."""

    code: int
    told: dict[str, Any]
    warned: str


async def command(house: Theatre, *words: str, environment: Mapping[str, str] | None = None) -> Left:
    """Run `saga` as an operator's program does, but in this process: to start one costs more than a command."""
    out, err = io.StringIO(), io.StringIO()

    def act() -> int:
        try:
            run([*words, "--json"])
        except SystemExit as left:
            return int(left.code or 0)
        raise AssertionError("a command leaves with an exit code")

    with (
        mock.patch.dict(os.environ, surroundings(house) | dict(environment or {})),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code = await asyncio.to_thread(act)
    return Left(code, json.loads(out.getvalue()) if out.getvalue() else {}, err.getvalue())


def surroundings(house: Theatre) -> dict[str, str]:
    """The environment of an operator who works on these services."""
    databases = {f"DATABASE_URL_{name.upper()}": url for name, url in house.stack.database_urls().items()}
    return {"RABBITMQ_URL": house.url} | databases


def options(pay: Pay) -> list[str]:
    """The fields of a payment as options."""
    fields = {"user": pay.user_id, "reservation": pay.reservation_id, "token": pay.token, "amount": pay.amount}
    return [f"--{name}={value}" for name, value in fields.items()]


async def test_a_payment_is_made_by_hand_and_waited_for(house: Theatre, here: Visit) -> None:
    """Four commands, each answered: this is the first thing a new operator does, and the last a demo needs."""
    pay = here.pay()
    held = await command(
        house, "hold", f"--id={pay.reservation_id}", f"--user={pay.user_id}", f"--seat={pay.reservation_id}",
        f"--price={PRICE}", "--held-until=1h", "--wait",
    )  # fmt: skip
    given = await command(house, "top-up", f"--user={pay.user_id}", f"--amount={FILLED}", "--wait")
    entered = await command(house, "enter", f"--token={pay.token}", f"--user={pay.user_id}", "--wait")
    assert [left.code for left in (held, given, entered)] == [0, 0, 0], (held, given, entered)
    assert given.told["answer"]["balance"] == FILLED
    done = await command(house, "pay", f"--id={pay.payment_id}", *options(pay), "--wait")
    assert (done.code, done.told["ending"]) == (Exit.OK, "completed")
    await here.completed(pay)
    event = here.event(pay.payment_id, "payment.completed")
    assert event
    assert event.headers["traceparent"].split("-")[1] == done.told["trace_id"]


async def test_whoever_asks_again_is_told_the_same_and_other_content_is_refused(
    house: Theatre, here: Visit
) -> None:
    """The id is the idempotency key: a client that lost the answer asks without fear."""
    (pay,) = await here.paying()
    await here.send(pay)
    await here.completed(pay)
    again = await command(house, "outcome", pay.payment_id, *options(pay))
    assert (again.code, again.told["ending"]) == (Exit.OK, "completed")
    said = here.events(pay.payment_id).count(saga.COMPLETED)
    by_id = await command(house, "outcome", pay.payment_id)
    assert (by_id.code, by_id.told["ending"]) == (Exit.OK, "completed")
    assert (by_id.told["told_by"], by_id.told["content_from"]) == ("services", "databases")
    await here.hears(pay.payment_id, saga.COMPLETED, times=said + 1)
    past = await command(house, "outcome", pay.payment_id, environment=NOWHERE)
    assert (past.code, past.told["ending"], past.told["told_by"]) == (Exit.OK, "completed", "history")
    assert "Nobody is asked again" in past.warned
    dearer = pay.model_copy(update={"amount": PRICE + 1})
    other = await command(house, "pay", f"--id={pay.payment_id}", *options(dearer), "--wait")
    assert (other.code, other.told["ending"]) == (Exit.NEGATIVE, "rejected")
    assert other.told["reason"] == "idempotency_conflict"
    nobody = await command(house, "outcome", f"{here.mark}-nobody")
    assert (nobody.code, nobody.told["ending"]) == (Exit.NEGATIVE, None)


async def test_a_refusal_is_told_with_its_reason_once_all_is_undone(house: Theatre, here: Visit) -> None:
    """The person who pays is told why, and when it is said to be over nothing of it is left."""
    pay = here.pay()
    await here.prepare(pay, wallet=1)
    refused = await command(house, "pay", f"--id={pay.payment_id}", *options(pay), "--wait")
    assert refused.code == Exit.NEGATIVE
    assert (refused.told["ending"], refused.told["failed_in"]) == ("failed", "point")
    assert (refused.told["reason"], refused.told["undone"]) == ("balance_too_low", ["payment", "reservation"])
    await here.undone(pay, at="point", reason="balance_too_low")
    again = await command(house, "outcome", pay.payment_id, *options(pay))
    by_id = await command(house, "outcome", pay.payment_id)
    past = await command(house, "outcome", pay.payment_id, environment=NOWHERE)
    assert [left.told["told_by"] for left in (again, by_id, past)] == ["services", "services", "history"]
    for left in (again, by_id, past):
        assert (left.code, left.told["failed_in"]) == (Exit.NEGATIVE, "point")
        assert left.told["reason"] == "balance_too_low"


async def test_an_id_alone_asks_with_the_deadline_that_its_command_named(house: Theatre, here: Visit) -> None:
    """The same id with other content would be parked: a deadline is repeated if, and only if, it was sent."""
    for expires_at in (None, datetime.now(UTC) + timedelta(minutes=7)):
        (pay,) = await here.paying()
        sent = pay.model_copy(update={"expires_at": expires_at})
        await here.send(sent)
        await here.completed(sent)
        by_id = await command(house, "outcome", pay.payment_id)
        assert (by_id.code, by_id.told["ending"]) == (Exit.OK, "completed"), by_id
        assert by_id.told["content_from"] == "databases"


async def test_who_was_refused_at_once_is_told_by_the_databases(house: Theatre, here: Visit) -> None:
    """Of such a command nothing is kept but the answer; nobody is asked, and the answer says so."""
    pay = here.pay().model_copy(update={"expires_at": datetime.now(UTC) - timedelta(minutes=1)})
    await here.send(pay)
    await here.hears(pay.payment_id, "payment.failed")
    left = await command(house, "outcome", pay.payment_id)
    assert (left.code, left.told["told_by"], left.told["ending"]) == (Exit.NEGATIVE, "databases", "failed")
    assert (left.told["failed_in"], left.told["reason"]) == ("payment", "deadline_passed")


async def _stuck_at_point(house: Theatre, here: Visit) -> Pay:
    (pay,) = await here.paying()
    house.faults("point").make(raises=[f"reservation.confirmed:{pay.payment_id}"])
    await here.send(pay)
    await here.recovers(pay.payment_id, "point.retry.10m")
    # A record leaves a moment after what it tells of, and an act takes attempts and traces from the history.
    await eventually(lambda: _told_of_its_retry(house, pay.payment_id))
    return pay


async def _told_of_its_retry(house: Theatre, saga_id: str) -> bool:
    return history.Became.RETRY in [entry.became for _, entry in await _entries(house, saga_id)]


async def test_a_payment_that_does_not_end_in_time_is_told_and_asking_again_walks_it_on(
    house: Theatre, here: Visit
) -> None:
    """Its message waits for ten minutes; the one that is said again for whoever asks finds the service mended."""
    pay = await _stuck_at_point(house, here)
    late = await command(house, "outcome", pay.payment_id, *options(pay), "--timeout=0.5")
    assert (late.code, late.told["ending"]) == (Exit.NEGATIVE, "under way")
    house.faults("point").mend()
    done = await command(house, "outcome", pay.payment_id, *options(pay))
    assert (done.code, done.told["ending"]) == (Exit.OK, "completed")
    await here.completed(pay)


@pytest.mark.parametrize("sources", ["databases", "history"])
async def test_an_aborted_saga_is_undone_and_the_history_says_who_did_it(
    sources: str, house: Theatre, here: Visit
) -> None:
    """A service that cannot be mended today must not hold somebody's points; who stopped it is on record."""
    pay = await _stuck_at_point(house, here)
    order = ["abort", pay.payment_id, "--why=point is broken", "--by=kim"]
    environment = NOWHERE if sources == "history" else {}
    if sources == "history":
        lacking = await command(house, *order, "--yes", environment=environment)
        assert (lacking.code, lacking.told) == (Exit.COULD_NOT_LOOK, {})
        assert "--reservation" in lacking.warned
        order += options(pay)
    done = await command(house, *order, "--yes", environment=environment)
    assert (done.code, done.told["fate"]) == (Exit.OK, "aborted"), done
    assert (done.told["service"], done.told["undone"]) == ("point", ["payment", "reservation"])
    await here.undone(pay, at="point", reason="aborted")
    failed = here.event(pay.payment_id, "point.failed")
    assert failed
    assert (failed.body["attempts"], "kim" in failed.raw.decode()) == (1, False)
    sent, said = (here.event(pay.payment_id, key) for key in ("payment.paid", "point.failed"))
    assert sent
    assert said
    assert sent.headers["traceparent"].split("-")[1] == said.headers["traceparent"].split("-")[1], "another trace"
    (entry,) = await _acts_on(house, pay.payment_id)
    assert (entry.type, entry.by, entry.why) == ("abort", "kim", "point is broken")
    again = await command(house, *order, "--yes", environment=environment)
    assert (again.code, again.told["fate"]) == (Exit.NEGATIVE, "refused")
    assert "over already" in again.told["detail"]


async def _acts_on(house: Theatre, saga_id: str) -> list[history.Entry]:
    """What operators did to a saga, as the stream tells it."""
    return [entry for service, entry in await _entries(house, saga_id) if service == history.OPERATOR]


async def _entries(house: Theatre, saga_id: str) -> list[tuple[str, history.Entry]]:
    """All that the stream tells of a saga, with who tells it."""
    return [
        (record.service, entry)
        async for record in records(house.url)
        for entry in record.entries
        if entry.saga == saga_id
    ]


async def test_an_abortion_that_cannot_be_put_on_record_is_not_done(house: Theatre, here: Visit) -> None:
    """Nobody would ever know who took a payment back; who must do it all the same has to say so."""
    pay = await _stuck_at_point(house, here)
    name, place = f"operator-{here.mark}", urlsplit(house.url)
    url = place._replace(netloc=f"{name}:secret@{place.hostname}:{place.port}").geturl()
    order = ["abort", pay.payment_id, "--why=trial", "--yes"]
    try:
        house.api("PUT", f"/api/users/{name}", {"password": "secret", "tags": ""})
        house.api("PUT", f"/api/permissions/{{v}}/{name}", {"configure": ".*", "write": ".*", "read": ".*"})
        topic = {"exchange": topology.RECOVERY, "write": "[.]abort$", "read": ".*"}
        house.api("PUT", f"/api/topic-permissions/{{v}}/{name}", topic)
        refused = await command(house, *order, environment={"RABBITMQ_URL": url})
        assert (refused.code, refused.told) == (Exit.COULD_NOT_LOOK, {})
        assert "--unrecorded" in refused.warned
        assert here.states(pay.payment_id)["point"] is None
        done = await command(house, *order, "--unrecorded", environment={"RABBITMQ_URL": url})
        assert (done.code, done.told["fate"]) == (Exit.OK, "aborted"), done
    finally:
        house.api("DELETE", f"/api/users/{name}")
    await here.undone(pay, at="point", reason="aborted")
    assert await _acts_on(house, pay.payment_id) == []


async def test_without_yes_an_abortion_is_only_told(house: Theatre, here: Visit) -> None:
    """What cannot be taken back is looked at first, and only the holder of the baton is given the letter."""
    pay = await _stuck_at_point(house, here)
    told = await command(house, "abort", pay.payment_id, "--why=trial")
    assert (told.code, told.told["fate"], told.told["service"]) == (Exit.OK, "would send", "point")
    other = await command(house, "abort", pay.payment_id, "--why=trial", "--yes", "--service=queue")
    assert (other.code, other.told["fate"]) == (Exit.NEGATIVE, "refused")
    house.faults("point").mend()
    # Its message goes round once more; a letter that had been sent would have been read long before the end.
    await here.send(pay)
    await here.completed(pay)
    assert not await _acts_on(house, pay.payment_id)


async def test_after_the_pivot_nothing_is_aborted(house: Theatre, here: Visit) -> None:
    """From there a saga only goes forward: a failure would take the seat back that was paid for."""
    (pay,) = await here.paying()
    await here.send(pay)
    await here.completed(pay)
    order = ["abort", pay.payment_id, "--why=trial", "--yes", *options(pay)]
    for left in (
        await command(house, *order),
        await command(house, *order, environment=NOWHERE),
        await command(house, *order, "--service=notify"),
    ):
        assert (left.code, left.told["fate"]) == (Exit.NEGATIVE, "refused"), left
        assert "only goes forward" in left.told["detail"]
    assert not await _acts_on(house, pay.payment_id)


async def test_a_letter_that_comes_too_late_does_nothing(house: Theatre, here: Visit) -> None:
    """Between look and letter the baton may move on; then the operator is told, and the payment stands."""
    (pay,) = await here.paying()
    await here.send(pay)
    await here.completed(pay)
    # Neither databases nor a history that goes back so far: only the operator's word, which is old.
    order = ["abort", pay.payment_id, "--why=trial", "--yes", "--service=point", *options(pay)]
    since = datetime.now(UTC) + timedelta(hours=1)
    late = await command(house, *order, f"--since={since.isoformat()}", environment=NOWHERE)
    assert (late.code, late.told["fate"]) == (Exit.NEGATIVE, "had acted"), late
    assert "point.failed" not in here.events(pay.payment_id)
    assert len(await _acts_on(house, pay.payment_id)) == 1
