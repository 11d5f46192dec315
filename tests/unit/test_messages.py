"""The published language: what is read, what is refused, and that nothing hostile does more than be refused."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from common import messages
from common.messages import (
    MAX_AMOUNT,
    MAX_BODY,
    MAX_DEPTH,
    TYPES,
    Body,
    Completed,
    Confirmed,
    Deducted,
    Expired,
    Failed,
    ForwardEvent,
    Malformed,
    Paid,
    Pay,
    UnknownType,
    decode,
    decode_stored,
    printable,
)
from tests.support import bodies

FORWARD = ["payment.paid", "reservation.confirmed", "point.deducted", "queue.expired"]
STRICT = sorted(set(TYPES) - set(FORWARD))


def read(type_: str, body: object) -> Body:
    """Decode a body that is given as a Python object."""
    return decode(type_, json.dumps(body).encode())


def malformed(type_: str, body: object, **properties: str) -> Malformed:
    """The finding about a body that cannot be read; it must be fit for a log, a header and a person."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(Malformed) as caught:
        decode(type_, raw, **properties)
    finding = caught.value
    assert finding.detail == printable(finding.detail), "it goes into logs and headers"
    return finding


@pytest.mark.parametrize("type_", sorted(TYPES))
def test_a_message_that_was_encoded_is_decoded_to_the_same(type_: str) -> None:
    """What a service says, another one must be able to read, and so must the service itself from its database."""
    body = read(type_, bodies.valid(type_))
    assert decode(type_, body.encode().encode()) == body
    assert decode_stored(type_, body.encode()) == body
    assert body.key


@pytest.mark.parametrize("type_", sorted(TYPES))
def test_a_missing_field_is_named(type_: str) -> None:
    """A person who typed a command must learn what it lacks."""
    optional = {name for name, field in TYPES[type_].model_fields.items() if not field.is_required()}
    whole = bodies.valid(type_)
    for name in set(whole) - optional:
        finding = malformed(type_, {key: value for key, value in whole.items() if key != name})
        assert finding.reason == "invalid_fields"
        assert name in finding.detail


@pytest.mark.parametrize("type_", STRICT)
def test_an_unknown_field_is_refused_in_everything_but_the_baton(type_: str) -> None:
    """A field that nobody knows is most likely a typing error in one that matters."""
    finding = malformed(type_, bodies.valid(type_) | {"expire_at": "x"})
    assert finding.reason == "invalid_fields"
    assert "expire_at" in finding.detail


@pytest.mark.parametrize("type_", FORWARD)
def test_an_unknown_field_of_the_baton_is_kept(type_: str) -> None:
    """An older replica in the middle of a saga must lose nothing that a newer one added."""
    extra = {"gift": {"to": "bob", "words": ["ä", 1, 1.5, None, True]}}
    body = read(type_, bodies.valid(type_) | extra)
    assert json.loads(body.encode())["gift"] == extra["gift"]


def test_an_unknown_field_travels_to_the_end_of_the_saga() -> None:
    """From the first event to the last, through every service's own words."""
    now = datetime.now(UTC)
    body: ForwardEvent = Paid.model_validate(bodies.valid("payment.paid") | {"gift": {"to": ["bob"]}})
    body = Confirmed.after(body, confirmed_at=now)
    body = Deducted.after(body, deducted_at=now)
    body = Expired.after(body, expired_at=now)
    told = json.loads(decode("queue.expired", body.encode().encode()).encode())
    assert told["gift"] == {"to": ["bob"]}
    assert {"paid_at", "confirmed_at", "deducted_at", "expired_at", "expires_at"} <= set(told)


