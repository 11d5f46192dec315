"""Books written by the services' own handlers: a payment for each way in which a saga can end, and an open one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from common import saga
from common.life import Life
from common.messages import TYPES, Body, Enter, Hold, Message, Pay, TopUp, decode_stored
from common.outbox import OutboxRow
from common.recovery import Dead, DeadLetter, Done
from notify_svc import sender
from tests.support.bench import bench

WHOLE = "p-whole"
OPEN = "p-open"
PRICE = 30
#: The price of the payment that nobody may make.
_TOO_MUCH = 1_000_001


def story() -> list[Body]:
    """What clients ask for; each payment is named after the step that refuses it."""
    asked: list[Body] = []
    for name in ("whole", "payment", "reservation", "point", "queue", "open"):
        amount = _TOO_MUCH if name == "payment" else PRICE
        asked += [
            Hold(reservation_id=f"r-{name}", user_id=name, seat=f"s-{name}", price=amount),
            TopUp(top_up_id=f"u-{name}", user_id=name, amount=PRICE - 1 if name == "point" else 1000),
            Enter(token=f"t-{name}", user_id="somebody" if name == "queue" else name),
            Pay(
                payment_id=f"p-{name}",
                user_id=name,
                reservation_id="r-none" if name == "reservation" else f"r-{name}",
                token=f"t-{name}",
                amount=amount,
            ),
        ]
    return asked


async def write(urls: Mapping[str, str]) -> None:
    """Let the services tell the story into these databases; what the open payment says to point is lost."""
    inboxes: dict[str, list[Message]] = defaultdict(list)

    def deliver(message: Message) -> None:
        for service in saga.SERVICES:
            keys = (*saga.command_keys(service), *saga.event_keys(service))
            heard = message.type in keys or (message.type.endswith(".failed") and saga.ANY_FAILED in keys)
            if heard and (service, message.key) != ("point", OPEN):
                inboxes[service].append(message)

    for body in story():
        deliver(Message(next(key for key, kind in TYPES.items() if kind is type(body)), body))
    while any(inboxes.values()):
        for service in saga.SERVICES:
            messages, inboxes[service] = inboxes[service], []
            for event in await _work(urls[service], service, messages):
                deliver(event)


async def _work(url: str, service: str, messages: Sequence[Message]) -> list[Message]:
    """Let one service do messages, and give what it says."""
    async with bench(service, url) as here:
        for message in messages:
            (outcome,) = await here.do(message)
            if isinstance(outcome, Dead):
                (outcome,) = await here.bury(DeadLetter(message, outcome.reason, outcome.detail, 1))
            assert outcome == Done()
        if service == "notify":
            await sender.deliver(Life("notify"), here.unit_of_work, sender.to_log, here.observers)
        said = [Message(row.type, decode_stored(row.type, row.body)) for row in await OutboxRow.all()]
        await OutboxRow.all().delete()
        return said
