"""`python -m tools.broker start|stop|forget|install`: the broker alone."""

import sys

from tools.broker import BrokerError, ensure, ensure_server, stop


def main() -> int:
    """Do what the one argument says; 1 and a sentence if it cannot be done, 2 if it is not understood."""
    try:
        match sys.argv[1:]:
            case ["start"]:
                broker = ensure()
                print(f"AMQP        {broker.amqp_url}")
                print(f"management  {broker.management_url} (user {broker.user}, password {broker.password})")
            case ["stop"]:
                stop()
            case ["forget"]:
                stop(forget=True)
            case ["install"]:
                print(f"rabbitmq-server is {ensure_server()}")
            case _:
                print(__doc__)
                return 2
    except BrokerError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
