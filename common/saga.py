"""The saga as data: who does what on which message, what it emits, and how it is undone.

This table is the only place where routing keys are written. Bindings, permissions, diagrams and tests are
derived from it. It answers no "what next?" at run time: a service decides by emitting an event.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True, slots=True)
class Step:
    """One service's part of the saga.

    `refusals` are the stable reason codes with which the step may refuse; a step without any cannot fail.
    `compensation` is the event that tells the step was undone; None where nothing is ever undone.
    """

    service: str
    on: str
    emits: str
    refusals: tuple[str, ...] = ()
    compensation: str | None = None
    pivot: bool = False

    @property
    def failed(self) -> str:
        """The event that fails the saga at this step, and that every earlier step undoes itself on."""
        return f"{self.service}.failed"


@dataclass(frozen=True, slots=True)
class Command:
    """A command beside the saga, by which a service is given its data. Its own id is its key."""

    service: str
    on: str
    answer: str
    key: str
    refusals: tuple[str, ...]


SAGA = (
    Step(
        service="payment",
        on="payment.pay",
        emits="payment.paid",
        refusals=("over_limit", "deadline_passed"),
        compensation="payment.cancelled",
    ),
    Step(
        service="reservation",
        on="payment.paid",
        emits="reservation.confirmed",
        refusals=(
            "unknown_reservation",
            "not_your_reservation",
            "hold_expired",
            "seat_given_away",
            "reservation_taken",
            "price_mismatch",
            "deadline_passed",
        ),
        compensation="reservation.reverted",
    ),
    Step(
        service="point",
        on="reservation.confirmed",
        emits="point.deducted",
        refusals=("no_wallet", "balance_too_low", "deadline_passed"),
        compensation="point.restored",
    ),
    Step(
        service="queue",
        on="point.deducted",
        emits="queue.expired",
        refusals=("unknown_token", "not_your_token", "token_not_active", "deadline_passed"),
        pivot=True,
    ),
    Step(service="notify", on="queue.expired", emits="notification.sent"),
)

COMMANDS = (
    Command(
        service="reservation",
        on="reservation.hold",
        answer="reservation.held",
        key="reservation_id",
        refusals=("seat_taken", "hold_in_the_past"),
    ),
    Command(
        service="point",
        on="point.top_up",
        answer="point.topped_up",
        key="top_up_id",
        refusals=("wallet_full",),
    ),
    Command(service="queue", on="queue.enter", answer="queue.entered", key="token", refusals=()),
)

#: The pivot's event also completes the payment; whoever comes after listens to `payment.completed`.
PIVOT = next(step for step in SAGA if step.pivot)
COMPLETED = "payment.completed"

#: Tells those whose parts come no later than the pivot which sagas are complete: nothing is asked of them again.
SETTLED = "payment.settled"

#: What every service binds to learn that a saga is over: one word in place of the service's name.
ANY_FAILED = "*.failed"

#: Reasons that the machinery gives, beside the refusals of the table.
RETRIES_SPENT = "retries_spent"
IDEMPOTENCY_CONFLICT = "idempotency_conflict"
DATA_ERROR = "data_error"
ABORTED = "aborted"

SERVICES = tuple(step.service for step in SAGA)
FIRST = SAGA[0]


def step_of(service: str) -> Step:
    """The saga step of a service; KeyError for a name that is not in the table."""
    for step in SAGA:
        if step.service == service:
            return step
    raise KeyError(service)


def rejected(service: str) -> str:
    """The answer that refuses a command, or refuses to believe it."""
    return f"{service}.rejected"


def failed(service: str) -> str:
    """The event by which a service ends a saga."""
    return f"{service}.failed"


def command_keys(service: str) -> tuple[str, ...]:
    """Routing keys of the commands that a service takes, the saga's own command included."""
    saga = (FIRST.on,) if service == FIRST.service else ()
    return saga + tuple(command.on for command in COMMANDS if command.service == service)


def event_keys(service: str) -> tuple[str, ...]:
    """Routing keys of the events that a service waits for: its trigger, the failures, how it learns the end."""
    if service == FIRST.service:
        return (ANY_FAILED, PIVOT.emits)
    settlement = (SETTLED,) if awaits_settlement(service) else ()
    return (step_of(service).on, ANY_FAILED, *settlement)


def awaits_settlement(service: str) -> bool:
    """Whether a service's part, once done, stays open until the whole saga is settled.

    What comes after the pivot is never undone, and nobody waits for it: it is final when it is done.
    """
    return SERVICES.index(service) <= SERVICES.index(PIVOT.service)


def emitted_keys(service: str) -> tuple[str, ...]:
    """Every routing key that a service may publish on the exchange of the saga."""
    step = step_of(service)
    keys = [step.emits]
    if step.refusals:
        keys.append(step.failed)
    if step.compensation:
        keys.append(step.compensation)
    if service == FIRST.service:
        keys += [COMPLETED, SETTLED]
    answers = [command.answer for command in COMMANDS if command.service == service]
    if command_keys(service):
        keys.append(rejected(service))
    return (*keys, *answers)


def binding_of(key: str) -> str:
    """The key with which a queue is bound that messages of this type reach."""
    return ANY_FAILED if key.endswith(".failed") else key


@cache
def is_of_a_saga(key: str) -> bool:
    """Whether messages of this type belong to sagas; the others are commands beside them."""
    return all(command.on != key for command in COMMANDS)


@cache
def takes(service: str, key: str) -> bool:
    """Whether a service has anything to do with messages of this type."""
    return binding_of(key) in (*command_keys(service), *event_keys(service))


@cache
def is_awaited(key: str) -> bool:
    """Whether some service waits for this event, so that losing its route would stop a saga."""
    return key.endswith(".failed") or any(
        key in (*event_keys(service), *command_keys(service)) for service in SERVICES
    )


@cache
def may_fail(key: str) -> bool:
    """Whether the table lets this `<service>.failed` exist at all."""
    return any(step.failed == key and step.refusals for step in SAGA)


def vocabulary() -> tuple[str, ...]:
    """Every routing key of the language, commands first, in the order of the table."""
    commands = tuple(key for service in SERVICES for key in command_keys(service))
    return commands + tuple(key for service in SERVICES for key in emitted_keys(service))
