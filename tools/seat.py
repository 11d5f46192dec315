"""One seat for the person at the terminal: held, with points and a token, so that one line pays for it."""

import secrets
from datetime import UTC, datetime, timedelta

from common import saga
from common.messages import Enter, Hold, Pay, TopUp
from tools import typed
from tools.broker import Broker
from tools.client import connect

_PRICE = 120_000
_HELD = timedelta(hours=24)


async def prepare(broker: Broker) -> Pay:
    """Hold a seat, fill a wallet, issue a token; return the payment that is missing."""
    mark = secrets.token_hex(3)
    user, seat, token = f"you-{mark}", f"seat-{mark}", f"token-{mark}"
    async with connect(broker.amqp_url, lambda _: None) as client:
        await client.ask(
            [
                Hold(
                    reservation_id=seat,
                    user_id=user,
                    seat=seat,
                    price=_PRICE,
                    held_until=datetime.now(UTC) + _HELD,
                ),
                TopUp(top_up_id=f"gift-{mark}", user_id=user, amount=2 * _PRICE),
                Enter(token=token, user_id=user),
            ]
        )
    return Pay(payment_id=f"mine-{mark}", user_id=user, reservation_id=seat, token=token, amount=_PRICE)


def tell(broker: Broker, payment: Pay) -> None:
    """Print where a person can watch the broker, and the lines of which any one pays."""
    print(f"Management UI: {broker.management_url}   user {broker.user}   password {broker.password}")
    print("A seat is held for you until tomorrow. Any one of these lines pays for it:\n")
    body = payment.model_dump(mode="json", exclude_none=True)
    for tool, line in typed.lines(broker, saga.FIRST.on, body).items():
        print(f"# {tool}\n{line}\n")
