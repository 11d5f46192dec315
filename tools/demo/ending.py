"""The demo's last words: what became of each kind of payment, the balances, and the verdict."""

from collections import Counter
from collections.abc import Iterable, Mapping

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tools.demo.plan import Case, Plan
from tools.demo.verdict import Books, Finding

_SHOWN = 5


def kinds(plan: Plan, books: Books) -> Table:
    """Tabulate what became of each kind of payment, by the payment service's own books."""
    table = Table(title="What became of each kind of payment", title_justify="left")
    table.add_column("kind")
    table.add_column("payments", justify="right")
    table.add_column("completed", justify="right")
    table.add_column("undone", justify="right")
    table.add_column("refused, and why")
    by_kind: dict[str, list[Case]] = {}
    for case in sorted(plan.cases, key=lambda case: case.pay.payment_id):
        by_kind.setdefault(case.kind, []).append(case)
    for kind, cases in by_kind.items():
        states = Counter(books.payments.get(case.pay.payment_id) for case in cases)
        reasons = Counter(filter(None, (_reason(case, books) for case in cases)))
        table.add_row(
            kind,
            str(len(cases)),
            str(states["COMPLETED"] or ""),
            str(states["CANCELLED"] or ""),
            "  ".join(f"{count} x {reason}" for reason, count in reasons.items()),
        )
    return table


def balances(plan: Plan, before: Mapping[str, int], after: Mapping[str, int]) -> Table:
    """Tabulate the points of all users before the first payment and after the last, by their first payment."""
    table = Table(title="Balances, in points", title_justify="left")
    table.add_column("users")
    for column in ("how many", "before", "paid for good", "after"):
        table.add_column(column, justify="right")
    paid: Counter[str] = Counter()
    group: dict[str, str] = {}
    for case in plan.cases:
        group.setdefault(case.pay.user_id, "who paid" if case.refusal is None else "who were refused")
        if case.refusal is None:
            paid[case.pay.user_id] += case.pay.amount
    for name in dict.fromkeys([*group.values(), "all"]):
        users = [user for user in before if name in {"all", group.get(user)}]
        table.add_row(
            name,
            str(len(users)),
            *(f"{sum(book.get(user, 0) for user in users):,}" for book in (before, paid, after)),
        )
    return table


def verdict(console: Console, findings: Iterable[Finding]) -> bool:
    """Print what was found, and return whether all of it holds."""
    consistent = True
    console.print("Verdict, from the five databases:")
    for finding in findings:
        consistent = consistent and finding.holds
        console.print(
            f"  [green]holds[/green]  {finding.what}" if finding.holds else f"  [red]BROKEN[/red] {finding.what}"
        )
        for line in finding.against[:_SHOWN]:
            console.print(f"           {escape(line)}", highlight=False, soft_wrap=True)
        if len(finding.against) > _SHOWN:
            console.print(f"           and {len(finding.against) - _SHOWN} more")
    return consistent


def _reason(case: Case, books: Books) -> str | None:
    """Return where and why a payment was refused, in the words of the service that refused it."""
    for service, states in books.steps.items():
        if states.get(case.pay.payment_id) == "failed":
            return f"{service}: {books.answers[service][case.pay.payment_id].get('reason')}"
    return None
