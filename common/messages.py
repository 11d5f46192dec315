"""The published language: what every message looks like, and how strictly it is read.

A message is a JSON object. It is read strictly: nothing is coerced, nothing is guessed. Commands refuse
fields they do not know; events pass them on, so that an older replica in the middle of a saga loses nothing.
A body that cannot be read is `Malformed`: nobody can be blamed for it, so it is parked for a person.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Literal, Self, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from common import saga

#: Bytes. Far above what any message of the language needs, far below what could hurt a service.
MAX_BODY = 64 * 1024
MAX_AMOUNT = 1_000_000_000
MAX_DETAIL = 500
#: Payments in one `payment.settled`: half of what a body can hold.
MAX_SETTLED = 500
#: Levels of objects and arrays inside unknown fields.
MAX_DEPTH = 16

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def _read_time(value: object) -> object:
    """Read an RFC 3339 time with an offset into UTC."""
    if isinstance(value, datetime):
        return value
    if not isinstance(value, str) or not _RFC3339.fullmatch(value):
        raise ValueError("must be a time like 2026-11-22T10:00:00Z (RFC 3339, with an offset)")
    try:
        return datetime.fromisoformat(value.upper()).astimezone(UTC)
    except OverflowError as error:
        raise ValueError("is outside the calendar") from error


def _printable(value: object) -> object:
    if isinstance(value, str) and _UNPRINTABLE.search(value):
        raise ValueError("must not contain control characters or lone surrogates")
    return value


Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}\z")]
Amount = Annotated[int, Field(ge=1, le=MAX_AMOUNT)]
Time = Annotated[datetime, BeforeValidator(_read_time)]
Text = Annotated[str, BeforeValidator(_printable), Field(min_length=1, max_length=MAX_DETAIL)]
Code = Annotated[str, Field(pattern=r"^[a-z0-9_]{1,64}\z")]
ServiceName = Annotated[str, Field(pattern=r"^[a-z]{1,32}\z")]


class Body(BaseModel):
    """What all messages share: frozen, strict, and keyed by one id."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")
    key_field: ClassVar[str] = "payment_id"

    @property
    def key(self) -> str:
        """The saga's id, or the command's own id."""
        return str(getattr(self, self.key_field))

    def encode(self) -> str:
        """This body as JSON text."""
        return self.model_dump_json()

    def fingerprint(self) -> str:
        """A digest of the content: the same id with another fingerprint is another command."""
        return hashlib.sha256(self.encode().encode()).hexdigest()


class Pay(Body):
    """`payment.pay`: the command that starts a saga. `expires_at` defaults to ten minutes from now."""

    payment_id: Id
    user_id: Id
    reservation_id: Id
    token: Id
    amount: Amount
    expires_at: Time | None = None


class ForwardEvent(Body):
    """The baton: the fields of the command, when it was paid, and when this step happened."""

    model_config = ConfigDict(extra="allow")

    payment_id: Id
    user_id: Id
    reservation_id: Id
    token: Id
    amount: Amount
    expires_at: Time
    paid_at: Time

    @classmethod
    def after(cls, previous: Pay | ForwardEvent, **when: datetime) -> Self:
        """The event that follows `previous`, with everything that it carried, which was read strictly before."""
        return cast("Self", cls.model_construct(**(dict(iter(previous)) | when)))


class Paid(ForwardEvent):
    """`payment.paid`: the payment is recorded, provisionally."""


class Confirmed(ForwardEvent):
    """`reservation.confirmed`: the seat belongs to this payment."""

    confirmed_at: Time


class Deducted(ForwardEvent):
    """`point.deducted`: the points are taken."""

    deducted_at: Time


class Expired(ForwardEvent):
    """`queue.expired`: the token is used up. The pivot: from here the saga only goes forward."""

    expired_at: Time


class Completed(Body):
    """`payment.completed`: the whole saga happened; the payment is no longer provisional."""

    payment_id: Id
    user_id: Id
    amount: Amount
    completed_at: Time


