"""Ending a saga by hand: the holder of the baton is given a dead letter, and what it makes of it is told.

The databases say best who holds the baton, and what the message was that it waits for; without them the history
says the first, and the operator has to say the second. Whatever they say may be old when the letter arrives. That
does no harm: a service that has done its part does nothing about a dead letter.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from common import history, saga, topology
from common.history import Became, Entry
from common.recovery import Deed
from common.telemetry import next_traceparent
from ops import where
from ops.acting import letter
from ops.acting.ending import Ending, Outcome, told_by
from ops.acting.fate import Aborted, Fate, Order
from ops.acting.letter import Act, Holder
from ops.acting.line import Heard, Line, open_line
from ops.acting.past import Past, past_of
from ops.acting.telling import sentence
from ops.audit.reading import open_books
from ops.output import CannotLookError, waiting
from ops.story.reading import records

#: How far the clocks of this machine and of the services may differ.
_SKEW = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class _Found:
    """What is known of a saga: who holds its baton, and the message that the holder waits for."""

    holder: Holder | None
    forward: bytes | None = None


async def abort(order: Order) -> Aborted:
    """Do what the order says; raises CannotLookError, or SlipError for fields that cannot be meant."""
    past = None
    with contextlib.suppress(CannotLookError):
        past = await past_of(order.saga_id, since=order.since)
    found = await _find(order, past)
    holder = letter.choose(found.holder, order.service)
    if holder.service is None:
        return Aborted(order, holder, Fate.REFUSED, holder.why)
    body = found.forward or _from_fields(order, holder.service)
    letter.read_forward(holder.service, body)
    on = saga.step_of(holder.service).on
    if not order.really:
        return Aborted(
            order, holder, Fate.WOULD_SEND, f"{holder.service} would be given a dead letter of its {on}"
        )
    act = Act(
        saga_id=order.saga_id,
        service=holder.service,
        by=order.by,
        why=order.why,
        trace=next_traceparent(past.trace(on) if past else None),
        attempts=past.attempts(holder.service) if past else 0,
        at=datetime.now(UTC),
    )
    return await _send(order, holder, act, body)


async def _find(order: Order, past: Past | None) -> _Found:
    try:
        return await _ask_databases(order.saga_id)
    except CannotLookError as no_databases:
        if past is None and order.service is None:
            raise CannotLookError(
                f"Who holds the baton can be asked neither of the history nor of the databases ({no_databases}). "
                "If you know it, say --service"
            ) from no_databases
    if past is None:
        return _Found(None)
    standing = past.standing()
    if standing is None:
        return _Found(letter.unheard_by(order.saga_id, letter.HISTORY))
    return _Found(letter.holder_by_history(order.saga_id, standing))


async def _ask_databases(saga_id: str) -> _Found:
    async with open_books(where.databases_of_the_broker()) as books:
        known = await books.pick([saga_id])
        states = {service: known[0].state(service) if known else None for service in saga.SERVICES}
        payment = known[0].payment if known else None
        holder = letter.holder_by_rows(saga_id, states, payment.state if payment else None)
        if holder.service in {None, saga.FIRST.service}:
            return _Found(holder)
        step = saga.step_of(str(holder.service))
        before = saga.SAGA[saga.SAGA.index(step) - 1]
        said = await books.answer(before.service, saga_id)
    if said is None or said[0] != step.on:
        return _Found(Holder(None, f"{before.service} does not say {step.on} of {saga_id}", holder.told_by))
    return _Found(holder, said[1].encode())


def _from_fields(order: Order, service: str) -> bytes:
    if order.fields is None:
        raise CannotLookError(
            f"The message that {service} waits for cannot be read in the databases. Name them with "
            "DATABASE_URL_<SERVICE>, or write the message: --user, --reservation, --token, --amount"
        )
    return letter.made_up(service, dict(order.fields) | {"payment_id": order.saga_id}, datetime.now(UTC))


async def _send(order: Order, holder: Holder, act: Act, body: bytes) -> Aborted:
    outcome = Outcome(order.saga_id)
    async with open_line() as line:
        await line.listen(told_by(saga.FIRST.on))
        recorded = await _record(line, act, unrecorded=order.unrecorded)
        try:
            await line.publish(
                topology.RECOVERY,
                topology.abort_key(act.service),
                body,
                about=order.saga_id,
                headers=act.headers(),
            )
        except CannotLookError:
            if recorded:
                await _record(line, act, unrecorded=True, in_vain=True)
            raise
        with waiting(f"{order.saga_id}: a dead letter for {act.service}"):
            became = await _wait(line, outcome, act, order.seconds)
    return _conclude(order, holder, outcome, became)


async def _record(line: Line, act: Act, *, unrecorded: bool, in_vain: bool = False) -> bool:
    """Tell the history of an act; whether it confirms. Raises CannotLookError unless it may stay `unrecorded`."""
    key = topology.history_key(history.OPERATOR)
    try:
        await line.publish(topology.RECOVERY, key, act.record(in_vain=in_vain), about=act.saga_id)
    except CannotLookError as error:
        if unrecorded:
            return False
        raise CannotLookError(
            f"The history does not keep who does this, and why, so it is not done ({error}). --unrecorded does it "
            "all the same"
        ) from error
    return True


async def _wait(line: Line, outcome: Outcome, act: Act, seconds: float) -> Entry | None:
    """Hear of the saga until it is over; what the service did with the letter, if that did not end the saga."""

    def enough(heard: Heard) -> bool:
        outcome.hear(heard.type, heard.body)
        return outcome.is_over

    hearing = asyncio.ensure_future(line.hear_until(enough, seconds=seconds))
    reading = asyncio.ensure_future(_unmoved(act))
    try:
        await asyncio.wait({hearing, reading}, return_when=asyncio.FIRST_COMPLETED)
        if reading.done() and not hearing.done() and (reading.exception() or reading.result() is None):
            await hearing  # the history does not say; the saga itself will
        if hearing.done():
            hearing.result()
            return None
        return reading.result()
    finally:
        for task in (hearing, reading):
            task.cancel()
        await asyncio.gather(hearing, reading, return_exceptions=True)


async def _unmoved(act: Act) -> Entry | None:
    """What the service tells the history, if the letter did not end the saga."""
    async for record in records(since=act.at - _SKEW, follow=True, about=act.saga_id):
        for entry in record.entries if record.service == act.service else ():
            # The letter's place in the trace is its own.
            if entry.trace == act.trace and entry.became != Became.RETRY:
                return None if entry.deed == Deed.FAILED else entry
    return None


def _conclude(order: Order, holder: Holder, outcome: Outcome, unmoved: Entry | None) -> Aborted:
    service = holder.service
    if outcome.failed is not None:
        if outcome.failed.reason == letter.ABORTED:
            return Aborted(order, holder, Fate.ABORTED, outcome.failed.detail, outcome)
        return Aborted(order, holder, Fate.FAILED_OTHERWISE, sentence(outcome), outcome)
    if outcome.ending is Ending.COMPLETED:
        return Aborted(
            order, holder, Fate.HAD_ACTED, f"{service} had acted before, and now it is completed", outcome
        )
    if unmoved is None:
        why = (
            f"{service} has the letter in its queue and did not answer within {order.seconds:.0f} s. If it does "
            "not run, the letter waits for it; if it had acted before, nothing happens. "
            f"`saga show {order.saga_id}` tells which"
        )
        return Aborted(order, holder, Fate.UNANSWERED, why, outcome)
    if unmoved.became == Became.PARKED:
        why = (
            f"{service} did not take the letter ({unmoved.reason}: {unmoved.detail}); it is parked now. A service "
            "lets an operator end a saga, and no other service: log in as one with RABBITMQ_URL"
        )
        return Aborted(order, holder, Fate.NOT_BELIEVED, why, outcome)
    why = f"{service} had acted before the letter came, so nothing happened; the baton went on. Try again"
    return Aborted(order, holder, Fate.HAD_ACTED, why, outcome)
