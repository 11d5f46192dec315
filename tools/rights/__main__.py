"""`python -m tools.rights`: the broker's users and what they may do, from the saga table.

  definitions   write a document that a broker loads when it starts; passwords that are missing are made
  apply         bring a running broker there, through its management API; asked again, it changes nothing
  declare       declare exchanges, queues and bindings, as the user `deployer`
  rotate USER   a new password for a user, while everything runs
  show          what each user may do

The management API is RABBITMQ_MANAGEMENT_URL, or stands in the file that RABBITMQ_MANAGEMENT_URL_FILE names, with
the login of an administrator and, as `?vhost=name`, a virtual host other than `/`; of https, with `cafile=`,
`certfile=` and `keyfile=`, as for the broker. Passwords stand in one file a user, `SECRETS/<user>.url`, and hashed
in the broker.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from common import bus, rights, topology
from common.rights import Role, User
from common.setting_files import FileError, content_of
from common.settings import Delay, Settings
from tools.rights import definitions, running
from tools.rights.secrets import Secrets, hashed

_MANAGEMENT = "RABBITMQ_MANAGEMENT_URL"
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
    lanes = _lanes(wanted, others)
    granted = rights.grants(topology.derive(delays, lanes), others)
    match wanted.command:
        case "definitions":
            made = definitions.document(
                delays, lambda user: hashed(secrets.password(user)), others=others, lanes=lanes, vhost=wanted.vhost
            )
            _write(wanted.out, definitions.written(made))
        case "apply":
            broker = _broker()
            changes = list(running.apply(broker, granted, secrets))
            print("\n".join(changes) or "nothing to change")
            for stranger in running.strangers(broker, granted):
                print(f"{stranger} may enter {broker.vhost}, too, and is not in the table", file=sys.stderr)
        case "declare":
            asyncio.run(_declare(secrets.file(rights.DEPLOYER.name).read_text().strip(), delays, lanes))
        case "rotate":
            running.rotate(_broker(), wanted.user, secrets)
        case "show":
            for one in granted:
                print(f"{one.user.name} ({one.user.role})  configure {one.configure}")
                print(f"    write {one.write}\n    read  {one.read}")
                for topic in one.topics:
                    print(f"    {topic.exchange}: publish {topic.write}, bind {topic.read}")
                if one.most:
                    print(f"    at most {one.most.connections} connections and {one.most.channels} channels")
    return 0


async def _declare(url: str, delays: list[Delay], lanes: list[str]) -> None:
    async with bus.open_session(url, rights.DEPLOYER.name) as session:
        await session.declare(topology.derive(delays, lanes))


def _broker() -> running.Broker:
    try:
        url = content_of(_MANAGEMENT) or os.environ.get(_MANAGEMENT)
    except FileError as error:
        raise running.RefusedError(str(error)) from None
    if not url:
        raise running.RefusedError(f"{_MANAGEMENT}, or {_MANAGEMENT}_FILE, must name the management API")
    return running.Broker(url)


def _others(wanted: argparse.Namespace) -> tuple[User, ...]:
    roles = {Role.CLIENT: wanted.client, Role.LOOKS: wanted.observer, Role.ACTS: wanted.operator}
    named = [User(name, role) for role, names in roles.items() for name in names or ()]
    missing = [user for user in rights.OTHERS if not roles.get(user.role)]
    return (*missing, *named)


def _lanes(wanted: argparse.Namespace, others: Iterable[User]) -> list[str]:
    lanes: list[str] = wanted.lane or []
    clients = {user.name for user in others if user.role is Role.CLIENT}
    for lane in lanes:
        if lane not in clients:
            raise ValueError(f"{lane} is no client, so there is no lane for them: --client {lane}")
    return lanes


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
    lane = "a client with a queue of its own for commands, as LANES of the services says"
    common.add_argument("--lane", action="append", metavar="CLIENT", help=lane)
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
