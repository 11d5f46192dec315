"""What the demo does, and what must come of it: pure data, made before anything is sent."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from common.messages import MAX_AMOUNT, Body, Enter, Hold, Pay, TopUp

# Points in the wallet of somebody whose payment is refused: enough, so that only what is meant is wrong.
_PLENTY = 400_000
_LEFT_OVER = 7_000
_SEATS_EACH = 4


@dataclass(frozen=True, slots=True)
class Refusal:
    """Where a payment must end, and why."""

    service: str
    reason: str


@dataclass(frozen=True, slots=True)
class Case:
    """One payment and what must come of it: completed exactly once, or refused and all undone."""

    kind: str
    pay: Pay
    refusal: Refusal | None = None
    times: int = 1


@dataclass(slots=True)
class Plan:
    """What is sent, in this order: `prepare`, `brief_holds`, `first`, then `taken_over` and `second`."""

    prepare: list[Body] = field(default_factory=list)
    brief_holds: list[Callable[[datetime], Hold]] = field(default_factory=list)
    taken_over: list[Hold] = field(default_factory=list)
    first: list[Case] = field(default_factory=list)
    second: list[Case] = field(default_factory=list)
    malformed: bytes = b""

    @property
    def cases(self) -> list[Case]:
        """All payments of the demo."""
        return self.first + self.second

    @property
    def filled(self) -> dict[str, int]:
        """What each user's wallet holds before the first payment."""
        return {it.user_id: it.amount for it in self.prepare if isinstance(it, TopUp)}


def make(mark: str) -> Plan:
    """Plan a demo whose every id begins with `mark`, so that it can be run again on the same databases."""
    plan = Plan(malformed=f'{{"payment_id": "{mark}-broken", "amount": "a lot"'.encode())
    writer = _Writer(mark, plan)
    for _ in range(21):
        writer.good("good")
    for _ in range(3):
        writer.good("good, sent three times", times=3)
    writer.refused_at_payment()
    writer.refused_at_reservation()
    writer.refused_at_point()
    writer.refused_at_queue()
    # The same mix for everybody who compares two runs; nothing depends on the order.
    random.Random(7).shuffle(plan.first)  # noqa: S311 - no secret
    return plan


