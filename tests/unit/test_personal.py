"""What tells of a person is known field by field, and is nowhere to be seen where others look."""

from __future__ import annotations

import json
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from common import saga, telemetry
from common.messages import TYPES
from common.personal import IMPERSONAL, KNOWN_BY_A_PERSON, PERSONAL, Masks, unnamed
from tests.support.bodies import command, valid


def test_of_every_field_it_is_decided_whether_it_is_personal() -> None:
    """A field that nobody thought of would be masked, and a table that nobody keeps would be wrong one day."""
    fields = {name for model in TYPES.values() for name in model.model_fields}
    assert fields == set(PERSONAL) | IMPERSONAL
    assert not set(PERSONAL) & IMPERSONAL


def test_messages_that_are_known_by_something_personal_are_named() -> None:
    """Their id stands in tables, logs and headings, where no field says what it is."""
    keyed = {type_ for type_, model in TYPES.items() if model.key_field in PERSONAL}
    owners = {command.service for command in saga.COMMANDS if command.on in keyed}
    assert keyed | {saga.rejected(owner) for owner in owners} == KNOWN_BY_A_PERSON


def test_a_value_has_one_mask_in_a_view_and_another_in_the_next() -> None:
    """An operator sees that two letters are about one user; two screens side by side do not tell who it is."""
    view, other = Masks(), Masks()
    assert view.of("kim") == view.of("kim") != view.of("lee")
    assert view.of("kim") != other.of("kim")
    masked: Any = view.content(valid("payment.pay"))
    again: Any = view.content(valid("reservation.confirmed"))
    assert masked["user_id"] == again["user_id"]
    assert masked["token"] != masked["user_id"]


_NESTED = st.recursive(
    st.just("kim") | st.none() | st.booleans(),
    lambda parts: st.lists(parts) | st.dictionaries(st.sampled_from(["id", "amount", "kim@x.org", "x"]), parts),
)


@given(st.sampled_from(["nobody_knows", "user_id", "kim, of Seoul"]), _NESTED)
def test_nothing_in_a_field_that_nobody_knows_is_shown(name: str, value: object) -> None:
    """However it is nested, and whatever its parts are called: a version yet to come may put a name there."""
    shown = json.dumps(Masks().content({"payment_id": "p-1", name: value}))
    assert "kim" not in shown
    assert "p-1" in shown


def test_what_is_nested_without_end_is_cut() -> None:
    """A stranger's body must not stop the look at all the others."""
    deep: object = "kim"
    for _ in range(5_000):
        deep = [deep]
    assert "kim" not in json.dumps(Masks().content({"x": deep}))


def test_what_is_nothing_is_shown_as_nothing() -> None:
    """A field that is missing is often why the letter is there."""
    assert Masks().content({"user_id": None, "expires_at": None}) == {"user_id": None, "expires_at": None}


def test_an_error_names_the_field_and_not_what_it_held() -> None:
    """Databases quote what they stumble over, and that goes into headers, logs and the history."""
    body = command("p-1", user_id="kim", token="kim-7")
    told = 'duplicate key "wallet_pkey"\nDETAIL: Key (user_id)=(kim) exists; kim-7, kimono, p-1, kim.'
    assert unnamed(told, body) == (
        'duplicate key "wallet_pkey"\nDETAIL: Key (user_id)=(<user_id>) exists; <token>, kimono, p-1, <user_id>.'
    )
    assert unnamed(told) == told
    assert unnamed("kim and lee", {"user_id": "kim"}, {"user_id": "lee"}) == "<user_id> and <user_id>"
    odd = {"user_id": "kim", "x": True, "y": "k" * 300, "z": ""}
    assert unnamed("kim said True", odd) == "<user_id> said True"


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_line_of_the_log_does_not_tell_who_it_was(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Logs go to other places and other people, and are kept for long."""
    before = structlog.get_config()
    try:
        telemetry.configure("notify", "DEBUG", form)
        telemetry.log.info("notice", saga="p-1", user="kim-user", kind="completed")
        telemetry.alarm("parked for a person", type="queue.enter", saga="kim-token", user_id="kim-user")
        telemetry.alarm("parked for a person", type="payment.pay", saga="p-2")
    finally:
        structlog.configure(**before)
        structlog.contextvars.clear_contextvars()
    told = capsys.readouterr().err
    assert "kim" not in told
    assert all(word in told for word in ("p-1", "p-2", "completed")), told
    if form == "json":
        first, second, _ = map(json.loads, told.splitlines())
        assert first["user"] == second["user_id"] != second["saga"]
