"""Where the operators' commands find addresses with passwords in them: in files, as the services do."""

from __future__ import annotations

from pathlib import Path

import pytest

from common import saga
from ops import where
from ops.letters import users
from ops.output import CannotLookError
from tools.rights import __main__ as rights

FAR = "amqps://kim:hush@far:5671/"


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """An environment that names files, and says nothing by itself."""
    told = {
        "RABBITMQ_URL": f"{FAR}tickets?cafile=/c/ca.pem&certfile=/c/kim.pem",
        "RABBITMQ_MANAGEMENT_URL": "https://kim:hush@far:15671?vhost=tickets",
        **{f"DATABASE_URL_{name.upper()}": f"postgres://{name}:hush@far/{name}" for name in saga.SERVICES},
    }
    for name, content in told.items():
        (tmp_path / name).write_text(f"{content}\n")
    return {f"{name}_FILE": str(tmp_path / name) for name in told}


def test_every_address_can_be_read_from_a_file(files: dict[str, str], tmp_path: Path) -> None:
    """A password in the environment is handed on to every program that is started from there."""
    assert where.broker_url(files, tmp_path).startswith(f"{FAR}tickets?")
    assert str(where.management_url(files, tmp_path)).startswith(
        "https://kim:hush@far:15671?vhost=tickets&cafile="
    )
    databases = where.database_urls(files, tmp_path)
    assert databases == {name: f"postgres://{name}:hush@far/{name}" for name in saga.SERVICES}
    assert where.databases_of_the_broker(files, tmp_path) == databases


def test_a_broker_in_a_file_is_as_far_away_as_one_in_a_variable(files: dict[str, str], tmp_path: Path) -> None:
    """What `make up` left here must not be taken for its databases."""
    broker = {"RABBITMQ_URL_FILE": files["RABBITMQ_URL_FILE"]}
    with pytest.raises(CannotLookError, match="no DATABASE_URL_<SERVICE>"):
        where.databases_of_the_broker(broker, tmp_path)


@pytest.mark.parametrize("name", ["RABBITMQ_URL", "RABBITMQ_MANAGEMENT_URL", "DATABASE_URL_POINT"])
def test_a_file_that_cannot_be_meant_is_told_by_its_name(files: dict[str, str], tmp_path: Path, name: str) -> None:
    """Nothing else is looked at instead: that might be another system."""

    def ask(environment: dict[str, str]) -> str:
        look = where.database_urls if name.startswith("DATABASE") else where.management_url
        with pytest.raises(CannotLookError) as refused:
            look(environment, tmp_path)
        return str(refused.value)

    assert "are both set; only one can be meant" in ask(files | {name: "amqp://kim:hush@near"})
    Path(files[f"{name}_FILE"]).write_text("")
    assert ask(files) == f"{name}_FILE: {files[f'{name}_FILE']} is empty"
    Path(files[f"{name}_FILE"]).unlink()
    assert ask(files) == f"{name}_FILE: {files[f'{name}_FILE']}: No such file or directory"


def test_the_management_api_is_entered_as_the_broker_is(files: dict[str, str], tmp_path: Path) -> None:
    """Login and certificates stand in one place; and what somebody says in a command needs neither."""
    del files["RABBITMQ_MANAGEMENT_URL_FILE"]
    certificates = "vhost=tickets&cafile=%2Fc%2Fca.pem&certfile=%2Fc%2Fkim.pem"
    assert where.management_url(files, tmp_path) == f"https://kim:hush@far:15671?{certificates}"
    other = where.management_url(files, tmp_path, told="https://near:15671")
    assert other == f"https://kim:hush@near:15671?{certificates}"
    public = where.management_url(files, tmp_path, told="https://near?vhost=x&tls=true")
    assert public == "https://kim:hush@near?vhost=x&tls=true"
    plain = where.management_url(files, tmp_path, told="http://near:15672")
    assert plain == "http://kim:hush@near:15672?vhost=tickets"


def test_the_rights_tool_reads_its_administrators_login_from_a_file(
    files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is the one login with which everything can be done."""
    monkeypatch.delenv("RABBITMQ_MANAGEMENT_URL", raising=False)
    words = ["rotate", "point", "--secrets", str(tmp_path / "secrets")]
    assert rights.main(words) == 1
    assert "RABBITMQ_MANAGEMENT_URL, or RABBITMQ_MANAGEMENT_URL_FILE, must name" in capsys.readouterr().err
    file = Path(files["RABBITMQ_MANAGEMENT_URL_FILE"])
    monkeypatch.setenv("RABBITMQ_MANAGEMENT_URL_FILE", str(file))
    file.write_text("http://admin:hush@127.0.0.1:1")
    assert rights.main(words) == 1
    told = capsys.readouterr().err
    assert told.startswith("No management API answers at 127.0.0.1:1")
    assert "hush" not in told
    monkeypatch.setenv("RABBITMQ_MANAGEMENT_URL", "http://admin:hush@near")
    assert rights.main(words) == 1
    assert "are both set" in capsys.readouterr().err


async def test_nothing_is_replayed_from_a_queue_of_which_nobody_knows_whether_it_gives_back() -> None:
    """Taken for good, a letter that is rejected in a queue of an older version would be lost."""
    with pytest.raises(CannotLookError, match=r"Nothing is replayed while nobody knows .* API answers"):
        await users.without_a_way_back("http://127.0.0.1:1")
