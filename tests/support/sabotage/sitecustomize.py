"""Faults for a real service process, without a hook in the product: Python imports this before the service.

It is on the PYTHONPATH only of services that a test starts with `SABOTAGE` naming a service and a file. The file
is read at each occasion, so a test makes and mends faults by writing it: see `support.saga.Faults`.
"""

# ruff: noqa: ANN401 - it wraps what it finds

import asyncio
import json
import os
import signal
from importlib import import_module
from pathlib import Path
from typing import Any

SERVICE, _, FILE = os.environ.get("SABOTAGE", "").partition("=")


def faults() -> dict[str, list[str]]:
    """What is wrong at this moment: kinds of faults, each with the ids it is for."""
    try:
        found: dict[str, list[str]] = json.loads(Path(FILE).read_text())
    except FileNotFoundError:
        return {}
    return found


def strike(message: Any) -> None:
    """Fail as the file says for this message's id, or for its type and id."""
    names = {message.key, f"{message.type}:{message.key}"}
    now = faults()
    if names & set(now.get("kills", ())):
        os.kill(os.getpid(), signal.SIGKILL)
    if names & set(now.get("raises", ())):
        raise RuntimeError("sabotaged by a test")


def arm() -> None:
    """Put the faults into the service's decisions, its relay and its acks."""
    work = import_module(f"{SERVICE}_svc.step").Work
    relay = import_module("common.outbox").Relay
    inbox = import_module("common.bus").Inbox
    decide, put, ack = work.decide, relay.put, inbox.ack

    def decide_or_fail(self: Any, message: Any) -> Any:
        strike(message)
        return decide(self, message)

    def put_or_lose(self: Any, rows: Any) -> None:
        # Tortoise's sweeper reads rows of its own: what is lost here is only the way from memory.
        if not faults().get("mutes"):
            put(self, rows)

    async def ack_or_hang(self: Any, deliveries: Any, *, all_before: bool) -> None:
        bodies = [delivery.body.decode(errors="replace") for delivery in deliveries]
        if any(name in body for name in faults().get("never_acks", ()) for body in bodies):
            await asyncio.Event().wait()
        await ack(self, deliveries, all_before=all_before)

    work.decide, relay.put, inbox.ack = decide_or_fail, put_or_lose, ack_or_hang


if SERVICE:
    arm()
