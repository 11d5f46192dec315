"""What became of the demo's payments: read from the five databases, and compared with the plan.

The events that the table showed are hearsay. Only what the services committed counts, and each of them is asked
in its own database, by somebody who cannot write there.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from common import saga
from common.messages import TopUp
from ops.audit.look import audit as audit_databases
from tools.demo.plan import Case, Plan
from tools.stack import Stack


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that must hold, and all that speaks against it."""

    what: str
    against: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.against


@dataclass(frozen=True, slots=True)
class Books:
    """The rows that the demo left in the five databases."""

    payments: Mapping[str, str]
    """State of each payment."""
    steps: Mapping[str, Mapping[str, str]]
    """Of each service: state of each payment's row in its barrier."""
    answers: Mapping[str, Mapping[str, dict[str, Any]]]
    """Of each service: what it answers to a repetition of each payment."""
    reservations: Mapping[str, tuple[str, str | None]]
    """State of each reservation, and the payment that confirmed it."""
    balances: Mapping[str, int]
    """Points of each user."""
    ledger: Mapping[str, Counter[tuple[str, int]]]
    """Kind and amount of all entries of each payment or top-up."""
    tokens: Mapping[str, tuple[str, str | None]]
    """State of each token, and the payment that used it up."""
    notices: Mapping[str, tuple[str, str]]
    """Kind and state of each payment's notice."""
    unpublished: Mapping[str, int]
    """Events that are still in each service's outbox."""

    @property
    def quiet(self) -> bool:
        """Whether nothing is left to publish or to tell anybody."""
        return not any(self.unpublished.values()) and all(state == "SENT" for _, state in self.notices.values())


def read(stack: Stack, mark: str) -> Books:
    """Read the rows whose ids begin with `mark`, and the outboxes."""

    def rows(service: str, query: str) -> list[tuple[Any, ...]]:
        with closing(stack.read_only(service)) as connection:
            marked = (f"{mark}%",) if "?" in query else ()
            return connection.execute(query, marked).fetchall()

    steps = {
        # What is settled was done, and can never change again.
        service: rows(
            service,
            "SELECT saga_id, REPLACE(state, 'settled', 'done'), answer FROM saga_step WHERE saga_id LIKE ?",
        )
        for service in saga.SERVICES
    }
    ledger: dict[str, Counter[tuple[str, int]]] = defaultdict(Counter)
    for key, kind, amount in rows("point", "SELECT saga_id, kind, amount FROM ledger_entry WHERE saga_id LIKE ?"):
        ledger[key][kind, amount] += 1
    return Books(
        payments=dict(rows("payment", "SELECT payment_id, state FROM payment WHERE payment_id LIKE ?")),
        steps={service: {key: state for key, state, _ in found} for service, found in steps.items()},
        answers={
            service: {key: json.loads(answer or "{}") for key, _, answer in found}
            for service, found in steps.items()
        },
        reservations=_pairs(
            rows(
                "reservation",
                "SELECT reservation_id, state, payment_id FROM reservation WHERE reservation_id LIKE ?",
            )
        ),
        balances=dict(rows("point", "SELECT user_id, balance FROM wallet WHERE user_id LIKE ?")),
        ledger=ledger,
        tokens=_pairs(rows("queue", "SELECT token, state, payment_id FROM token WHERE token LIKE ?")),
        notices=_pairs(rows("notify", "SELECT saga_id, kind, state FROM notice WHERE saga_id LIKE ?")),
        unpublished={service: rows(service, "SELECT count(*) FROM outbox")[0][0] for service in saga.SERVICES},
    )


