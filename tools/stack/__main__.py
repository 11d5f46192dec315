"""`python -m tools.stack up|down|status`: the broker and the five services, left running."""

import asyncio
import sys

from common import saga
from tools import broker, seat
from tools.broker import BrokerError
from tools.processes import terminated_like_interrupted
from tools.stack import Stack, StackError
from tools.stack.together import together


def up() -> None:
    """Start what does not run, prepare one seat, and tell where everything is."""
    stack = Stack()
    with together(stack, keep=True) as found:
        payment = asyncio.run(seat.prepare(found))
    print(f"Databases: {stack.home / 'data'}   logs: {stack.home / 'log'}")
    seat.tell(found, payment)
    print(f"What became of it: ./saga show {payment.payment_id}   all of them, live: ./saga watch")
    print("`make down` stops everything and keeps what was done; `make up` goes on from there.")


def down() -> None:
    """Stop the services, then the broker if it is ours."""
    stack = Stack()
    was_running = stack.running
    for name in stack.down():
        print(f"{name} did not leave in time and was ended by force; {stack.log(name)} may say why")
    broker.stop()
    print(f"Stopped: {', '.join(was_running) or 'nothing ran'}")


def status() -> bool:
    """Say what runs; whether all of it does and takes messages."""
    stack = Stack()
    well = True
    for name in saga.SERVICES:
        ready = name in stack.running and stack.service(name).ready
        well = well and ready
        if name in stack.running:
            service = stack.service(name)
            state = "ready" if ready else "not ready"
            print(f"{name:<12} {state:<10} pid {service.running.pid}, health port {service.port}")
        else:
            print(f"{name:<12} stopped")
    found = broker.current()
    print(f"{'broker':<12} {found.management_url if found else 'stopped'}")
    return well and found is not None


def main() -> int:
    """Do what the one argument says; 1 and a sentence if it cannot be done, 2 if it is not understood."""
    try:
        with terminated_like_interrupted():
            match sys.argv[1:]:
                case ["up"]:
                    up()
                case ["down"]:
                    down()
                case ["status"]:
                    return 0 if status() else 1
                case _:
                    print(__doc__)
                    return 2
    except (BrokerError, StackError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted: what was started has been stopped.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
