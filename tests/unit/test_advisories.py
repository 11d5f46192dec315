"""The audit of what the services are made of: a known fault fails it, a missing network does not."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tools.advisories import __main__ as advisories
from tools.advisories import asking, ignored, pins
from tools.advisories.pins import Pin
from tools.docker_engine import ROOT
from tools.loopback import free_ports

GOOD, BAD = Pin("good", "1.0"), Pin("bad", "2.0")
FAULT = {
    "id": "PYSEC-2026-7",
    "aliases": ["CVE-2026-7"],
    "fixed_in": ["2.1"],
    "summary": None,
    "details": "It lets strangers in.\nMore of it.",
    "withdrawn": None,
}
RELEASES = {"/pypi/good/1.0/json": {"vulnerabilities": []}, "/pypi/bad/2.0/json": {"vulnerabilities": [FAULT]}}


@contextmanager
def _index(pages: dict[str, Any], status: int = 200) -> Iterator[tuple[str, list[str]]]:
    """A package index on this machine, and what it was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            page = pages.get(self.path)
            self.send_response(status if page is not None or status != 200 else 404)
            self.end_headers()
            self.wfile.write(page if isinstance(page, bytes) else json.dumps(page).encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
            del format, args

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/pypi", asked
        finally:
            server.shutdown()
            thread.join()


class Desk:
    """The audit as CI runs it, in a folder of its own."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._home = home
        self._set = monkeypatch.setenv
        self.pinned = (
            "good==1.0 \\\n    --hash=sha256:aa\nbad==2.0 ; sys_platform == 'linux' \\\n    --hash=sha256:bb\n"
        )
        self.ignored = ""

    def run(self, source: str) -> int:
        """Its exit code."""
        self._set("ADVISORIES_URL", source)
        (self._home / "requirements.txt").write_text(self.pinned)
        (self._home / "ignored.toml").write_text(self.ignored)
        files = ["--ignored", str(self._home / "ignored.toml"), "--kept", str(self._home / "kept" / "answer.json")]
        return advisories.main([str(self._home / "requirements.txt"), *files])

    def ignore(self, id_: str, *, until: date, decided: date | None = None) -> None:
        """Put a fault on the list."""
        decided = decided or until - timedelta(days=30)
        self.ignored += (
            f'[[ignored]]\nid = "{id_}"\npackage = "bad"\nwhy = "we are no strangers"\n'
            f"decided = {decided}\nuntil = {until}\n"
        )


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """An audit of two releases, of which one is bad."""
    return Desk(tmp_path, monkeypatch)


def _today() -> date:
    return datetime.now(UTC).date()


def test_a_release_with_a_known_fault_fails_the_audit(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """Which one, by which names, and where it is mended."""
    with _index(RELEASES) as (source, _):
        assert desk.run(source) == 1
    told = capsys.readouterr().err
    assert told == "advisories: bad 2.0: PYSEC-2026-7, CVE-2026-7 (mended in 2.1): It lets strangers in.\n"


def test_releases_without_known_faults_pass(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """A fault that was withdrawn is none; a release that the index does not know is told."""
    withdrawn = {"vulnerabilities": [FAULT | {"withdrawn": "2026-01-01T00:00:00Z"}]}
    desk.pinned += "strange==3.0\n"
    with _index(RELEASES | {"/pypi/bad/2.0/json": withdrawn}) as (source, _):
        assert desk.run(source) == 0
    told = capsys.readouterr().out
    assert "strange 3.0 is not known there" in told
    assert "no known fault in 3 releases" in told


@pytest.mark.parametrize(
    ("pages", "status"),
    [({}, 404), ({}, 503), ({}, 403), (dict.fromkeys(RELEASES, b"<html>log in</html>"), 200)],
)
def test_an_index_that_does_not_answer_as_one_fails_nothing(
    desk: Desk, pages: dict[str, Any], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mirror without the API, a proxy that wants a login: the audit says that it was skipped."""
    with _index(pages, status) as (source, _):
        assert desk.run(source) == 0
    assert "advisories: skipped" in capsys.readouterr().out


def test_a_mirror_without_the_api_is_not_asked_for_everything(desk: Desk) -> None:
    """Nobody is bothered a hundred times to hear the same."""
    desk.pinned = "".join(f"strange{number}==1.0\n" for number in range(50))
    with _index(RELEASES) as (source, asked):
        assert desk.run(source) == 0
    assert len(asked) == 3


def test_without_a_network_the_audit_is_skipped_with_a_line(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody listens there; and where nobody is to be asked, nobody is."""
    assert desk.run(f"http://127.0.0.1:{free_ports(1)[0]}/pypi") == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("advisories: skipped")
    assert desk.run("") == 0
    assert "ADVISORIES_URL is empty" in capsys.readouterr().out


def test_an_index_that_goes_away_in_the_middle_fails_nothing_and_is_not_believed(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half an answer is none: the next run asks again."""
    half = {"/pypi/bad/2.0/json": {"vulnerabilities": []}, "/pypi/good/1.0/json": b"{"}
    with _index(half) as (source, _):
        assert desk.run(source) == 0
        assert "skipped" in capsys.readouterr().out
    with _index(RELEASES) as (source, _):
        assert desk.run(source) == 1


def test_an_ignored_fault_passes_until_its_day(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """By any of its names; and the reason is told each time."""
    desk.ignore("CVE-2026-7", until=_today())
    with _index(RELEASES) as (source, _):
        assert desk.run(source) == 0
        assert "we are no strangers" in capsys.readouterr().out
        desk.ignored = ""
        desk.ignore("CVE-2026-7", until=_today() - timedelta(days=1))
        assert desk.run(source) == 1
        assert "look again" in capsys.readouterr().out


def test_what_no_longer_needs_to_be_ignored_is_told(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """A list that only grows is read by nobody."""
    desk.ignore("PYSEC-2026-7", until=_today())
    with _index(RELEASES | {"/pypi/bad/2.0/json": {"vulnerabilities": []}}) as (source, _):
        assert desk.run(source) == 0
    assert "bad no longer has it" in capsys.readouterr().out


def test_nothing_is_ignored_without_a_reason_or_for_ever(desk: Desk) -> None:
    """Also where there is no network: the list itself is wrong."""
    desk.ignored = '[[ignored]]\nid = "X"\npackage = "bad"\nwhy = " "\ndecided = 2026-01-01\nuntil = 2026-02-01\n'
    with pytest.raises(ValueError, match="why"):
        desk.run("")
    desk.ignored = ""
    desk.ignore("X", decided=date(2026, 1, 1), until=date(2027, 1, 1))
    with pytest.raises(ValueError, match="half a year"):
        desk.run("")


def test_an_answer_is_kept_for_a_day_and_for_the_same_question(tmp_path: Path) -> None:
    """An index is asked once a day, however often the tests run; a new release is asked for at once."""
    kept = tmp_path / "answer.json"
    with _index(RELEASES) as (source, asked):
        first = asking.ask(source, [GOOD, BAD], kept, now=1000)
        assert first.faults
        assert asking.ask(source, [BAD, GOOD], kept, now=1000 + asking.KEPT_SECONDS - 1) == first
        assert len(asked) == 2
        asking.ask(source, [GOOD], kept, now=1000)
        assert len(asked) == 3
        asking.ask(source, [GOOD], kept, now=1000 + asking.KEPT_SECONDS)
        assert len(asked) == 4
        kept.write_text("{")
        asking.ask(source, [GOOD], kept, now=1000)
        assert len(asked) == 5


def test_all_that_the_services_are_made_of_is_asked_for_and_the_list_of_exceptions_can_be_read() -> None:
    """A file that is read wrongly would be an audit of nothing."""
    file = ROOT / "requirements" / "runtime.txt"
    found = pins.read(file)
    assert len(found) == sum("==" in line and not line.startswith(" ") for line in file.read_text().splitlines())
    assert {"aio-pika", "tortoise-orm", "pydantic"} <= {pin.name for pin in found}
    ignored.read(Path(advisories.__file__).with_name("ignored.toml"))