class Settled(Body):
    """`payment.settled`: these payments are complete, and nothing of them is left to be said."""

    payment_ids: Annotated[list[Id], Field(min_length=1, max_length=MAX_SETTLED)]

    @property
    def key(self) -> str:
        """A name for the batch: it belongs to no saga alone."""
        return hashlib.sha256(",".join(self.payment_ids).encode()).hexdigest()


class Cancelled(Body):
    """`payment.cancelled`: the provisional payment was undone."""

    payment_id: Id
    user_id: Id
    amount: Amount
    cancelled_at: Time


class Reverted(Body):
    """`reservation.reverted`: the seat is HELD again, or RELEASED where the hold has run out."""

    payment_id: Id
    user_id: Id
    reservation_id: Id
    seat: Id
    state: Literal["HELD", "RELEASED"]
    reverted_at: Time


class Restored(Body):
    """`point.restored`: the points were given back."""

    payment_id: Id
    user_id: Id
    amount: Amount
    restored_at: Time


class Failed(Body):
    """`<service>.failed`: the saga is over; undo your part, or remember never to do it.

    `service` is where the saga failed. Another service that is asked again repeats the same reason under its
    own routing key, so that whoever asks learns the true cause. `attempts` is how often the step was tried.
    """

    payment_id: Id
    user_id: Id
    service: ServiceName
    reason: Code
    detail: Text
    attempts: Annotated[int, Field(ge=0, le=1_000_000)]


class Sent(Body):
    """`notification.sent`: the user was told."""

    payment_id: Id
    user_id: Id
    kind: Literal["completed", "failed"]
    sent_at: Time


class Hold(Body):
    """`reservation.hold`: hold a seat for a user at a price, by default for ten minutes from now."""

    key_field: ClassVar[str] = "reservation_id"

    reservation_id: Id
    user_id: Id
    seat: Id
    price: Amount
    held_until: Time | None = None


class Held(Body):
    """`reservation.held`: the answer to `reservation.hold`."""

    key_field: ClassVar[str] = "reservation_id"

    reservation_id: Id
    user_id: Id
    seat: Id
    price: Amount
    held_until: Time


class TopUp(Body):
    """`point.top_up`: give a user points; the first one opens the wallet."""

    key_field: ClassVar[str] = "top_up_id"

    top_up_id: Id
    user_id: Id
    amount: Amount


class ToppedUp(Body):
    """`point.topped_up`: the answer to `point.top_up`, with the balance right after it."""

    key_field: ClassVar[str] = "top_up_id"

    top_up_id: Id
    user_id: Id
    amount: Amount
    balance: Annotated[int, Field(ge=0)]


class Enter(Body):
    """`queue.enter`: let a user through the waiting room with this token."""

    key_field: ClassVar[str] = "token"

    token: Id
    user_id: Id


class Entered(Body):
    """`queue.entered`: the answer to `queue.enter`."""

    key_field: ClassVar[str] = "token"

    token: Id
    user_id: Id


class Rejected(Body):
    """`<service>.rejected`: a command was not done; `id` is the command's own id."""

    key_field: ClassVar[str] = "id"

    id: Id
    reason: Code
    detail: Text


TYPES: Mapping[str, type[Body]] = {
    "payment.pay": Pay,
    "payment.paid": Paid,
    "reservation.confirmed": Confirmed,
    "point.deducted": Deducted,
    "queue.expired": Expired,
    "payment.completed": Completed,
    "payment.settled": Settled,
    "payment.cancelled": Cancelled,
    "reservation.reverted": Reverted,
    "point.restored": Restored,
    "notification.sent": Sent,
    "reservation.hold": Hold,
    "reservation.held": Held,
    "point.top_up": TopUp,
    "point.topped_up": ToppedUp,
    "queue.enter": Enter,
    "queue.entered": Entered,
    **{saga.failed(service): Failed for service in saga.SERVICES},
    **{saga.rejected(service): Rejected for service in saga.SERVICES if saga.command_keys(service)},
}


@dataclass(frozen=True, slots=True)
class Message:
    """A message as a service's handler sees it: its type, its body, and the trace it belongs to."""

    type: str
    body: Body
    traceparent: str | None = None

    @property
    def key(self) -> str:
        """The saga's id, or the command's own id."""
        return self.body.key