class _Writer:
    """Writes payments into a plan, with the seats, wallets and tokens that they need."""

    def __init__(self, mark: str, plan: Plan) -> None:
        self._mark = mark
        self._plan = plan
        self._users = 0
        self._payments = 0

    def good(self, kind: str, times: int = 1) -> None:
        """Somebody pays for several seats out of one wallet that holds just enough."""
        user = self._user()
        pays = [self._pay(user) for _ in range(_SEATS_EACH)]
        for pay in pays:
            self._hold(pay)
            self._enter(pay)
            self._plan.first.append(Case(kind, pay, times=times))
        self._fill(user, sum(pay.amount for pay in pays) + _LEFT_OVER)

    def refused_at_payment(self) -> None:
        """More than one payment may take; and one that comes after its own deadline."""
        for _ in range(4):
            self._refused("over the limit of one payment", "payment", "over_limit", amount=MAX_AMOUNT)
        past = datetime.now(UTC) - timedelta(minutes=1)
        for _ in range(3):
            self._refused("after its deadline", "payment", "deadline_passed", expires_at=past)

    def refused_at_reservation(self) -> None:
        """Another price, another's seat, no seat, too late, and a seat that is paid for already."""
        for _ in range(3):
            case = self._refused("another price", "reservation", "price_mismatch", hold=False)
            self._hold(case.pay, price=case.pay.amount + 1)
        for _ in range(3):
            case = self._refused("another user's seat", "reservation", "not_your_reservation", hold=False)
            self._hold(case.pay, user=self._user())
        for _ in range(2):
            self._refused("no such reservation", "reservation", "unknown_reservation", hold=False)
        for _ in range(3):
            case = self._refused("hold has run out", "reservation", "hold_expired", hold=False, second=True)
            self._hold_briefly(case.pay)
        for _ in range(2):
            case = self._refused("seat given away", "reservation", "seat_given_away", hold=False, second=True)
            self._hold_briefly(case.pay)
            self._plan.taken_over.append(self._hold_of(self._pay(self._user()), seat=case.pay.reservation_id))
        for paid in [case.pay for case in self._plan.first if case.kind == "good"][:2]:
            again = self._pay(paid.user_id, reservation_id=paid.reservation_id, amount=paid.amount)
            self._enter(again)
            refusal = Refusal("reservation", "reservation_taken")
            self._plan.second.append(Case("seat paid for already", again, refusal))

    def refused_at_point(self) -> None:
        """Too few points, and no wallet at all."""
        for _ in range(4):
            case = self._refused("balance too low", "point", "balance_too_low", wallet=False)
            self._fill(case.pay.user_id, case.pay.amount - 1)
        for _ in range(3):
            self._refused("no wallet", "point", "no_wallet", wallet=False)

    def refused_at_queue(self) -> None:
        """No token, another's token, and one that an earlier payment used up."""
        for _ in range(3):
            self._refused("no such token", "queue", "unknown_token", token=False)
        for _ in range(3):
            case = self._refused("another user's token", "queue", "not_your_token", token=False)
            self._enter(case.pay, user=self._user())
        # Of two users: what is left over pays for one seat, and a payment that is undone takes it meanwhile.
        goods = [case.pay for case in self._plan.first if case.kind == "good"]
        for paid in (goods[-1], goods[-1 - _SEATS_EACH]):
            again = self._pay(paid.user_id, token=paid.token, amount=_LEFT_OVER)
            self._hold(again)
            refusal = Refusal("queue", "token_not_active")
            self._plan.second.append(Case("token used before", again, refusal))

    def _refused(
        self,
        kind: str,
        service: str,
        reason: str,
        *,
        hold: bool = True,
        wallet: bool = True,
        token: bool = True,
        second: bool = False,
        **fields: object,
    ) -> Case:
        """Add a payment of somebody new who has all that is not denied here."""
        case = Case(kind, self._pay(self._user(), **fields), Refusal(service, reason))
        (self._plan.second if second else self._plan.first).append(case)
        if hold:
            self._hold(case.pay)
        if wallet:
            self._fill(case.pay.user_id, _PLENTY)
        if token:
            self._enter(case.pay)
        return case

    def _user(self) -> str:
        self._users += 1
        return f"{self._mark}-user-{self._users:03}"

    def _pay(self, user: str, **fields: object) -> Pay:
        self._payments += 1
        number = f"{self._payments:03}"
        return Pay.model_validate(
            {
                "payment_id": f"{self._mark}-pay-{number}",
                "user_id": user,
                "reservation_id": f"{self._mark}-seat-{number}",
                "token": f"{self._mark}-token-{number}",
                "amount": 50_000 + 1_000 * (self._payments % 40),
            }
            | fields
        )

    def _hold(self, pay: Pay, *, user: str | None = None, price: int | None = None) -> None:
        hold = self._hold_of(pay)
        self._plan.prepare.append(
            hold.model_copy(update={"user_id": user or hold.user_id, "price": price or hold.price})
        )

    def _hold_briefly(self, pay: Pay) -> None:
        hold = self._hold_of(pay)
        self._plan.brief_holds.append(lambda until: hold.model_copy(update={"held_until": until}))

    @staticmethod
    def _hold_of(pay: Pay, *, seat: str | None = None) -> Hold:
        return Hold(
            reservation_id=pay.reservation_id,
            user_id=pay.user_id,
            seat=seat or pay.reservation_id,
            price=pay.amount,
        )

    def _fill(self, user: str, amount: int) -> None:
        self._plan.prepare.append(TopUp(top_up_id=f"{user}-gift", user_id=user, amount=amount))

    def _enter(self, pay: Pay, *, user: str | None = None) -> None:
        self._plan.prepare.append(Enter(token=pay.token, user_id=user or pay.user_id))
