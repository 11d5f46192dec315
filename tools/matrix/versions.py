"""The exact versions of what a combination is made of, asked of the programs themselves."""

from __future__ import annotations

import re
from pathlib import Path

from tools.broker.private import find_server
from tools.docker_engine import SetupError, answer

#: What each program calls itself, in a text that may hold more.
_NUMBER = re.compile(r"\d+(\.\d+)*")
#: A busy machine takes its time to start a container.
_SECONDS = 300
_ERLANG = ("-noshell", "-eval", 'io:fwrite("~s", [erlang:system_info(otp_release)]), halt().')


def in_images(rabbitmq: str, postgres: str, service: str) -> dict[str, str]:
    """The versions inside three images; raises SetupError."""

    def ask(image: str, *command: str) -> str:
        return _number(
            command[0], answer("docker", "run", "--rm", "--entrypoint", *_split(image, command), seconds=_SECONDS)
        )

    return {
        "rabbitmq": ask(rabbitmq, "rabbitmqctl", "version"),
        "erlang": ask(rabbitmq, "erl", *_ERLANG),
        "postgres": ask(postgres, "postgres", "--version"),
        "python": ask(service, "python", "--version"),
    }


def on_this_machine(python: Path) -> dict[str, str]:
    """The versions that the native tests meet: the installed broker, the newest PostgreSQL, this Python."""
    servers = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    asked: dict[str, tuple[str, ...]] = {
        "rabbitmq": (str(find_server().with_name("rabbitmqctl")), "version"),
        "erlang": ("erl", *_ERLANG),
        "postgres": (str(servers[-1]) if servers else "postgres", "--version"),
        "python": (str(python), "--version"),
    }
    return {name: _number(name, answer(*command, seconds=_SECONDS)) for name, command in asked.items()}


def _split(image: str, command: tuple[str, ...]) -> tuple[str, ...]:
    return (command[0], image, *command[1:])


def _number(what: str, told: str | None) -> str:
    found = _NUMBER.search(told or "")
    if found is None:
        raise SetupError(f"{what} does not say which version it is: {told!r}")
    return found[0]
