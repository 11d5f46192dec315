"""The `saga` command tells the same in three ways, finds what it needs, and answers at once."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import typer

from ops import output, where
from ops.app import app, run
from ops.output import Exit
from tools.broker import docker
from tools.broker.private import Ports, PrivateBroker
from tools.loopback import free_ports

ROOT = Path(__file__).resolve().parents[2]
HOSTILE = "a\x1b[31mred\x07\r\nb\u202eevil\ud800[bold]c[/bold]"


def _leave(*arguments: str) -> object:
    with pytest.raises(SystemExit) as left:
        run(list(arguments))
    return left.value.code


def test_a_hostile_text_cannot_steer_a_terminal() -> None:
    """Reasons and ids come from whoever may publish: they must not clear the screen or hide what they are."""
    told = output.printable(HOSTILE)
    assert told == "a?[31mred???b?evil?[bold]c[/bold]"
    assert output.printable("x" * 3_000) == "x" * 2_000 + "…"


def test_a_table_in_a_pipe_is_lines_of_tabs(capsys: pytest.CaptureFixture[str]) -> None:
    """`cut` and `awk` read it, so a cell cannot add a column or a line, and nothing is cut off."""
    output.table(["id", "reason"], [["p-1", HOSTILE], ["p-2", "w" * 500]], title="not told here")
    header, first, second = capsys.readouterr().out.splitlines()
    assert header == "id\treason"
    assert first.split("\t") == ["p-1", output.printable(HOSTILE)]
    assert second == "p-2\t" + "w" * 500


def test_on_a_terminal_markup_in_a_text_is_only_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rich would read `[bold]` as an order, and fail on a tag that nobody opened."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("TERM", "xterm")
    output.table(["[red]id"], [["[bold]c[/bold][/]"]], title="[/red]")
    output.say("[/]it [link=x]ends[/link]\x1b[2J", style="red")
    output.console().print("[green]by Rich's own way[/green]")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", screen.getvalue())
    for text in ("[red]id", "[bold]c[/bold][/]", "[/red]", "[/]it [link=x]ends[/link]?[2J", "[green]by"):
        assert text in plain
    assert "\x1b[2J" not in screen.getvalue()


def test_json_tells_times_lengths_and_names_and_survives_any_text(capsys: pytest.CaptureFixture[str]) -> None:
    """A program reads it back; half a character in a parked message must not end the command."""
    at = datetime(2026, 11, 22, tzinfo=UTC)
    output.tell_json(
        {"at": at, "took": timedelta(seconds=2), "exit": Exit.NEGATIVE, "text": HOSTILE, "set": {"b"}}
    )
    told = capsys.readouterr().out
    told.encode()
    assert json.loads(told) == {
        "at": at.isoformat(), "took": 2.0, "exit": 1, "text": HOSTILE, "set": ["b"],
    }  # fmt: skip


def test_a_broker_that_is_away_is_one_line_without_the_password(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator at three in the morning reads one line; a log keeps no secret."""
    (port,) = free_ports(1)
    monkeypatch.setenv("RABBITMQ_URL", f"amqp://watcher:s3cret@127.0.0.1:{port}/")
    assert _leave("enter", "--user", "u-1") == Exit.COULD_NOT_LOOK
    told = capsys.readouterr()
    assert told.out == ""
    (line,) = told.err.splitlines()
    assert line.startswith(f"saga: could not look: No broker answers at 127.0.0.1:{port} (user watcher)")
    assert "s3cret" not in line


