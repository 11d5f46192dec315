"""Who may say what: the pure rule, its patterns, and the documents and files that are made of it."""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import rights, saga, topology
from common.rights import Role, User
from common.settings import Delay
from tools.generate import ROOT
from tools.rights import definitions
from tools.rights.__main__ import main
from tools.rights.secrets import Secrets, hashed, matches

DELAYS = (Delay.parse("1s"), Delay.parse("5m"))
OBJECTS = topology.derive(DELAYS)
GRANTS = {one.user.name: one for one in rights.grants(OBJECTS)}


def allows(pattern: str, name: str) -> bool:
    """Whether the broker, which looks anywhere in a name, would let it pass."""
    return re.search(pattern, name) is not None


def publishes(user: str, exchange: str, key: str) -> bool:
    """Whether both of the broker's questions are answered with yes."""
    one = GRANTS[user]
    topic = next(it for it in one.topics if it.exchange == exchange)
    return allows(one.write, exchange) and allows(topic.write, key)


def test_every_event_has_one_owner_who_alone_may_say_it() -> None:
    """A second one could mint what the first accounts for."""
    for service in saga.SERVICES:
        for key in saga.emitted_keys(service):
            assert rights.owner_of(key) == service
            assert [
                user for user in (*saga.SERVICES, "client", "saga", "", None) if rights.may_say(user, key)
            ] == [service]
            assert [user for user in GRANTS if publishes(user, topology.EVENTS, key)] == [service]


def test_nobody_may_say_what_the_table_rules_out() -> None:
    """A failure after the pivot would undo a payment that is complete."""
    assert not any(rights.may_say(user, "notify.failed") for user in (*GRANTS, "notify", None))
    assert not any(publishes(user, exchange, "notify.failed") for user in GRANTS for exchange in OBJECTS.exchanges)


def test_commands_are_anybodys_whom_the_broker_lets_publish_them() -> None:
    """A person with rabbitmqadmin signs nothing."""
    for service in saga.SERVICES:
        for key in saga.command_keys(service):
            assert all(rights.may_say(user, key) for user in ("client", "anybody", None))
            assert {user for user in GRANTS if publishes(user, topology.EVENTS, key)} == {"client", "operator"}


@pytest.mark.parametrize("way", ["return", "replay", "abort", "dead", "parked", "history", "retry.1s"])
def test_a_key_of_recovery_is_no_type(way: str) -> None:
    """Unbelieved, it comes from somebody who should not know it."""
    assert not any(rights.may_say(user, f"point.{way}") for user in (*GRANTS, None))


def test_what_no_version_knows_is_not_judged() -> None:
    """Nothing is done about it; a newer twin, which knows whose it is, asks again."""
    assert rights.may_say(None, "payment.refund")
    assert rights.may_say("client", "")


def test_an_operator_may_abort_and_no_service() -> None:
    """A service has its own way to fail a saga: its own."""
    assert rights.may_abort("kim")
    assert not any(rights.may_abort(user) for user in (*saga.SERVICES, None))


@pytest.mark.parametrize(
    ("user", "wanted", "checked"),
    [("point", None, True), ("saga", None, False), ("saga", "owners", True), ("point", "anybody", False)],
)
def test_publishers_are_checked_where_each_service_has_its_own_user(
    user: str, wanted: str | None, *, checked: bool
) -> None:
    """With one user for all, nobody could be told from another."""
    assert rights.are_checked("point", user, wanted) is checked


def test_no_service_may_declare_or_bind_or_read_what_is_anothers() -> None:
    """A queue of one's own could dead-letter under somebody else's key."""
    for service in saga.SERVICES:
        one = GRANTS[service]
        assert one.configure == rights.NEVER
        assert all(topic.read == rights.NEVER for topic in one.topics)
        for queue in OBJECTS.queues:
            assert not allows(one.write, queue.name)
            if allows(one.read, queue.name):
                assert queue.name.startswith(f"{service}.")
        assert not any(allows(one.read, exchange) for exchange in OBJECTS.exchanges)


