"""Rules within one database, whose snapshot is one moment: no need to look twice."""

from __future__ import annotations

#: Service, rule, evidence and query. Each query gives what is wrong, first whom it is about.
RULES: tuple[tuple[str, str, str, str], ...] = (
    (
        "point",
        "wallet",
        "the wallet holds {1} points, its ledger says {2}",
        (
            "SELECT w.user_id, w.balance, COALESCE(l.total, 0) FROM wallet w LEFT JOIN"
            " (SELECT user_id, SUM(amount) AS total FROM ledger_entry GROUP BY user_id) l ON l.user_id = w.user_id"
            " WHERE w.balance <> COALESCE(l.total, 0)"
        ),
    ),
    (
        "point",
        "wallet",
        "the ledger has entries of {1} points, but there is no wallet",
        (
            "SELECT l.user_id, SUM(l.amount) FROM ledger_entry l LEFT JOIN wallet w ON w.user_id = l.user_id"
            " WHERE w.user_id IS NULL GROUP BY l.user_id"
        ),
    ),
    ("point", "negative", "the wallet holds {1} points", "SELECT user_id, balance FROM wallet WHERE balance < 0"),
    (
        "reservation",
        "seat",
        "the seat names {1}, which is {2}",
        (
            "SELECT s.seat, s.reservation_id, COALESCE(r.state, 'unknown') FROM seat s LEFT JOIN reservation r"
            " ON r.reservation_id = s.reservation_id AND r.seat = s.seat"
            " WHERE s.reservation_id IS NOT NULL AND COALESCE(r.state, 'unknown') NOT IN ('HELD', 'CONFIRMED')"
        ),
    ),
    (
        "reservation",
        "seat",
        "{1} is {2}, but the seat names {3}",
        (
            "SELECT r.seat, r.reservation_id, r.state, COALESCE(s.reservation_id, 'nobody') FROM reservation r"
            " LEFT JOIN seat s ON s.seat = r.seat WHERE r.state IN ('HELD', 'CONFIRMED')"
            " AND COALESCE(s.reservation_id, '') <> r.reservation_id"
        ),
    ),
    (
        "reservation",
        "reservation",
        "the reservation is CONFIRMED, but by no payment",
        "SELECT reservation_id FROM reservation WHERE state = 'CONFIRMED' AND payment_id IS NULL",
    ),
    (
        "queue",
        "token",
        "the token is EXPIRED, but by no payment",
        "SELECT token FROM token WHERE state = 'EXPIRED' AND payment_id IS NULL",
    ),
)
