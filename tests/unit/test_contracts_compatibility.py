"""A change that a client, an observer or an older replica would notice fails here; any other passes.

When the first test fails: the change breaks somebody. It says what to do instead.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.contracts.document import made
from tools.contracts.__main__ import RELEASED, load, main
from tools.contracts.compare import breaks, told

_Document = dict[str, Any]
_Change = Callable[[_Document], None]
TODAY = made()


def test_nobody_who_relies_on_the_last_release_would_notice_todays_contract() -> None:
    """The promise itself."""
    found = breaks(load(RELEASED), TODAY)
    assert not found, told(found)


def body(document: _Document, type_: str) -> _Document:
    """The schema of a message's body, to be changed."""
    schema: _Document = document["components"]["schemas"][f"{type_}.body"]
    return schema


def field(type_: str, name: str, **rules: Any) -> _Change:  # noqa: ANN401 - JSON
    """Give a field other rules."""

    def change(document: _Document) -> None:
        properties = body(document, type_)["properties"]
        schema = properties[name]
        if "$ref" in schema:
            schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        changed = {rule: value for rule, value in (schema | rules).items() if value is not None}
        properties[name] = changed

    return change


def added(type_: str, *, required: bool) -> _Change:
    """A new field."""

    def change(document: _Document) -> None:
        schema = body(document, type_)
        schema["properties"]["coupon"] = {"type": "string", "maxLength": 64}
        if required:
            schema["required"].append("coupon")

    return change


def removed(type_: str, name: str) -> _Change:
    """A field less."""

    def change(document: _Document) -> None:
        schema = body(document, type_)
        del schema["properties"][name]
        schema["required"] = [one for one in schema["required"] if one != name]

    return change


def optional(type_: str, name: str) -> _Change:
    """A field that may be missing from now on."""

    def change(document: _Document) -> None:
        body(document, type_)["required"].remove(name)

    return change


def required(type_: str, name: str) -> _Change:
    """A field that must be there from now on, and not as null."""

    def change(document: _Document) -> None:
        schema = body(document, type_)
        schema["required"].append(name)
        schema["properties"][name] = schema["properties"][name]["anyOf"][0]

    return change


def nullable(type_: str, name: str) -> _Change:
    """A field that may be null from now on."""

    def change(document: _Document) -> None:
        properties = body(document, type_)["properties"]
        properties[name] = {"anyOf": [properties[name], {"type": "null"}]}

    return change


def unknown_fields(type_: str, what: str, *, open_ended: bool | None = None) -> _Change:
    """Another way to treat unknown fields."""

    def change(document: _Document) -> None:
        document["components"]["messages"][type_]["x-unknown-fields"] = what
        if open_ended is not None:
            body(document, type_)["additionalProperties"] = open_ended

    return change


def reasons(type_: str, *, more: str = "", less: str = "") -> _Change:
    """Another list of reason codes."""

    def change(document: _Document) -> None:
        codes = document["components"]["messages"][type_]["x-reasons"]
        if more:
            codes[more] = "in words"
        if less:
            del codes[less]

    return change


def of_message(type_: str, **facts: Any) -> _Change:  # noqa: ANN401 - JSON
    """Another fact about a message."""

    def change(document: _Document) -> None:
        document["components"]["messages"][type_] |= {
            name.replace("_", "-"): value for name, value in facts.items()
        }

    return change


def header(type_: str, name: str, rules: _Document | None) -> _Change:
    """Another header; None: it is not said any more."""

    def change(document: _Document) -> None:
        schema = document["components"]["schemas"][f"{type_}.headers"]
        schema["properties"].pop(name, None)
        schema["required"] = [one for one in schema["required"] if one != name]
        if rules is not None:
            schema["properties"][name] = rules
            schema["required"].append(name)

    return change


def without_operation(name: str) -> _Change:
    """A service that does something no more."""

    def change(document: _Document) -> None:
        del document["operations"][name]

    return change


def without_message(type_: str) -> _Change:
    """A message that is gone."""

    def change(document: _Document) -> None:
        del document["components"]["messages"][type_]

    return change


def with_message(document: _Document) -> None:
    """A new command, with all that belongs to it."""
    messages = document["components"]["messages"]
    messages["payment.refund"] = copy.deepcopy(messages["payment.pay"])
    document["operations"]["payment-receives-payment.refund"] = {
        "action": "receive",
        "messages": [{"$ref": "#/channels/payment.refund/messages/payment.refund"}],
    }