def compare(plan: Plan, books: Books) -> list[Finding]:
    """Compare every row with what the plan says must have come of it."""
    good = [case for case in plan.cases if case.refusal is None]
    refused = [case for case in plan.cases if case.refusal is not None]
    return [
        _of_all(
            f"{len(good)} good payments are completed, no other is",
            plan.cases,
            lambda case: (books.payments.get(case.pay.payment_id), _payment_state(case)),
        ),
        _of_all(
            f"{len(refused)} refused payments ended where they should, for the right reason",
            refused,
            lambda case: (_refusal(case, books), case.refusal and (case.refusal.service, case.refusal.reason)),
        ),
        _of_all(
            "all five services agree how each payment ended; before a refusal all is undone",
            plan.cases,
            lambda case: (
                {service: books.steps[service].get(case.pay.payment_id) for service in saga.SERVICES},
                _step_states(case),
            ),
        ),
        _sold(
            "each paid seat belongs to its payment, no other seat is sold",
            books.reservations,
            {case.pay.reservation_id: ("CONFIRMED", case.pay.payment_id) for case in good},
        ),
        _same(
            "points were taken once for each good payment, and given back for each undone one",
            {key: dict(entries) for key, entries in books.ledger.items()},
            _ledger(plan),
        ),
        _same("every wallet holds what it must, to the point", books.balances, balances_after(plan)),
        _sold(
            "each paying token is used up, no other is",
            books.tokens,
            {case.pay.token: ("EXPIRED", case.pay.payment_id) for case in good},
        ),
        _of_all(
            "every user was told once, and the truth",
            plan.cases,
            lambda case: (
                books.notices.get(case.pay.payment_id),
                ("failed" if case.refusal else "completed", "SENT"),
            ),
        ),
        _same("no event is left unpublished", books.unpublished, dict.fromkeys(saga.SERVICES, 0)),
    ]


def balances_after(plan: Plan) -> dict[str, int]:
    """What each wallet must hold in the end: what was put in, less the good payments."""
    spent: Counter[str] = Counter()
    for case in plan.cases:
        if case.refusal is None:
            spent[case.pay.user_id] += case.pay.amount
    return {user: filled - spent[user] for user, filled in plan.filled.items()}


async def audit(stack: Stack, mark: str) -> Finding:
    """Let the operators' own audit look at the five databases; what an earlier run left is not our fault."""
    report = await audit_databases(stack.database_urls())
    ours = tuple(str(violation) for violation in report.violations if violation.saga_id.startswith(mark))
    return Finding("the operators' audit finds no violation in the five databases", ours)


def _payment_state(case: Case) -> str | None:
    match case.refusal:
        case None:
            return "COMPLETED"
        case refusal if refusal.service == saga.FIRST.service:
            return None
        case _:
            return "CANCELLED"


def _step_states(case: Case) -> dict[str, str]:
    """Return what the barrier of each service must say: undone before the refusal, closed after it."""
    if case.refusal is None:
        return dict.fromkeys(saga.SERVICES, "done")
    at = saga.SERVICES.index(case.refusal.service)
    return {
        service: "undone" if place < at else "failed" if place == at else "closed"
        for place, service in enumerate(saga.SERVICES)
    }


def _refusal(case: Case, books: Books) -> tuple[str, str] | None:
    assert case.refusal
    answer = books.answers[case.refusal.service].get(case.pay.payment_id)
    return (str(answer.get("service")), str(answer.get("reason"))) if answer else None


def _ledger(plan: Plan) -> dict[str, dict[tuple[str, int], int]]:
    """Return the entries that the ledger must have of each top-up and payment, and no others."""
    wanted = {it.top_up_id: {("top_up", it.amount): 1} for it in plan.prepare if isinstance(it, TopUp)}
    after_points = saga.SERVICES[saga.SERVICES.index("point") + 1 :]
    for case in plan.cases:
        taken = {("deduction", -case.pay.amount): 1}
        if case.refusal is None:
            wanted[case.pay.payment_id] = taken
        elif case.refusal.service in after_points:
            wanted[case.pay.payment_id] = taken | {("restoration", case.pay.amount): 1}
    return wanted


def _of_all(what: str, cases: Iterable[Case], look: Callable[[Case], tuple[object, object]]) -> Finding:
    looked = [(case, *look(case)) for case in cases]
    return Finding(
        what,
        tuple(
            f"{case.pay.payment_id} ({case.kind}): {found}, not {wanted}"
            for case, found, wanted in looked
            if found != wanted
        ),
    )


def _same(what: str, found: Mapping[str, object], wanted: Mapping[str, object]) -> Finding:
    return Finding(
        what,
        tuple(
            f"{key}: {found.get(key)}, not {wanted.get(key)}"
            for key in sorted(found.keys() | wanted.keys())
            if found.get(key) != wanted.get(key)
        ),
    )


def _sold(
    what: str, found: Mapping[str, tuple[str, str | None]], wanted: Mapping[str, tuple[str, str]]
) -> Finding:
    """Compare what payments took for good with what they should have taken; what none took does not count."""
    taken = {key: row for key, row in found.items() if row[0] in {"CONFIRMED", "EXPIRED"} or row[1]}
    return _same(what, taken, wanted)


def _pairs(rows: Iterable[tuple[Any, ...]]) -> dict[str, tuple[Any, Any]]:
    return {key: (first, second) for key, first, second in rows}
