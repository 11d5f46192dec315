"""Secrets by file: every setting can be read from one, and no message of an error repeats what is in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.settings import Settings, load
from notify_svc.__main__ import NotifySettings


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RABBITMQ_URL", "DATABASE_URL", "RETRY_DELAYS", "NOTIFY_URLS", "BATCH_SIZE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(f"{name}_FILE", raising=False)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("RABBITMQ_URL", "amqps://point:hush@broker/", "amqps://point:hush@broker/"),
        ("DATABASE_URL", "postgres://point:hush@db/point", "postgres://point:hush@db/point"),
        ("NOTIFY_URLS", "mailto://a:hush@x.org json://y", ("mailto://a:hush@x.org", "json://y")),
        ("BATCH_SIZE", "7", 7),
    ],
)
def test_a_setting_is_read_from_the_file_that_is_named_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str, value: object
) -> None:
    """As Docker and Kubernetes hand out secrets: with or without a newline at the end."""
    file = tmp_path / "secret"
    file.write_text(f"{text}\n")
    monkeypatch.setenv(f"{name}_FILE", str(file))
    settings = load(NotifySettings)
    assert getattr(settings, name.lower()) == value
    assert "hush" not in repr(settings)
    assert "hush" not in str(settings)


def test_the_address_of_the_broker_is_read_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each session asks for it, so that a password changes without a stop."""
    file = tmp_path / "point.url"
    file.write_text("amqp://point:old@broker/")
    monkeypatch.setenv("RABBITMQ_URL_FILE", str(file))
    settings = load(Settings)
    file.write_text("amqp://point:new@broker/")
    assert settings.broker() == "amqp://point:new@broker/"
    monkeypatch.delenv("RABBITMQ_URL_FILE")
    assert settings.broker() == "amqp://point:old@broker/"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "No such file or directory"),
        (b"", "is empty"),
        (b"hush" * 20_000, "is too long"),
        (b"hush\xff", "is no text"),
        (b"http://point:hush@broker/", "RABBITMQ_URL: Value error, must start with amqp:// or amqps://"),
    ],
)
def test_a_file_that_cannot_be_meant_stops_the_service_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, told: str
) -> None:
    """It names the variable and the file, and not what is in it."""
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.setenv("RABBITMQ_URL_FILE", str(file))
    with pytest.raises(SystemExit) as stopped:
        load(Settings)
    line = str(stopped.value)
    assert told in line
    assert line.startswith("wrong setting: RABBITMQ_URL")
    assert "hush" not in line
    assert "\n" not in line


def test_a_setting_is_given_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An old variable that was forgotten must not win over the secret, nor lose silently."""
    monkeypatch.setenv("DATABASE_URL_FILE", str(tmp_path / "secret"))
    monkeypatch.setenv("DATABASE_URL", "sqlite:////tmp/x")
    with pytest.raises(SystemExit, match="DATABASE_URL and DATABASE_URL_FILE are both set"):
        load(Settings)