def in_other_words(document: _Document) -> None:
    """Descriptions, titles, summaries and examples rewritten."""
    for message in document["components"]["messages"].values():
        message["summary"] = message["title"] = "In other words."
        message["examples"] = []
    for schema in document["components"]["schemas"].values():
        schema["description"] = "In other words."
    document["info"]["version"] = "9.9.9"


def exchange(**facts: Any) -> _Change:  # noqa: ANN401 - JSON
    """Another exchange."""

    def change(document: _Document) -> None:
        document["components"]["channelBindings"]["topic"]["amqp"]["exchange"] |= facts

    return change


def moved_key(document: _Document) -> None:
    """The saga's id in another field."""
    document["components"]["messages"]["payment.paid"]["correlationId"]["location"] = "$message.payload#/user_id"


COMPATIBLE: dict[str, _Change] = {
    "nothing changed": lambda _: None,
    "other words": in_other_words,
    "a command takes a new optional field": added("payment.pay", required=False),
    "a command needs a field no more": optional("payment.pay", "token"),
    "a command ignores unknown fields": unknown_fields("payment.pay", "passed on", open_ended=True),
    "a command takes more": field("payment.pay", "amount", maximum=2_000_000_000),
    "a command takes any amount": field("payment.pay", "amount", maximum=None, minimum=None),
    "a command takes a fraction": field("payment.pay", "amount", type="number"),
    "a command takes null": nullable("payment.pay", "token"),
    "a command takes any text": field("payment.pay", "token", pattern=None),
    "an event for observers says more": added("payment.completed", required=True),
    "an event for observers may say more": added("payment.completed", required=False),
    "the baton may say more": added("payment.paid", required=False),
    "an event says less": field("point.topped_up", "balance", maximum=1_000_000_000),
    "an event says shorter texts": field("payment.rejected", "detail", maxLength=100),
    "an event says fewer values": field("notification.sent", "kind", enum=["completed"]),
    "an event says a pattern that it did not promise": field("notification.sent", "kind", pattern="^[a-z]+$"),
    "a failure passes unknown fields on": unknown_fields("point.failed", "passed on"),
    "a new reason code": reasons("point.failed", more="wallet_frozen"),
    "a new header": header("payment.paid", "cloudEvents_dataschema", {"type": "string"}),
    "a new command": with_message,
}

