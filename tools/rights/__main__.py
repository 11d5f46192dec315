"""`python -m tools.rights`: the broker's users and what they may do, from the saga table.

  definitions   write a document that a broker loads when it starts; passwords that are missing are made
  apply         bring a running broker there, through its management API; asked again, it changes nothing
  declare       declare exchanges, queues and bindings, as the user `deployer`
  rotate USER   a new password for a user, while everything runs
  show          what each user may do

The management API is RABBITMQ_MANAGEMENT_URL, with the login of an administrator and, as `?vhost=name`, a virtual
host other than `/`. Passwords stand in one file a user, `SECRETS/<user>.url`, and hashed in the broker.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path

from common import bus, rights, topology
from common.rights import Role, User
from common.settings import Delay, Settings
from tools.rights import definitions, running
from tools.rights.secrets import Secrets, hashed

_DELAYS = ",".join(delay.text for delay in Settings.model_fields["retry_delays"].default)


def main(arguments: list[str] | None = None) -> int:
    """Do what the arguments say; 1 and a sentence if it cannot be done."""
    wanted = _parser().parse_args(arguments)
    try:
        return _do(wanted)
    except (running.RefusedError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1


def _do(wanted: argparse.Namespace) -> int:
    delays = [Delay.parse(part) for part in wanted.delays.split(",")]
    secrets = Secrets(wanted.secrets, wanted.broker)
    others = _others(wanted)
    granted = rights.grants(topology.derive(delays), others)
    match wanted.command:
        case "definitions":
            made = definitions.document(
                delays, lambda user: hashed(secrets.password(user)), others=others, vhost=wanted.vhost
            )
            _write(wanted.out, definitions.written(made))
        case "apply":
            broker = _broker()
            changes = list(running.apply(broker, granted, secrets))
            print("\n".join(changes) or "nothing to change")
            for stranger in running.strangers(broker, granted):
                print(f"{stranger} may enter {broker.vhost}, too, and is not in the table", file=sys.stderr)
        case "declare":
            asyncio.run(_declare(secrets.file(rights.DEPLOYER.name).read_text().strip(), delays))
        case "rotate":
            running.rotate(_broker(), wanted.user, secrets)
        case "show":
            for one in granted:
                print(f"{one.user.name} ({one.user.role})  configure {one.configure}")
                print(f"    write {one.write}\n    read  {one.read}")
                for topic in one.topics:
                    print(f"    {topic.exchange}: publish {topic.write}, bind {topic.read}")
    return 0


async def _declare(url: str, delays: list[Delay]) -> None:
    async with bus.open_session(url, rights.DEPLOYER.name) as session:
        await session.declare(topology.derive(delays))


def _broker() -> running.Broker:
    url = os.environ.get("RABBITMQ_MANAGEMENT_URL")
    if not url:
        raise running.RefusedError("RABBITMQ_MANAGEMENT_URL must name the management API")
    return running.Broker(url)


def _others(wanted: argparse.Namespace) -> tuple[User, ...]:
    roles = {Role.CLIENT: wanted.client, Role.LOOKS: wanted.observer, Role.ACTS: wanted.operator}
    named = [User(name, role) for role, names in roles.items() for name in names or ()]
    missing = [user for user in rights.OTHERS if not roles.get(user.role)]
    return (*missing, *named)


def _write(place: Path | None, text: str) -> None:
    if place is None:
        sys.stdout.write(text)
        return
    # Hashes are no passwords, but whoever has them can try millions a second.
    with os.fdopen(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.rights", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--secrets", type=Path, default=Path("var/secrets"), help="where the users' files are")
    common.add_argument("--broker", default="amqp://127.0.0.1:5672/", help="the address in files that are made")
    common.add_argument("--delays", default=_DELAYS, help="RETRY_DELAYS of the services")
    for role in ("client", "observer", "operator"):
        common.add_argument(f"--{role}", action="append", metavar="NAME", help=f"a user; default: one, `{role}`")
    commands = parser.add_subparsers(dest="command", required=True)
    document = commands.add_parser("definitions", parents=[common])
    document.add_argument("--vhost", default="/")
    document.add_argument("--out", type=Path, help="default: standard output")
    for name in ("apply", "declare", "show"):
        commands.add_parser(name, parents=[common])
    commands.add_parser("rotate", parents=[common]).add_argument("user")
    return parser


if __name__ == "__main__":
    sys.exit(main())
