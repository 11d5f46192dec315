"""What a dead or parked letter is read as, how it is shown, and what is kept of it when it is thrown away."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import history
from common.personal import Masks
from ops.letters import record, telling, users
from ops.letters.letter import Kind, Letter, Properties, at, read
from ops.letters.record import KEPT_BYTES, Act
from ops.recording import Signature
from tests.support.bodies import command, valid

AT = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
TRACE = f"00-{'a' * 32}-{'b' * 16}-01"
BY_KIM = Signature("kim", "typed twice")


def letter(
    service: str = "payment",
    type_: str = "payment.pay",
    body: object = None,
    *,
    kind: Kind = Kind.PARKED,
    properties: Properties | None = None,
    **headers: Any,  # noqa: ANN401 - whatever a stranger writes there
) -> Letter:
    """A letter as its service put it there."""
    told = valid(type_) if body is None else body
    written = {"x-type": type_, "x-reason": "boom", "x-detail": "it broke", "x-attempt": 4}
    written |= {name.replace("_", "-"): value for name, value in headers.items()}
    return read(
        kind,
        service,
        told if isinstance(told, bytes) else json.dumps(told).encode(),
        properties or Properties(message_id="m-12345678", user=f"{service}-user"),
        written,
    )


def test_a_copy_says_what_it_is_and_why_it_is_here() -> None:
    """The headers that the service wrote are what an operator reads first."""
    it = letter(x_first_failed_at=AT.isoformat(), x_failed_in="payment.commands", body=command("p-7"))
    assert (it.type, it.key, it.reason, it.detail, it.attempt) == ("payment.pay", "p-7", "boom", "it broke", 4)
    assert (it.since, it.failed_in, it.queue) == (AT, "payment.commands", "payment.parked")
    assert it.content
    assert not it.fault
    assert not it.killed


def test_what_the_broker_gave_up_on_is_known_by_its_death() -> None:
    """It carries no header of ours: its type is in what the broker wrote, and its sender is a stranger."""
    death = {"reason": "delivery_limit", "queue": "point.events", "routing-keys": ["reservation.confirmed"]}
    body = json.dumps(valid("reservation.confirmed")).encode()
    it = read(Kind.DEAD, "point", body, Properties(user="shop"), {"x-death": [death]})
    assert (it.type, it.reason, it.killed, it.key) == ("reservation.confirmed", "crash_guard", True, "p-1")


def test_a_dead_copy_is_read_as_a_parked_one() -> None:
    """Both are copies of the same service, with the same headers."""
    assert letter(kind=Kind.DEAD).type == "payment.pay"
    assert letter(kind=Kind.DEAD).queue == "payment.dead"


def test_a_letter_is_meant_by_its_id_the_beginning_of_it_or_its_saga() -> None:
    """Nobody types 32 characters; and six of them are the least that mean one letter."""
    it = letter(body=command("p-7"))
    assert [it.answers_to(name) for name in ("m-12345678", "m-1234", "p-7")] == [True] * 3
    assert [it.answers_to(name) for name in ("m-123", "", "p-", "2345678")] == [False] * 4
    nameless = letter(body=b"{}", properties=Properties())
    assert nameless.answers_to(nameless.id[:13])
    assert [nameless.answers_to(name) for name in ("", "sha256:", nameless.id[:12])] == [False] * 3


def test_what_has_no_id_that_can_be_typed_is_named_by_its_content() -> None:
    """An id may hold anything that a stranger likes; two letters of other content must not be one."""
    names = [
        letter(body=body, properties=Properties(message_id=id_)).id
        for body, id_ in ((b"a", None), (b"b", "\u202e\x00"), (b"a", "x" * 500))
    ]
    assert names[0] == names[2] != names[1]
    assert all(name.startswith("sha256:") for name in names)


def test_the_saga_of_what_cannot_be_read_is_guessed() -> None:
    """An unreadable baton must still be found by its saga's id, or else it could be thrown away."""
    assert letter("reservation", "payment.paid", b'{"payment_id": "p-9"}').key == "p-9"
    assert letter("reservation", "payment.paid", b"x", properties=Properties(correlation_id="p-9")).key == "p-9"
    assert letter("reservation", "reservation.hold", b'{"reservation_id": "r-9"}').key == "r-9"
    assert letter("reservation", "payment.paid", b'{"payment_id": "p 9\'"}').key == ""
    assert letter("reservation", "payment.paid", b"[" * 100_000).key == ""