INCOMPATIBLE: dict[str, tuple[_Change, str]] = {
    "a command needs a new field": (
        added("payment.pay", required=True),
        "coupon: is new and required",
    ),
    "a command needs what was optional": (required("payment.pay", "expires_at"), "expires_at: is required now"),
    "a command does not know a field any more": (
        removed("payment.pay", "expires_at"),
        "are refused. Keep it",
    ),
    "a command takes less": (field("payment.pay", "amount", maximum=1000), "was 1,000,000,000, is 1,000."),
    "a command takes no small amount": (field("payment.pay", "amount", minimum=10), "smallest value was 1, is 10"),
    "a command takes shorter texts": (field("payment.pay", "token", maxLength=8), "was not limited, is 8"),
    "a command takes other texts": (field("payment.pay", "token", pattern="^[a-z]{1,64}$"), "its pattern was"),
    "a command takes listed texts": (field("payment.pay", "token", enum=["k-1"]), "its values were not listed"),
    "a command takes another type": (field("payment.pay", "amount", type="string"), "was integer, is string"),
    "a command has an unjudged rule": (
        field("payment.pay", "amount", multipleOf=5),
        "its multipleOf was",
    ),
    "a command is not read any more": (without_operation("payment-receives-payment.pay"), "is not read any more"),
    "a command is gone": (without_message("reservation.hold"), "reservation.hold: is gone"),
    "an event loses a field": (removed("payment.completed", "amount"), "payment.completed, amount: is gone"),
    "an event may lack a field": (optional("payment.completed", "amount"), "amount: may be missing now"),
    "an event says null": (nullable("payment.completed", "amount"), "was integer, is integer or null"),
    "an event says another type": (field("payment.completed", "amount", type="number"), "is number"),
    "an event says any type": (field("payment.completed", "amount", type=None), "was integer, is of any type"),
    "an event has alternatives": (
        field("payment.completed", "amount", anyOf=[{"type": "integer"}, {"type": "string"}]),
        "its alternatives changed",
    ),
    "a list may be shorter only": (
        field("payment.settled", "payment_ids", maxItems=100),
        "longest list was 500, is 100",
    ),
    "an event says more points": (field("payment.completed", "amount", maximum=2 * 10**9), "largest value was"),
    "an event says longer texts": (
        field("payment.rejected", "detail", maxLength=900),
        "was 500, is 900",
    ),
    "an event says any length": (field("payment.rejected", "detail", maxLength=None), "was 500, is not limited"),
    "an event says empty texts": (field("payment.rejected", "detail", minLength=0), "shortest text was 1, is 0"),
    "an event says other values": (
        field("notification.sent", "kind", enum=["completed", "failed", "late"]),
        "'late'",
    ),
    "an event says any value": (field("notification.sent", "kind", enum=None), "are not listed"),
    "an event keeps no pattern": (field("payment.completed", "user_id", pattern=None), "its pattern was"),
    "an event's time is no time": (field("payment.completed", "completed_at", format=None), "its format was"),
    "an event is not said any more": (without_operation("point-sends-point.restored"), "is not said any more"),
    "an event is gone": (without_message("point.restored"), "point.restored: is gone"),
    "an event is not awaited any more": (
        without_operation("point-receives-reservation.confirmed"),
        "reservation.confirmed: is not read any more",
    ),
    "the baton needs a new field": (
        added("payment.paid", required=True),
        "coupon: is new and required",
    ),
    "the baton says less": (
        field("payment.paid", "amount", maximum=1000),
        "was 1,000,000,000, is 1,000",
    ),
    "the baton drops unknown fields": (unknown_fields("payment.paid", "refused"), "are not passed on any more"),
    "the baton refuses unknown fields": (
        unknown_fields("payment.paid", "passed on", open_ended=False),
        "payment.paid: refuses unknown fields now",
    ),
    "a failure may say more": (added("point.failed", required=False), "First release a version that lets"),
    "a reason code is gone": (reasons("point.failed", less="no_wallet"), "reason codes are gone: no_wallet"),
    "a header is gone": (header("payment.paid", "cloudEvents_id", None), "header cloudEvents_id: is gone"),
    "a header says something else": (
        header("payment.paid", "cloudEvents_source", {"const": "/other/payment"}),
        "its values were '/concert-saga/payment', are '/other/payment'",
    ),
    "another content type": (of_message("payment.paid", contentType="text/plain"), "its contentType was"),
    "another compensation": (of_message("payment.paid", x_compensated_by=None), "its x-compensated-by was"),
    "the key is in another field": (moved_key, "its key moved"),
    "another exchange": (exchange(name="saga.other"), "the exchange of"),
    "another kind of exchange": (exchange(type="direct"), "the exchange of"),
}


@pytest.mark.parametrize("change", COMPATIBLE.values(), ids=COMPATIBLE)
def test_a_change_that_nobody_notices_passes(change: _Change) -> None:
    """A check that cries wolf is switched off."""
    changed = copy.deepcopy(TODAY)
    change(changed)
    assert not breaks(TODAY, changed)


@pytest.mark.parametrize(("change", "words"), INCOMPATIBLE.values(), ids=INCOMPATIBLE)
def test_a_change_that_somebody_notices_is_told_with_what_to_do(change: _Change, words: str) -> None:
    """Found here it costs a minute; found by a client it costs a payment."""
    changed = copy.deepcopy(TODAY)
    change(changed)
    found = breaks(TODAY, changed)
    assert words in told(found), told(found)
    assert all(one.instead for one in found)
    assert "CHANGELOG.md" in told(found)


def test_a_lost_reason_of_any_step_is_told() -> None:
    """Codes that any step may give are promised, too."""
    changed = copy.deepcopy(TODAY)
    del changed["info"]["x-reasons-of-any-step"]["retries_spent"]
    assert "reason codes are gone: retries_spent" in told(breaks(TODAY, changed))


def test_the_command_line_tells_breaks_by_its_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """CI and people ask the same question."""
    old, new = tmp_path / "old.yaml", tmp_path / "new.yaml"
    text = RELEASED.read_text()
    old.write_text(text)
    new.write_text(text)
    assert main(["compare", str(old), str(new)]) == 0
    new.write_text(text.replace("additionalProperties: true", "additionalProperties: false"))
    assert main(["compare", str(old), str(new)]) == 1
    assert "refuses unknown fields now" in capsys.readouterr().out
    new.write_text("[]")
    assert main(["compare", str(old), str(new)]) == 2