@given(name=st.text(max_size=30) | st.sampled_from([queue.name for queue in OBJECTS.queues]))
def test_patterns_match_whole_names_only(name: str) -> None:
    """The broker looks for a pattern anywhere, so `payment.paid` unanchored would allow `payment.paid.too`."""
    for one in GRANTS.values():
        for pattern in (one.configure, one.write, one.read, *(topic.write for topic in one.topics)):
            if pattern.startswith("^"):
                assert not allows(pattern, f"x{name}")
                assert not allows(pattern, "paymentxpaid")
            else:
                assert pattern == rights.NEVER
                assert not allows(pattern, name)


def test_every_user_has_a_pattern_for_every_exchange() -> None:
    """To the broker, a user without one may use every routing key."""
    for one in GRANTS.values():
        assert [topic.exchange for topic in one.topics] == list(OBJECTS.exchanges)


def test_a_lane_may_be_entered_by_its_client_alone_and_read_by_the_services() -> None:
    """Whoever else got in could keep that client waiting, or take its commands away."""
    objects = topology.derive(DELAYS, ("shop",))
    granted = rights.grants(objects, (*rights.OTHERS, User("shop", Role.CLIENT)))
    lane = topology.lane_exchange("shop")
    for one in granted:
        mine = one.user.name == "shop"
        assert allows(one.write, lane) == mine
        assert allows(one.write, topology.EVENTS) or not mine
        if allows(one.write, lane) or allows(one.read, lane):
            topic = next(it for it in one.topics if it.exchange == lane)
            assert allows(topic.write, saga.FIRST.on) == mine
            assert not allows(topic.write, "payment.paid")
        reads = [queue for queue in ("point.commands.shop", "queue.commands.shop") if allows(one.read, queue)]
        if one.user.role is Role.SERVICE:
            assert reads == [f"{one.user.name}.commands.shop"][: one.user.name in {"point", "queue"}]
        elif one.user.role is not Role.DEPLOYER:
            assert reads == []


def test_whoever_comes_from_outside_is_limited_and_no_service_is() -> None:
    """A service that may not connect because somebody used up its connections would stop the sagas."""
    for one in GRANTS.values():
        assert (one.most is None) == (one.user.role is Role.SERVICE)
    made = definitions.demo(DELAYS)
    for user in made["users"]:
        known = GRANTS.get(user["name"])
        assert user["limits"] == (definitions.limits(known) if known else {})
    assert made["parameters"] == definitions.template(DELAYS)["parameters"]


def test_nobody_has_a_tag_that_lets_them_speak_for_another_or_change_rights() -> None:
    """`impersonator`, `policymaker` and `administrator` go around all of this."""
    assert {tag for one in GRANTS.values() for tag in one.tags} == {"monitoring"}


@pytest.mark.parametrize("name", ["point", "deployer", "client", "a b", "a.b", ".*", "", "x" * 65, "a\n"])
def test_a_name_that_is_taken_or_a_pattern_is_refused(name: str) -> None:
    """It would widen somebody's rights, or hand them to somebody else."""
    with pytest.raises(ValueError, match=r"named twice|is no name"):
        rights.users((*rights.OTHERS, User(name, Role.CLIENT)))


def test_a_lane_is_for_a_client(capsys: pytest.CaptureFixture[str]) -> None:
    """The exchange of a lane that nobody may enter would be a slip of the pen."""
    assert main(["show", "--lane", "shop"]) == 1
    assert "--client shop" in capsys.readouterr().err
    assert main(["show", "--client", "shop", "--lane", "shop"]) == 0
    told = capsys.readouterr().out
    assert "saga.lane.shop: publish ^(payment" in told
    assert "at most 64 connections" in told


# Definitions and files


def test_the_template_lets_nobody_in() -> None:
    """It is in the repository: a hash in there could be tried by anybody."""
    made = definitions.template(DELAYS)
    assert {user["password_hash"] for user in made["users"]} == {""}
    assert {user["name"] for user in made["users"]} == set(GRANTS)
    assert made["policies"] == []