@settings(max_examples=40)  # each goes through all that reads, shows and keeps a letter
@given(
    st.binary(max_size=200),
    st.dictionaries(
        st.sampled_from(["x-type", "x-reason", "x-attempt", "x-first-failed-at", "x-failed-in", "x-death", "a"]),
        st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.dictionaries(st.text(), st.text())),
    ),
    st.sampled_from(Kind),
    st.none() | st.text(),
)
def test_nothing_that_a_stranger_writes_stops_the_look(
    body: bytes, headers: dict[str, Any], kind: Kind, text: str | None
) -> None:
    """One letter that cannot be shown would hide all behind it."""
    it = read(kind, "point", body, Properties(text, text, text, text, text, AT), headers)
    assert json.dumps(telling.document(it, None, whole=True), default=str)
    assert json.dumps(telling.document(it, Masks(), whole=True), default=str)
    assert telling.groups([it])
    assert record.of_act(Act.DISCARD, it, Signature(text or "", text or ""), now=AT)


def test_times_outside_the_calendar_are_none() -> None:
    """A timestamp is a stranger's, too."""
    assert at(0) == datetime(1970, 1, 1, tzinfo=UTC)
    assert at(AT) == AT
    assert [at(value) for value in (2**63, -(2**62), "x", None)] == [None] * 4


def test_what_is_about_a_person_is_masked() -> None:
    """A screen is seen by others; the ids of the saga are what an operator needs."""
    masks = Masks()
    masked = telling.body_value(letter(body=command("p-7", email="kim@example.org")), masks)
    assert masked == {
        "payment_id": "p-7",
        "user_id": masks.of("ann"),
        "reservation_id": "r-1",
        "token": masks.of("t-1"),
        "amount": 30,
        "email": masks.of("kim@example.org"),
    }


def test_what_is_written_on_a_letter_is_masked_like_what_is_in_it() -> None:
    """A detail may quote the body, and the id of a letter about a token is the token."""
    masks = Masks()
    told = telling.document(letter(x_detail="Key (user_id)=(ann) exists"), masks, whole=True)
    assert told["detail"] == told["headers"]["x-detail"] == f"Key (user_id)=({masks.of('ann')}) exists"
    entering = letter("queue", "queue.enter")
    assert telling.document(entering, masks)["saga"] == masks.of("t-1")
    assert telling.document(entering, None)["saga"] == "t-1"
    assert entering.answers_to("t-1")
    assert telling.text("t-1 was used before", entering, masks) == f"{masks.of('t-1')} was used before"


def test_the_programs_document_is_masked_as_the_persons_page() -> None:
    """`--json` goes into files and tickets, which are read by more people than a screen."""
    told = json.dumps(
        telling.document(letter(body=command("p-7", user_id="kim")), Masks(), whole=True), default=str
    )
    assert "kim" not in told
    assert "p-7" in told


def test_masking_is_not_fooled_by_names() -> None:
    """Free text in a field that should hold an id, and whatever is nested, stay hidden."""
    body = {"payment_id": "Kim, Seoul", "id": ["kim"], "state": {"user_id": "kim"}, "x": [{"amount": "kim 1"}, 5]}
    masks = Masks()
    hidden = masks.of("kim")
    assert masks.content(body) == {
        "payment_id": masks.of("Kim, Seoul"),
        "id": [hidden],
        "state": {"user_id": hidden},
        "x": [{"amount": masks.of("kim 1")}, masks.of(5)],
    }


def test_what_is_no_json_is_shown_only_when_asked() -> None:
    """Nobody knows what is in it."""
    text, masks = letter(body=b"kim pays 5"), Masks()
    assert telling.body_lines(text, masks) == ["(no JSON; --reveal shows it)"]
    assert telling.body_lines(text, None) == ["kim pays 5"]
    assert telling.body_value(letter(body=b"\xff"), None) == {"base64": base64.b64encode(b"\xff").decode()}
    assert telling.body_lines(letter(body=b""), masks) == ["(empty)"]