class Malformed(Exception):  # noqa: N818 - it is what became of a message, not a program's error
    """A message that cannot be read. `reason` is a stable code, `detail` is for the person who must look."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class UnknownType(Exception):  # noqa: N818 - as above
    """A routing key that this version does not know; a newer twin may."""

    def __init__(self, type_: str) -> None:
        super().__init__(f"no message type {type_!r} in this version")


def decode(
    type_: str, body: bytes, *, content_type: str | None = None, content_encoding: str | None = None
) -> Body:
    """Read a body of the given type, or raise `Malformed` or `UnknownType`.

    A person who types a command with `rabbitmqadmin` sets no properties, so a missing content type is JSON.
    """
    model = TYPES.get(type_)
    if model is None:
        raise UnknownType(type_)
    media_type, _, parameter = (content_type or "application/json").lower().partition(";")
    if media_type.strip() != "application/json" or parameter.strip() not in {"", "charset=utf-8"}:
        raise Malformed("wrong_content_type", f"expected application/json, got {content_type!r:.80}")
    if (content_encoding or "utf-8").lower() not in {"utf-8", "identity"}:
        raise Malformed("wrong_content_encoding", f"expected none, got {content_encoding!r:.80}")
    document = _read_json(body)
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise Malformed("invalid_fields", _explain(error)) from None


def decode_stored(type_: str, text: str) -> Body:
    """Read a body that this service itself wrote into its database."""
    return TYPES[type_].model_validate(json.loads(text))


def _read_json(body: bytes) -> dict[str, Any]:
    if len(body) > MAX_BODY:
        raise Malformed("too_large", f"{len(body)} bytes; the limit is {MAX_BODY}")
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise Malformed("not_utf8", f"byte {error.start} is not UTF-8") from None
    try:
        document = _JSON.decode(text)
    except Malformed:
        raise
    except RecursionError:
        raise Malformed("not_json", "nested too deeply") from None
    except ValueError as error:
        raise Malformed("not_json", str(error)[:MAX_DETAIL]) from None
    if not isinstance(document, dict):
        raise Malformed("not_an_object", f"expected a JSON object, got {type(document).__name__}")
    is_flat = text.count("{") == 1 and "[" not in text
    if not is_flat and _depth(document, MAX_DEPTH) > MAX_DEPTH:
        raise Malformed("not_json", f"nested deeper than {MAX_DEPTH} levels")
    if "\\u" in text:
        _refuse_lone_surrogates(document)
    return document


def _depth(value: object, limit: int) -> int:
    """How deep the containers of `value` nest, looking no deeper than one level past `limit`."""
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    if children is None or limit < 0:
        return 0
    return 1 + max((_depth(child, limit - 1) for child in children), default=0)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        # One pass: a body has room for thousands of names, and to compare each with each would take a second.
        counts = Counter(name for name, _ in pairs)
        twice = next(name for name, count in counts.items() if count > 1)
        raise Malformed("duplicate_field", f"field {twice[:80]!r} appears twice")
    return document


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise Malformed("not_json", "a number is out of range")
    return number


def _refuse_constant(name: str) -> None:
    raise Malformed("not_json", f"{name} is not JSON")


_JSON = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=_finite)


def _refuse_lone_surrogates(document: dict[str, Any]) -> None:
    try:
        json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise Malformed("bad_text", "a text contains a lone surrogate") from None


def _explain(error: ValidationError) -> str:
    """The first three findings, each as `field: what is wrong`, without the hostile value itself."""
    findings = error.errors(include_url=False, include_context=False, include_input=False)
    told = "; ".join(
        f"{'.'.join(str(part)[:64] for part in finding['loc'])}: {finding['msg']}" for finding in findings[:3]
    )
    more = f"; and {len(findings) - 3} more" if len(findings) > 3 else ""
    return printable(told + more)


def printable(text: str) -> str:
    """`text` made safe to log, to store and to send as a header: one line, bounded, never empty."""
    return _UNPRINTABLE.sub("?", text)[:MAX_DETAIL] or "?"
