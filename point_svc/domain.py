"""Rules of points: pure functions of balances. A balance is never negative, and only the ledger changes it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

#: No wallet holds more: every balance stays exact in JSON readers that know only doubles.
MAX_BALANCE = 1_000_000_000_000_000


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why not: a stable code, and a sentence for the person."""

    reason: str
    detail: str


def deduct(balance: int | None, amount: int, *, expires_at: datetime, now: datetime) -> int | Refusal:
    """The balance after paying `amount`; None is a user without a wallet.

    >>> from datetime import UTC
    >>> deduct(100, 30, expires_at=datetime(2026, 1, 2, tzinfo=UTC), now=datetime(2026, 1, 1, tzinfo=UTC))
    70
    """
    if now > expires_at:
        return Refusal("deadline_passed", f"the payment had to be done by {expires_at.isoformat()}")
    if balance is None:
        return Refusal("no_wallet", "the user has no wallet; the first top-up opens one")
    if balance < amount:
        return Refusal("balance_too_low", f"the wallet holds {balance} points, the price is {amount}")
    return balance - amount


def restore(balance: int, amount: int) -> int:
    """The balance after a payment is undone. Never refused: what was taken is given back."""
    return balance + amount


def top_up(balance: int | None, amount: int) -> int | Refusal:
    """The balance after a top-up; the first one opens the wallet."""
    after = (balance or 0) + amount
    if after > MAX_BALANCE:
        return Refusal("wallet_full", f"a wallet holds at most {MAX_BALANCE} points")
    return after
