"""Sending a command and, if wished, waiting for what becomes of it."""

from __future__ import annotations

import time
from dataclasses import dataclass

from common import topology
from common.messages import Body
from common.telemetry import next_traceparent
from ops.acting.ending import Outcome, told_by
from ops.acting.line import Heard, open_line
from ops.broker import LOST
from ops.output import CannotLookError, Exit, waiting


@dataclass(frozen=True, slots=True)
class Asked:
    """A command that the broker has taken, and what was heard of it; None: nobody waited. `seconds`: how long."""

    type: str
    command: Body
    traceparent: str
    outcome: Outcome | None
    seconds: float

    @property
    def exit(self) -> Exit:
        """Well, unless somebody waited for a good end in vain."""
        return Exit.OK if self.outcome is None or self.outcome.ending.is_good else Exit.NEGATIVE


async def ask(type_: str, command: Body, *, seconds: float | None) -> Asked:
    """Publish a command, confirmed; wait up to `seconds` for its outcome, or, None, not at all.

    Raises CannotLookError unless the broker has it.
    """
    trace = next_traceparent(None)
    encoded = command.model_dump_json(exclude_none=True).encode()
    async with open_line() as line:
        if seconds is not None:
            # Before it is published: the answer may be quicker than we.
            await line.listen(told_by(type_))
        began = time.monotonic()
        await line.publish(topology.EVENTS, type_, encoded, about=command.key, headers={"traceparent": trace})
        if seconds is None:
            return Asked(type_, command, trace, None, 0.0)
        outcome = Outcome(command.key)
        with waiting(f"{type_} {command.key}") as show:

            def enough(heard: Heard) -> bool:
                if outcome.hear(heard.type, heard.body):
                    show(f"{command.key}: {heard.type}")
                return outcome.is_over

            try:
                await line.hear_until(enough, seconds=seconds)
            except LOST as error:
                raise CannotLookError(
                    f"{type_} {command.key} was sent, but the broker went away before its end was heard. Asking "
                    "again, with the same id and the same content, does nothing twice"
                ) from error
        return Asked(type_, command, trace, outcome, time.monotonic() - began)