def test_a_hostile_letter_is_shown_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    """Control characters steer terminals, and Rich would paint what looks like its markup."""
    evil = "\x1b[2J[red]\u202eevil\x9b"
    it = letter("point", evil, {"user_id": evil}, x_detail=evil, x_reason=evil)
    telling.tell_whole(it, None)
    telling.tell_each([it], "letters")
    telling.tell_groups(telling.groups([it]), "letters")
    out = capsys.readouterr().out
    assert not set("\x1b\u202e\x9b") & set(out)
    assert "[red]" in out


def test_letters_are_grouped_by_service_and_reason_with_the_oldest() -> None:
    """What happened a hundred times is one line, and the one that waits longest is named."""
    young, old = AT.replace(year=2031).isoformat(), AT.isoformat()
    those = [
        letter(x_first_failed_at=young),
        letter("point", "reservation.confirmed"),
        letter(x_first_failed_at=old, properties=Properties(message_id="oldest")),
        letter(x_reason="other"),
    ]
    found = [(group.service, group.reason, group.count, group.oldest.since) for group in telling.groups(those)]
    assert found == [
        ("payment", "boom", 2, AT),
        ("payment", "other", 1, None),
        ("point", "boom", 1, None),
    ]


def test_what_is_discarded_is_kept_in_the_record() -> None:
    """It is the last place where it can be found; and the record is one that every reader of the history takes."""
    told = record.of_act(Act.DISCARD, letter(body=command("p-7"), traceparent=TRACE), BY_KIM, now=AT)
    ((entry,),) = (one.entries for one in history.decode(told))
    assert (entry.saga, entry.type, entry.by, entry.why) == ("p-7", "discard", "kim", "typed twice")
    assert (entry.reason, entry.trace) == ("boom", TRACE)
    kept = json.loads(told)["kept"]
    assert json.loads(kept["body"]) == command("p-7")
    assert (kept["encoding"], kept["type"], kept["queue"]) == ("utf-8", "payment.pay", "payment.parked")
    assert kept["headers"]["x-reason"] == "boom"


@pytest.mark.parametrize("body", [b"\xff\x00" * 10, b"x" * (KEPT_BYTES + 1), "\u20ac".encode() * KEPT_BYTES, b""])
def test_a_kept_body_is_bounded_and_never_changed(body: bytes) -> None:
    """A record must fit into the stream; what was no text comes back byte for byte."""
    kept = json.loads(record.of_act(Act.DISCARD, letter(body=body), BY_KIM, now=AT))["kept"]
    decoded = base64.b64decode(kept["body"]) if kept["encoding"] == "base64" else kept["body"].encode()
    assert decoded == body[:KEPT_BYTES]
    assert kept["bytes"] == len(body)


def test_a_replay_keeps_no_body_in_the_history() -> None:
    """The message itself goes on; the history is no place for what is about people without need."""
    told = json.loads(record.of_act(Act.REPLAY, letter(), BY_KIM, now=AT))
    assert "kept" not in told
    assert told["service"] == "operator"


@pytest.mark.parametrize(
    ("kind", "user", "running", "is_believed"),
    [
        (Kind.PARKED, "pay", {}, True),
        (Kind.PARKED, "pay", {"payment": "pay"}, True),
        (Kind.PARKED, "shop", {"payment": "pay"}, False),
        (Kind.PARKED, None, {"payment": "pay"}, False),
        (Kind.PARKED, None, {}, False),
        (Kind.DEAD, "shop", {"payment": "pay"}, True),
        (Kind.DEAD, None, {}, True),
    ],
)
def test_a_letter_that_its_service_did_not_put_there_does_not_go_back(
    kind: Kind, user: str | None, running: dict[str, str], is_believed: bool
) -> None:
    """It would be parked again; what the broker itself put there is the original, which the service judges."""
    death = {"reason": "delivery_limit", "queue": "payment.commands", "routing-keys": ["payment.pay"]}
    headers: dict[str, Any] = {"x-death": [death]} if kind is Kind.DEAD else {}
    it = letter(kind=kind, properties=Properties(user=user), **headers)
    assert it.killed is (kind is Kind.DEAD)
    assert (users.why_not_back(it, running, ()) == "") is is_believed


def test_nothing_is_rejected_where_that_would_lose_it() -> None:
    """A queue that an older version declared does not give back what is rejected."""
    it = letter(properties=Properties(user="pay"))
    assert "lost" in users.why_not_back(it, {}, {"payment.parked"})
    assert not users.why_not_back(it, {}, {"payment.dead"})