@given(name=st.text(st.characters(codec="utf-8"), min_size=1, max_size=20), value=st.integers() | st.text())
@example(name="items", value="x")
@example(name="copy", value="x")
@example(name="encode", value="x")
@example(name="key", value="x")
@example(name="after", value="x")
@example(name="key_field", value="x")
@example(name="model_fields", value="x")
@example(name="model_config", value="x")
@example(name="__dict__", value="x")
@example(name="__class__", value="x")
@example(name="__pydantic_extra__", value="x")
@example(name="_private", value="x")
@example(name="", value="x")
def test_an_unknown_field_may_have_any_name(name: str, value: int | str) -> None:
    """A newer service chooses its names freely; none of them may trip an older one's Python."""
    whole = bodies.valid("payment.paid")
    if name in {*whole, "confirmed_at", "keys"}:
        return
    try:
        body = read("payment.paid", whole | {name: value})
    except Malformed:
        return  # refused is no harm
    assert isinstance(body, Paid)
    assert body.key == "p-1"
    told = json.loads(Confirmed.after(body, confirmed_at=datetime.now(UTC)).encode())
    assert told[name] == value


def test_an_unknown_field_may_be_called_keys() -> None:
    """The one name by which Python's `dict(...)` decides what it was given."""
    body = read("payment.paid", bodies.baton(keys="x"))
    assert isinstance(body, Paid)
    assert json.loads(Confirmed.after(body, confirmed_at=datetime.now(UTC)).encode())["keys"] == "x"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not_json"),
        (b"pay me", "not_json"),
        (b'{"payment_id": "p-1",}', "not_json"),
        (b"{} {}", "not_json"),
        (b"\xef\xbb\xbf{}", "not_json"),
        (b"[]", "not_an_object"),
        (b'[{"payment_id": "p-1"}]', "not_an_object"),
        (b"null", "not_an_object"),
        (b"5", "not_an_object"),
        (b'"text"', "not_an_object"),
        (b"\xff\xfe{\x00}\x00", "not_utf8"),
        (b'{"payment_id": "\xe4"}', "not_utf8"),
        (b'{"payment_id": "\xed\xa0\x80"}', "not_utf8"),
        (b'{"amount": NaN}', "not_json"),
        (b'{"amount": Infinity}', "not_json"),
        (b'{"amount": -Infinity}', "not_json"),
        (b'{"amount": 1e999}', "not_json"),
        (b'{"amount": -1e999}', "not_json"),
        (b'{"amount": ' + b"9" * 5000 + b"}", "not_json"),
        (b'{"payment_id": "a\x00b"}', "not_json"),
        (b'{"payment_id": "a\nb"}', "not_json"),
        (b'{"amount": 1, "amount": 2}', "duplicate_field"),
        (b'{"x": {"a": 1, "a": 1}}', "duplicate_field"),
        (b'{"amount": 1, "\\u0061mount": 2}', "duplicate_field"),
        (b'{"a\\ud800": 1, "a\\ud800": 2}', "duplicate_field"),
        (b"[" * 30_000, "not_json"),
        (b"[" * 30_000 + b"]" * 30_000, "not_json"),
        (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "not_json"),
        (b" " * (MAX_BODY + 1), "too_large"),
        (b"{}" + b" " * (MAX_BODY - 2), "invalid_fields"),
    ],
    ids=lambda value: value if isinstance(value, str) else repr(value[:20]),
)
def test_a_body_that_is_no_json_object_is_parked_with_its_reason(body: bytes, reason: str) -> None:
    """Nobody can be blamed for what cannot be read, so a person must see at once what it is."""
    assert malformed("payment.pay", body).reason == reason


def test_a_body_within_the_limit_is_read() -> None:
    """The limit is for what could hurt, and blanks do not."""
    raw = json.dumps(bodies.valid("payment.pay")).encode()
    assert decode("payment.pay", raw + b" " * (MAX_BODY - len(raw))).key == "p-1"
    assert malformed("payment.pay", raw + b" " * (MAX_BODY - len(raw) + 1)).reason == "too_large"


@pytest.mark.parametrize(
    "raw",
    [
        *(b"true", b"false", b"null", b"1.0", b"1.5", b"1e2", b'"5"', b'""', b"[5]", b"{}"),
        *(b"0", b"-0", b"-1", b"1000000001", b"9223372036854775807", b"9223372036854775808"),
        b"-9223372036854775809",
    ],
)
@pytest.mark.parametrize(
    ("type_", "field"),
    [
        ("payment.pay", "amount"),
        ("payment.paid", "amount"),
        ("point.top_up", "amount"),
        ("reservation.hold", "price"),
    ],
)
def test_an_amount_is_a_whole_number_of_points(type_: str, field: str, raw: bytes) -> None:
    """Nothing is coerced: a text, a truth or a fraction is no number of points, and the bounds are exact."""
    whole = json.dumps(bodies.valid(type_) | {field: "HERE"}).encode()
    finding = malformed(type_, whole.replace(b'"HERE"', raw))
    assert finding.reason == "invalid_fields"
    assert field in finding.detail


