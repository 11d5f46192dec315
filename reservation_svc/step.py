"""One batch of the reservation service: load what it touches, decide one message at a time, save what changed."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain

from common import db, rows
from common.barrier import Barrier
from common.messages import Body, Confirmed, Failed, Held, Hold, Message, Paid, Reverted, Settled
from common.reads import Reads
from common.recovery import Outcome
from common.rows import Writes
from common.unit_of_work import Batch
from reservation_svc import domain
from reservation_svc.domain import State
from reservation_svc.models import Reservation, Seat


async def handle(batch: Batch[Message], hold_for: timedelta) -> list[Outcome]:
    """Do a batch inside the transaction it is given. `hold_for`: how long a hold lasts that does not say."""
    work = await Work.load(batch, hold_for)
    outcomes = [work.decide(message) for message in batch.messages]
    work.save(batch.writes)
    return outcomes


@dataclass(frozen=True, slots=True)
class _Found:
    """Seats and reservations as the database has them; some may be there twice."""

    seats: Iterable[Seat]
    reservations: Iterable[Reservation]


def _ask(reads: Reads, ids: Collection[str], names: Collection[str]) -> _Found:
    """Ask for reservations and their seats, and for seats and the reservations that have them."""
    seats = reads.find(Seat, names), reads.find_through(Reservation, "seat", Seat, ids)
    reservations = reads.find(Reservation, ids), reads.find_through(Seat, "reservation_id", Reservation, names)
    return _Found(chain(*seats), chain(*reservations))


async def _lock(ids: Collection[str], names: Collection[str]) -> _Found:
    """The same, locked: seats first, then the reservations that are wanted or have them."""
    # A reservation never changes its seat, so this needs no lock.
    seats = await rows.find(Seat, {*names, *(it.seat for it in await rows.find(Reservation, ids))}, lock=True)
    holders = {seat.reservation_id for seat in seats if seat.reservation_id}
    return _Found(seats, await rows.find(Reservation, {*ids, *holders}, lock=True))


class Work:
    """The rows of one batch, and what is decided over them."""

    def __init__(self, batch: Batch[Message], hold_for: timedelta, barrier: Barrier, found: _Found) -> None:
        self._now = batch.now
        self._hold_for = hold_for
        self._barrier = barrier
        self._seats = {seat.seat: seat for seat in found.seats}
        self._reservations = {reservation.reservation_id: reservation for reservation in found.reservations}
        for seat in self._seats.values():
            seat.found_with = seat.reservation_id
        for reservation in self._reservations.values():
            reservation.found_as = reservation.state
        if any(reservation.seat not in self._seats for reservation in self._reservations.values()):
            raise db.LostRaceError("a seat was held between finding the seats and their reservations")
        self._new_seats: set[str] = set()
        self._changed_seats: set[str] = set()
        self._new: set[str] = set()
        self._changed: set[str] = set()

    @classmethod
    async def load(cls, batch: Batch[Message], hold_for: timedelta) -> Work:
        """Read the sagas, commands, seats and reservations of all messages at once, and lock them with care."""
        ids = {m.body.reservation_id for m in batch.messages if isinstance(m.body, Paid)}
        names = {m.body.seat for m in batch.messages if isinstance(m.body, Hold)}
        reads = Reads()
        found = _Found((), ()) if batch.careful else _ask(reads, ids, names)
        barrier = await Barrier.load(
            "reservation", batch.messages, now=batch.now, outbox=batch.outbox, beside=reads
        )
        undone = {event.reservation_id for event in barrier.to_undo() if isinstance(event, Confirmed)}
        if batch.careful:
            found = await _lock(ids | undone, names)
        elif undone:
            found = _ask(reads, ids | undone, names)
            await reads.fetch()
        return cls(batch, hold_for, barrier, found)

    def decide(self, message: Message) -> Outcome:
        """What becomes of one message."""
        match message.body:
            case Paid() as event:
                return self._barrier.forward(message, lambda: self._confirm(event))
            case Failed() as failed:
                return self._barrier.failure(message, undo=lambda: self._revert(failed))
            case Hold() as command:
                return self._barrier.command(message, lambda: self._hold(command))
            case Settled():
                return self._barrier.settlement(message)
        raise TypeError(f"the reservation service does not take {message.type}")

    def _confirm(self, event: Paid) -> Body | domain.Refusal:
        reservation = self._reservations.get(event.reservation_id)
        state = domain.confirm(
            self._seen(reservation), event.user_id, event.amount, expires_at=event.expires_at, now=self._now
        )
        if isinstance(state, domain.Refusal):
            return state
        assert reservation is not None
        self._become(reservation, state, event.payment_id)
        return Confirmed.after(event, confirmed_at=self._now)

    def _revert(self, failed: Failed) -> Body:
        confirmed = self._barrier.said(failed.payment_id)
        assert isinstance(confirmed, Confirmed)
        reservation = self._reservations[confirmed.reservation_id]
        state = domain.revert(reservation.held_until, now=self._now)
        self._become(reservation, state, None)
        if state is State.RELEASED:
            self._give_seat(reservation.seat, None)
        return Reverted(
            payment_id=confirmed.payment_id,
            user_id=confirmed.user_id,
            reservation_id=reservation.reservation_id,
            seat=reservation.seat,
            state="RELEASED" if state is State.RELEASED else "HELD",
            reverted_at=self._now,
        )

    def _hold(self, command: Hold) -> Body | domain.Refusal:
        seat = self._seats.get(command.seat)
        holder = self._holder(seat) if seat else None
        held_until = command.held_until or self._now + self._hold_for
        refusal = domain.hold(self._seen(holder), held_until, now=self._now)
        if refusal is not None:
            return refusal
        if holder is not None:
            self._become(holder, State.RELEASED, None)
        reservation = Reservation(
            reservation_id=command.reservation_id,
            user_id=command.user_id,
            seat=command.seat,
            price=command.price,
            held_until=held_until,
            state=State.HELD,
        )
        self._reservations[reservation.reservation_id] = reservation
        self._new.add(reservation.reservation_id)
        self._give_seat(command.seat, reservation.reservation_id)
        return Held(
            reservation_id=command.reservation_id,
            user_id=command.user_id,
            seat=command.seat,
            price=command.price,
            held_until=held_until,
        )

    def _holder(self, seat: Seat) -> Reservation | None:
        if seat.reservation_id is None:
            return None
        if seat.reservation_id not in self._reservations:
            raise db.LostRaceError("a seat was held between finding its reservation and finding the seat")
        return self._reservations[seat.reservation_id]

    def _seen(self, reservation: Reservation | None) -> domain.Reservation | None:
        if reservation is None:
            return None
        return domain.Reservation(
            user_id=reservation.user_id,
            price=reservation.price,
            held_until=reservation.held_until,
            state=State(reservation.state),
            given_away=self._seats[reservation.seat].reservation_id not in {reservation.reservation_id, None},
        )

    def _become(self, reservation: Reservation, state: State, payment_id: str | None) -> None:
        reservation.state = state
        reservation.payment_id = payment_id
        self._changed.add(reservation.reservation_id)

    def _give_seat(self, name: str, reservation_id: str | None) -> None:
        seat = self._seats.get(name)
        if seat is None:
            seat = self._seats[name] = Seat(seat=name)
            self._new_seats.add(name)
        seat.reservation_id = reservation_id
        self._changed_seats.add(name)

    def save(self, writes: Writes) -> None:
        """Note what changed."""
        self._barrier.save(writes)
        writes.insert(Seat, [self._seats[seat] for seat in sorted(self._new_seats)])
        changed_seats = [self._seats[seat] for seat in sorted(self._changed_seats - self._new_seats)]
        writes.update(Seat, changed_seats, "reservation_id", only_if="found_with")
        writes.insert(Reservation, [self._reservations[id_] for id_ in sorted(self._new)])
        changed = [self._reservations[id_] for id_ in sorted(self._changed - self._new)]
        writes.update(Reservation, changed, "state", "payment_id", only_if="found_as")