def test_the_definitions_in_the_repository_are_fresh() -> None:
    """They are made from the table; `python -m tools.generate` writes them."""
    for name, written in definitions.files().items():
        assert (ROOT / name).read_text() == written, name


def test_definitions_have_all_that_the_services_would_declare() -> None:
    """A service without the right to declare only looks whether it is there."""
    made = definitions.template(DELAYS)
    assert [it["name"] for it in made["exchanges"]] == list(OBJECTS.exchanges)
    assert {it["name"]: it["arguments"] for it in made["queues"]} == {
        queue.name: dict(queue.arguments) for queue in OBJECTS.queues
    }
    bound = {(it["source"], it["routing_key"], it["destination"]) for it in made["bindings"]}
    assert bound == {(it.exchange, it.key, it.queue) for it in OBJECTS.bindings}


def test_a_hash_is_the_one_that_rabbitmq_makes() -> None:
    """The example of RabbitMQ's own documentation: salt 908DC60A, password test12."""
    known = "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR"
    assert hashed("test12", bytes.fromhex("908DC60A")) == known
    assert matches("test12", known)
    assert not matches("test13", known)
    assert not matches("test12", "")
    assert not matches("test12", "no base64")


def test_a_password_is_made_once_and_kept_for_its_owner_alone(tmp_path: Path) -> None:
    """Asked again it is the same; nobody else on the machine can read it."""
    secrets = Secrets(tmp_path / "secrets", "amqps://broker:5671/tickets")
    first = secrets.password("point")
    assert secrets.password("point") == first
    assert len(first) >= 40
    assert secrets.file("point").read_text() == f"amqps://point:{first}@broker:5671/tickets\n"
    assert stat.S_IMODE(secrets.file("point").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
    assert secrets.renew("point") != first
    assert [file.name for file in (tmp_path / "secrets").iterdir()] == ["point.url"]


def test_all_addresses_of_a_cluster_get_the_new_password(tmp_path: Path) -> None:
    """A service that moves to another node must be let in there, too."""
    secrets = Secrets(tmp_path, "amqp://one/,amqp://two:5673/")
    password = secrets.password("point")
    assert secrets.file("point").read_text() == f"amqp://point:{password}@one/,amqp://point:{password}@two:5673/\n"
    new = secrets.renew("point")
    assert secrets.password("point") == new
    assert secrets.file("point").read_text().count(new) == 2


def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    """Two users with one password would be told apart by nobody."""
    secrets = Secrets(tmp_path, "amqp://broker/")
    secrets.file("point").write_text("amqp://queue:x@broker/\n")
    with pytest.raises(ValueError, match=r"point\.url holds no address with the login of point"):
        secrets.password("point")


def test_definitions_are_made_with_the_passwords_of_the_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a broker loads at its start, and what the services log in with, fit each other."""
    out = tmp_path / "definitions.json"
    order = [
        "definitions",
        "--secrets",
        str(tmp_path / "s"),
        "--out",
        str(out),
        "--client",
        "shop",
        "--client",
        "app",
    ]
    assert main(order) == 0
    users = {user["name"]: user["password_hash"] for user in json.loads(out.read_text())["users"]}
    assert {"shop", "app", "operator", "observer", "deployer", *saga.SERVICES} == set(users)
    secrets = Secrets(tmp_path / "s", "")
    assert all(matches(secrets.password(name), kept) for name, kept in users.items())
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert capsys.readouterr().out == ""


def test_what_cannot_be_done_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """For the person at the terminal, without the password."""
    monkeypatch.delenv("RABBITMQ_MANAGEMENT_URL", raising=False)
    assert main(["apply", "--secrets", str(tmp_path)]) == 1
    monkeypatch.setenv("RABBITMQ_MANAGEMENT_URL", "http://root:hush@127.0.0.1:1")
    assert main(["rotate", "point", "--secrets", str(tmp_path)]) == 1
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2
    assert "hush" not in "".join(told)
    assert list(tmp_path.iterdir()) == []