@pytest.mark.parametrize("amount", [1, 2, MAX_AMOUNT])
def test_the_bounds_of_an_amount_are_inside(amount: int) -> None:
    """One point is a payment, and so is the largest."""
    body = read("payment.pay", bodies.command(amount=amount))
    assert isinstance(body, Pay)
    assert body.amount == amount


@pytest.mark.parametrize(
    "id_",
    [
        *("", "a" * 65, "a" * 100_000, "a b", "a\n", "\na", "a\u0000", "ä", "a/b", "a'b", "a\u2028"),
        "\u0661",  # a digit, but not of the alphabet
        *(None, 5, True, ["a"]),
    ],
    ids=lambda value: ascii(value)[:12],
)
def test_an_id_keeps_to_its_alphabet(id_: object) -> None:
    """Ids are keys in four vendors' databases, in logs and in names: they compare bytewise, everywhere alike."""
    assert malformed("payment.pay", bodies.command(user_id=id_)).reason in {"invalid_fields", "too_large"}


@pytest.mark.parametrize("id_", ["a", "A.b_c-9", "a" * 64, "...", "-"])
def test_an_id_may_use_all_of_its_alphabet(id_: str) -> None:
    """Whoever numbers payments in their own way can."""
    assert read("payment.pay", bodies.command(id_)).key == id_


@pytest.mark.parametrize(
    "text",
    ["", "x" * 501, "a\nb", "a\tb", "a\x7fb", "a\x9bb", "a\u2028b", "\x1b[2J", "a\u0000"],
    ids=ascii,
)
def test_a_text_is_bounded_and_printable(text: str) -> None:
    """It ends on somebody's terminal and in somebody's log."""
    finding = malformed("payment.failed", bodies.failure(detail=text))
    assert finding.reason == "invalid_fields"
    assert "detail" in finding.detail


@pytest.mark.parametrize(
    "body",
    [
        json.dumps(bodies.baton() | {"gift": "\ud800"}),
        json.dumps(bodies.baton() | {"gift": ["a\udfff"]}),
        json.dumps(bodies.baton() | {"\ud800": 1}),
        json.dumps(bodies.command(user_id="\ud83d")),
    ],
    ids=["in a text", "in a list", "in a name", "in a known field"],
)
def test_a_lone_surrogate_is_refused_wherever_it_hides(body: str) -> None:
    """It is legal JSON, and no UTF-8: passed on, it would only blow up in the next service."""
    assert malformed("payment.paid" if "paid_at" in body else "payment.pay", body.encode()).reason == "bad_text"


def test_a_pair_of_surrogates_is_an_ordinary_character() -> None:
    """JSON escapes what lies beyond the first plane as a pair."""
    body = read("payment.paid", bodies.baton() | {"gift": "\U0001f600"})
    assert json.loads(body.encode())["gift"] == "\U0001f600"


@pytest.mark.parametrize("levels", [MAX_DEPTH, MAX_DEPTH + 1, 500])
def test_unknown_fields_nest_only_so_deep(levels: int) -> None:
    """Deep nesting costs every reader along the way, and means nothing."""
    nested: Any = 1
    for level in range(levels - 1):
        nested = [nested] if level % 2 else {"a": nested}
    whole = bodies.baton() | {"gift": nested}
    if levels <= MAX_DEPTH:
        read("payment.paid", whole)
    else:
        assert malformed("payment.paid", whole).reason == "not_json"


