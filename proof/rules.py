"""What is promised, as questions to the tables of the five services: at any moment, and when all is quiet."""

from __future__ import annotations

from typing import Any

from common.messages import Pay

Tables = dict[str, list[dict[str, Any]]]


def broken_now(tables: Tables) -> str | None:
    """The first rule that must hold at any moment, and does not; None if all hold."""
    for wallet in tables["wallet"]:
        entries = [entry for entry in tables["ledger_entry"] if entry["user_id"] == wallet["user_id"]]
        if wallet["balance"] < 0:
            return f"the wallet of {wallet['user_id']} is below zero"
        if wallet["balance"] != sum(entry["amount"] for entry in entries):
            return f"points of {wallet['user_id']} were made or lost"
    sold = [row for row in tables["reservation"] if row["state"] == "CONFIRMED"]
    if len(sold) != len({row["seat"] for row in sold}):
        return "a seat is sold twice"
    holders = {row["seat"]: row["reservation_id"] for row in tables["seat"]}
    if any(holders[row["seat"]] != row["reservation_id"] for row in sold):
        return "a seat that is sold was given to somebody else"
    return None


def ending(tables: Tables, command: Pay, *, lossy: bool = False) -> str:
    """How a saga ended: `done`, `undone`, or what the tables say instead.

    `lossy`: messages got lost on the way. Then a user may not have been told: nobody waits for a notice.
    """
    payment = [row["state"] for row in tables["payment"] if row["payment_id"] == command.payment_id]
    confirmed = [row["seat"] for row in tables["reservation"] if row["payment_id"] == command.payment_id]
    taken = [row["amount"] for row in tables["ledger_entry"] if row["saga_id"] == command.payment_id]
    tokens = [row["token"] for row in tables["token"] if row["payment_id"] == command.payment_id]
    notices = [row["kind"] for row in tables["notice"] if row["saga_id"] == command.payment_id]
    one_seat_and_token = len(confirmed) == len(tokens) == 1
    paid = [-row["amount"] for row in tables["payment"] if row["payment_id"] == command.payment_id]
    if payment == ["COMPLETED"] and one_seat_and_token and taken == paid and notices in _told("completed", lossy):
        return "done"
    untouched = payment in ([], ["CANCELLED"]) and not confirmed and not tokens and sum(taken) == 0
    if untouched and notices in _told("failed", lossy):
        return "undone"
    return (
        f"{command.payment_id} is neither done nor undone everywhere: payment {payment or 'none'}, "
        f"seats {confirmed}, points {taken}, tokens {tokens}, notices {notices or 'none'}"
    )


def _told(kind: str, lossy: bool) -> list[list[str]]:
    return [[kind], []] if lossy else [[kind]]