@pytest.mark.parametrize("url", ["http://localhost", "amqp://", "amqp://[::1/", "amqp://h:99999/", "x"])
def test_an_address_that_is_none_is_said_to_be_wrong(
    url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slip in RABBITMQ_URL is no reason for a traceback."""
    monkeypatch.setenv("RABBITMQ_URL", url)
    assert _leave("enter", "--user", "u-1") == Exit.COULD_NOT_LOOK
    assert "RABBITMQ_URL must be like amqp://" in capsys.readouterr().err


def test_the_version_is_that_of_the_project(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever reports a fault says which program had it; the image does not hold pyproject.toml to look."""
    assert _leave("--version") == 0
    told = capsys.readouterr().out
    assert told == f"saga {tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']['version']}\n"


def _commands() -> list[str]:
    return sorted(getattr(typer.main.get_command(app), "commands", {}))


def test_every_room_has_its_commands() -> None:
    """A room that nobody registers cannot be entered."""
    wanted = {"pay", "hold", "top-up", "enter", "outcome", "abort", "watch", "show", "list", "dead", "parked"}
    assert wanted | {"doctor", "topology", "board", "audit", "acts"} == set(_commands())


@pytest.mark.parametrize("name", _commands())
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` is the first thing a new operator types, and it is plain in a pipe."""
    assert _leave(name, "--help") == 0
    told = capsys.readouterr().out
    assert told.startswith(f"Usage: saga {name} ")
    assert "\x1b" not in told
    assert "─" not in told


@pytest.mark.parametrize("name", ["pay", "hold", "top-up", "enter", "outcome", "abort"])
def test_an_example_of_the_help_can_be_typed(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An example that is refused teaches distrust. Here it gets as far as the broker, which is away."""
    (port,) = free_ports(1)
    monkeypatch.setenv("RABBITMQ_URL", f"amqp://127.0.0.1:{port}/")
    monkeypatch.setattr(where, "HOME", tmp_path)
    _leave(name, "--help")
    (example,) = [line for line in capsys.readouterr().out.splitlines() if "Example: saga " in line]
    assert _leave(*shlex.split(example)[2:]) == Exit.COULD_NOT_LOOK
    assert "could not look" in capsys.readouterr().err


def test_help_is_told_without_importing_what_is_heavy() -> None:
    """Databases' and brokers' clients take a second to import, which `--help` and each Tab press would wait."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "ops", "--help"],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert not imported & {
        "aio_pika",
        "aiormq",
        "aiohttp",
        "asyncpg",
        "tortoise",
        "pydantic_settings",
        "structlog",
    }
    assert "Usage: saga" in done.stdout


def test_the_script_at_the_top_is_the_command_and_completes_its_words(tmp_path: Path) -> None:
    """It is called from anywhere, by a link on the PATH too, and the shell asks it for the words that fit."""
    link = tmp_path / "saga"
    link.symlink_to(ROOT / "saga")
    # Without an environment of its own beside it, as in the image, it takes the Python of the PATH.
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    asked = {"_SAGA_COMPLETE": "complete_bash", "COMP_WORDS": "saga pa", "COMP_CWORD": "1", "PATH": path}
    done = subprocess.run(
        ["sh", link], env=os.environ | asked, cwd="/", capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout.split() == ["pay", "parked"], done.stderr


def test_what_the_environment_says_comes_first(tmp_path: Path) -> None:
    """Whoever names a broker means it, whatever runs on this machine."""
    named = {
        "RABBITMQ_URL": "amqp://u:p%40@there:5672/a%2Fb",
        "DATABASE_URL_POINT": "postgres://point@there/point",
    }
    PrivateBroker(tmp_path / "broker" / "private", ports=Ports(*free_ports(4))).stop()
    assert where.broker_url(named, tmp_path) == named["RABBITMQ_URL"]
    assert where.management_url(named, tmp_path) == "http://u:p%40@there:15672?vhost=a%2Fb"
    named |= {"RABBITMQ_MANAGEMENT_URL": "https://watcher:w@there/api/"}
    assert where.management_url(named, tmp_path) == "https://watcher:w@there/api?vhost=a%2Fb"
    databases = where.database_urls(named, tmp_path)
    assert databases["point"] == named["DATABASE_URL_POINT"]
    assert databases["queue"] == f"sqlite://{tmp_path}/data/queue.sqlite3"


def test_a_broker_on_an_unusual_port_tells_no_management_api() -> None:
    """To guess would mean to ask a stranger's."""
    assert where.management_url({"RABBITMQ_URL": "amqp://h:5673/"}) is None
    assert where.management_url({"RABBITMQ_URL": "amqps://u@h/"}) == "https://u@h:15671"


def test_without_a_word_it_is_what_make_up_started(tmp_path: Path) -> None:
    """After `make up` nothing has to be configured. What that writes is read here, by no common code."""
    assert where.broker_url({}, tmp_path) == "amqp://guest:guest@127.0.0.1:5672/"
    kept = docker._new(tmp_path / "broker")
    assert where.broker_url({}, tmp_path) == docker._broker(kept, "").amqp_url
    assert where.management_url({}, tmp_path) == f"http://saga:{kept.password}@127.0.0.1:{kept.management}"
    node = PrivateBroker(tmp_path / "broker" / "private")
    node.directory.mkdir()
    node._save()
    assert where.broker_url({}, tmp_path) == node.broker.amqp_url
    assert where.management_url({}, tmp_path) == f"http://saga:{node.broker.password}@127.0.0.1:" + str(
        node._node.ports.management
    )


@pytest.mark.parametrize("text", ["", "[]", "null", '{"password": 1, "ports": {"amqp": 1, "management": 2}}', "{"])
def test_a_broken_note_of_a_broker_is_none(text: str, tmp_path: Path) -> None:
    """A `make up` that was cut off must not break every command after it."""
    file = tmp_path / "broker" / "private" / "node.json"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    assert where.broker_url({}, tmp_path) == "amqp://guest:guest@127.0.0.1:5672/"


def test_an_address_is_shown_without_its_password() -> None:
    """Reports are pasted into tickets."""
    assert where.without_password("postgres://u:p@[::1]:5432/db?x=p") == "postgres://u@[::1]:5432/db"
    assert where.without_password("http://[") == "an address that cannot be read"