@pytest.mark.parametrize(
    "time",
    [
        "2026-11-22",
        "2026-11-22T10:00:00",
        "2026-11-22 10:00:00Z",
        "2026-11-22T10:00Z",
        "2026-11-22T10:00:00+01",
        "2026-11-22T10:00:00+0100",
        "2026-11-22T10:00:00.Z",
        "2026-11-22T10:00:00.0123456789Z",
        "2026-02-30T10:00:00Z",
        "2026-13-01T10:00:00Z",
        "2026-11-22T24:00:01Z",
        "2026-11-22T10:00:61Z",
        "2026-11-22T10:00:00+25:00",
        "2026-W47-7T10:00:00Z",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-23:59",
        "٢٠٢٦-11-22T10:00:00Z",
        "2026-11-22T10:00:00Z\n",
        " 2026-11-22T10:00:00Z",
        "now",
        "",
        1_795_341_600,
        1.5,
        True,
        [],
    ],
    ids=ascii,
)
def test_a_time_that_is_not_exact_is_refused(time: object) -> None:
    """A deadline without an offset means another moment on every machine."""
    finding = malformed("payment.pay", bodies.command(expires_at=time))
    assert finding.reason == "invalid_fields"
    assert "expires_at" in finding.detail


@pytest.mark.parametrize(
    "time",
    [
        "2026-11-22T10:00:00Z",
        "2026-11-22t10:00:00z",
        "2026-11-22T10:00:00.000000000Z",
        "2026-11-22T11:00:00+01:00",
        "2026-11-22T04:30:00.0-05:30",
    ],
)
def test_a_time_is_the_same_moment_in_every_offset(time: str) -> None:
    """The moment counts, not how it was written; and so it is the same content of a repeated command."""
    body = read("payment.pay", bodies.command(expires_at=time))
    assert isinstance(body, Pay)
    assert body.expires_at == datetime(2026, 11, 22, 10, tzinfo=UTC)
    assert body.expires_at is not None
    assert body.expires_at.utcoffset() == timedelta(0)
    assert (
        body.fingerprint() == read("payment.pay", bodies.command(expires_at="2026-11-22T10:00:00Z")).fingerprint()
    )


def test_an_optional_time_may_be_absent_or_null() -> None:
    """A person who types a command by hand leaves it out, a program sends null."""
    body = read("payment.pay", bodies.command())
    assert read("payment.pay", bodies.command(expires_at=None)) == body


@pytest.mark.parametrize(
    "type_",
    [
        None,
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
        "application/json;charset=UTF-8",
    ],
)
@pytest.mark.parametrize("encoding", [None, "", "utf-8", "UTF-8", "identity"])
def test_json_is_read_under_every_name_it_has(type_: str | None, encoding: str | None) -> None:
    """A person with rabbitmqadmin sets no properties, other clients set all."""
    raw = json.dumps(bodies.command()).encode()
    assert decode("payment.pay", raw, content_type=type_, content_encoding=encoding).key == "p-1"


@pytest.mark.parametrize(
    "type_",
    [
        *("text/plain", "application/xml", "application/jsonx", "application/cloudevents+json", ";", "\x00"),
        "application/json; charset=latin-1",
    ],
)
def test_another_content_type_is_refused(type_: str) -> None:
    """What calls itself something else is not read as JSON by chance."""
    assert malformed("payment.pay", bodies.command(), content_type=type_).reason == "wrong_content_type"


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "utf-16", "latin-1", "x" * 10_000, "\x00"])
def test_another_content_encoding_is_refused(encoding: str) -> None:
    """Nothing is unpacked: a small message could unpack to a huge one."""
    finding = malformed("payment.pay", bodies.command(), content_encoding=encoding)
    assert finding.reason == "wrong_content_encoding"


@pytest.mark.parametrize(
    "type_", ["", "payment", "payment.PAY", "payment.pay ", "payment.refund", "#", "*.failed", "x" * 255]
)
def test_an_unknown_type_is_told_apart_from_a_malformed_message(type_: str) -> None:
    """A newer twin may know it, so it gets another treatment than what nobody can read."""
    with pytest.raises(UnknownType):
        decode(type_, b"not even json")


def test_a_finding_names_the_fields_and_never_repeats_hostile_content() -> None:
    """Details are read in logs and headers: bounded, printable, the first few findings and how many more."""
    finding = malformed("payment.pay", {"amount": "<script>", "x\x1b" * 40: 1, **{f"f{i}": 1 for i in range(50)}})
    assert "<script>" not in finding.detail
    assert "amount" in finding.detail or "payment_id" in finding.detail
    assert " more" in finding.detail
    assert len(finding.detail) <= messages.MAX_DETAIL


