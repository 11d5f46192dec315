"""One batch of the reservation service: load what it touches, decide one message at a time, save what changed."""

from __future__ import annotations

from datetime import timedelta

from common import db, rows
from common.barrier import Barrier
from common.messages import Body, Confirmed, Failed, Held, Hold, Message, Paid, Reverted
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


class Work:
    """The rows of one batch, and what is decided over them."""

    def __init__(self, batch: Batch[Message], hold_for: timedelta, barrier: Barrier) -> None:
        self._now = batch.now
        self._hold_for = hold_for
        self._barrier = barrier
        self._seats: dict[str, Seat] = {}
        self._reservations: dict[str, Reservation] = {}
        self._new_seats: set[str] = set()
        self._changed_seats: set[str] = set()
        self._new: set[str] = set()
        self._changed: set[str] = set()

    @classmethod
    async def load(cls, batch: Batch[Message], hold_for: timedelta) -> Work:
        """Read the sagas and commands, lock the seats, and read the reservations, of all messages at once."""
        barrier = await Barrier.load("reservation", batch.messages, now=batch.now, outbox=batch.outbox)
        work = cls(batch, hold_for, barrier)
        ids = {m.body.reservation_id for m in batch.messages if isinstance(m.body, Paid)}
        ids |= {event.reservation_id for event in barrier.to_undo() if isinstance(event, Confirmed)}
        seats = {m.body.seat for m in batch.messages if isinstance(m.body, Hold)}
        # A reservation never changes its seat, so this needs no lock.
        seats |= {reservation.seat for reservation in await rows.find(Reservation, ids)}
        locked = await rows.find(Seat, seats, lock=True)
        work._seats = {seat.seat: seat for seat in locked}
        ids |= {seat.reservation_id for seat in locked if seat.reservation_id}
        reservations = await rows.find(Reservation, ids)
        work._reservations = {reservation.reservation_id: reservation for reservation in reservations}
        if any(reservation.seat not in work._seats for reservation in reservations):
            raise db.LostRaceError("a seat was held between finding the seats and locking them")
        return work

    def decide(self, message: Message) -> Outcome:
        """What becomes of one message."""
        match message.body:
            case Paid() as event:
                return self._barrier.forward(message, lambda: self._confirm(event))
            case Failed() as failed:
                return self._barrier.failure(message, undo=lambda: self._revert(failed))
            case Hold() as command:
                return self._barrier.command(message, lambda: self._hold(command))
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
        holder = self._reservations[seat.reservation_id] if seat and seat.reservation_id else None
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
        writes.update(Seat, changed_seats, "reservation_id")
        writes.insert(Reservation, [self._reservations[id_] for id_ in sorted(self._new)])
        changed = [self._reservations[id_] for id_ in sorted(self._changed - self._new)]
        writes.update(Reservation, changed, "state", "payment_id")
