"""The broker and the five services as one thing that is either running or not."""

import contextlib
from collections.abc import Iterator

from common import saga
from tools import broker
from tools.broker import Broker
from tools.processes import uninterrupted
from tools.stack import Stack


@contextlib.contextmanager
def together(stack: Stack, *, keep: bool) -> Iterator[Broker]:
    """Start what does not run; afterwards stop that again, unless all went well and it is to be kept.

    What ran before runs afterwards too, so a demo beside `make up` takes nothing away, not even interrupted.
    """
    before = stack.running
    broker_ran = broker.current() is not None
    fresh: tuple[str, ...] = ()
    kept = False
    try:
        found = broker.ensure()
        print(f"RabbitMQ runs. Its management UI: {found.management_url}", end="")
        print(f"   user {found.user}   password {found.password}")
        print("Starting the five services ...")
        fresh = stack.up(found.amqp_url)
        print(f"They run: {', '.join(saga.SERVICES)}" + ("" if fresh else " (and did before)"))
        try:
            yield found
        finally:
            for name in before:
                stack.start(name, found.amqp_url)
        kept = keep
    finally:
        if not kept and (fresh or not broker_ran):
            print("Stopping what was started ...")
            with uninterrupted():
                for name in stack.stop(*fresh):
                    print(f"{name} did not leave in time and was ended by force; see {stack.log(name)}")
                if not broker_ran:
                    broker.stop()