@given(st.text())
def test_what_is_printable_is_one_bounded_line(text: str) -> None:
    """Whatever an error says, it can be logged, stored and sent; and it can be a message's own detail."""
    safe = printable(text)
    assert 1 <= len(safe) <= messages.MAX_DETAIL
    assert len(safe.splitlines()) == 1
    assert printable(safe) == safe
    assert isinstance(read("payment.failed", bodies.failure(detail=safe)), Failed)


def test_other_content_has_another_fingerprint_and_the_same_content_the_same() -> None:
    """By it a repeated command is told from a second one under the same id; the order of fields is no content."""
    first = read("payment.pay", bodies.command())
    turned = read("payment.pay", dict(reversed(bodies.command().items())))
    assert turned.fingerprint() == first.fingerprint()
    changes: list[dict[str, Any]] = [
        {"user_id": "bob"},
        {"reservation_id": "r-2"},
        {"token": "t-2"},
        {"amount": 31},
        {"expires_at": "2026-11-22T10:00:00Z"},
    ]
    prints = {read("payment.pay", bodies.command(**change)).fingerprint() for change in changes}
    assert len(prints | {first.fingerprint()}) == len(changes) + 1


def test_a_body_cannot_be_changed() -> None:
    """It is shared between the batch, the outbox and the answer that is kept."""
    body = read("payment.completed", bodies.valid("payment.completed"))
    assert isinstance(body, Completed)
    with pytest.raises(ValueError, match="frozen"):
        body.amount = 5  # type: ignore[misc]


# --- whatever comes

Json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=10**18, max_value=10**400)
    | st.floats()
    | st.text()
    | st.sampled_from(["p-1", "2026-11-22T10:00:00Z", "9999-12-31T23:59:59.999999999Z"]),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=12,
)
Types = st.sampled_from(sorted(TYPES))


def harmless(type_: str, raw: bytes, content_type: str | None = None, content_encoding: str | None = None) -> None:
    """Decode; the only ways out are a body that can be said again, and the two findings."""
    try:
        body = decode(type_, raw, content_type=content_type, content_encoding=content_encoding)
    except (Malformed, UnknownType):
        return
    assert decode(type_, body.encode().encode()) == body


@given(type_=Types | st.text(), raw=st.binary(max_size=200), content_type=st.none() | st.text())
def test_arbitrary_bytes_are_only_ever_refused(type_: str, raw: bytes, content_type: str | None) -> None:
    """No input may raise what the consumer does not expect: it would be retried, not parked."""
    harmless(type_, raw, content_type, content_type)


@given(type_=Types, document=Json)
def test_arbitrary_json_is_only_ever_refused(type_: str, document: object) -> None:
    """As above, for what a hostile or careless client really sends."""
    harmless(type_, json.dumps(document).encode())


@given(type_=Types, data=st.data())
def test_a_valid_message_with_one_field_gone_wrong_is_refused_or_means_something(
    type_: str, data: st.DataObject
) -> None:
    """Close to valid is where the holes are: whatever is read can be written and read again as the same."""
    whole = bodies.valid(type_)
    name = data.draw(st.sampled_from(sorted(whole)) | st.text())
    harmless(type_, json.dumps(whole | {name: data.draw(Json)}).encode())


@given(type_=st.sampled_from(FORWARD), extra=st.dictionaries(st.text(), Json, max_size=3))
def test_what_the_baton_carries_arrives_unchanged(type_: str, extra: dict[str, object]) -> None:
    """Numbers, texts and structures that no service of ours understands."""
    whole = bodies.valid(type_)
    try:
        body = read(type_, extra | whole)
    except Malformed:
        return
    told = json.loads(decode_stored(type_, body.encode()).encode())
    assert {name: told[name] for name in extra if name not in whole} == {
        name: value for name, value in extra.items() if name not in whole
    }
    assert not any(isinstance(value, float) and math.isinf(value) for value in told.values())
