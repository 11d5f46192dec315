"""The reservation service: seats, and who holds them until they are paid.

Owns      seat, reservation
Does      on `payment.paid`: confirms the held reservation (HELD -> CONFIRMED)
Emits     `reservation.confirmed`; or `reservation.failed` (unknown_reservation, not_your_reservation,
          hold_expired, seat_given_away, reservation_taken, price_mismatch, deadline_passed)
Undoes    on `*.failed`: CONFIRMED by this saga -> HELD, or RELEASED where the hold has run out;
          emits `reservation.reverted`
Commands  `reservation.hold` -> `reservation.held` or `reservation.rejected` (seat_taken, hold_in_the_past)
"""
