"""Payments to be made in tests: each with its seat, its wallet and its token, and all ids under one mark."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from common.messages import Body, Enter, Hold, Pay, TopUp
from containers.books import Books, read, settled
from containers.system import System
from tests.support.eventually import eventually

PRICE = 1_000


@dataclass(slots=True)
class Sales:
    """The payments of one test, and what they need before they can be made."""

    system: System
    mark: str
    filled: Counter[str] = field(default_factory=Counter)
    """Points that each user was given."""
    payments: list[Pay] = field(default_factory=list)
    _commands: list[Body] = field(default_factory=list)

    def payment(
        self,
        *,
        user: str | None = None,
        price: int = PRICE,
        held: bool = True,
        points: int | None = None,
        issued: bool = True,
        **changes: object,
    ) -> Pay:
        """One more payment, by default one that nothing speaks against.

        `points` is what the user is given for it, by default its price; with 0 and no other payment the user
        has no wallet. Without `held` or `issued` there is no such reservation or token. `changes` go into the
        command itself.
        """
        number = len(self.payments) + 1
        mine = f"{self.mark}-{number}"
        user = f"{self.mark}-{user}" if user else f"{mine}-user"
        fields = {
            "payment_id": f"{mine}-pay",
            "user_id": user,
            "reservation_id": f"{mine}-hold",
            "token": f"{mine}-token",
            "amount": price,
        }
        pay = Pay.model_validate(fields | changes)
        if held:
            self._commands.append(
                Hold(reservation_id=f"{mine}-hold", user_id=user, seat=f"{mine}-seat", price=price)
            )
        given = price if points is None else points
        if given:
            self._commands.append(TopUp(top_up_id=f"{mine}-gift", user_id=user, amount=given))
            self.filled[user] += given
        if issued:
            self._commands.append(Enter(token=f"{mine}-token", user_id=user))
        self.payments.append(pay)
        return pay

    def good(self, count: int, *, users: int = 0) -> list[Pay]:
        """Payments that must all complete; with `users`, they share that many wallets."""
        return [self.payment(user=f"user{number % users}" if users else None) for number in range(count)]

    async def prepared(self) -> None:
        """Have the seats held, the wallets filled and the tokens issued, over the exchange like everything."""
        commands, self._commands = self._commands, []
        await self.system.publish(*commands)
        wanted = Counter(type(command) for command in commands)

        async def done() -> None:
            books = await read(self.system, self.mark)
            assert len(books.tables["reservation"]) >= wanted[Hold]
            assert sum(len(entries) for entries in books.ledger.values()) >= wanted[TopUp]
            assert len(books.tables["token"]) >= wanted[Enter]

        await eventually(done)

    async def settled(self, *, seconds: float = 60) -> Books:
        """Wait until every payment of this test has ended."""
        return await settled(self.system, self.mark, self.ids(), seconds=seconds)

    def ids(self, payments: Iterable[Pay] | None = None) -> list[str]:
        """The ids of these payments; of all, if it is not said of which."""
        return [payment.payment_id for payment in (self.payments if payments is None else payments)]

    def assert_exact(self, books: Books, completed: Sequence[Pay]) -> None:
        """Assert that these payments are complete, no other is, and every wallet is right to the point."""
        assert sorted(books.completed(self.ids())) == sorted(self.ids(completed))
        spent: Counter[str] = Counter()
        for payment in completed:
            spent[payment.user_id] += payment.amount
        assert {user: books.balance(user) for user in self.filled} == {
            user: filled - spent[user] for user, filled in self.filled.items()
        }
