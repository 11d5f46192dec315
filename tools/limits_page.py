"""Every limit, with where it is set, what happens at it, and its reason: the table of docs/security.md."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from common import channel, consumer, messages, rights, settings, topology, wire
from common.rights import Role, User
from common.settings import Settings

_CONF = Path(__file__).resolve().parents[1] / "deploy/broker/definitions.conf"
_FIELDS = Settings.model_fields
HEADS = ("what", "at most", "set in", "beyond it", "because")


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit, in words for people."""

    what: str
    most: str
    place: str
    beyond: str
    why: str


def rows() -> list[list[str]]:
    """A row for each limit."""
    return [[it.what, it.most, it.place, it.beyond, it.why] for it in (*_messages(), *_service(), *_broker())]


def _messages() -> tuple[Limit, ...]:
    ids = messages.Pay.model_json_schema()["properties"]["payment_id"]["pattern"]
    language, headers = "`common/messages.py`", "`common/wire.py`"
    fields, unread = "parked: `invalid_fields`", "parked: `bad_headers`"
    return (
        Limit(
            "a body",
            _bytes(messages.MAX_BODY),
            language,
            f"parked: `too_large`; its first {_bytes(channel.KEPT_OF_TOO_LARGE)} are kept, `x-left-out` counts "
            "the rest. It is never in memory as a whole",
            "the largest message of ours has half of it",
        ),
        Limit(
            "objects and arrays in one another",
            f"{messages.MAX_DEPTH} levels",
            language,
            "parked: `not_json`",
            "only fields that this version does not know nest at all",
        ),
        Limit(
            "an id",
            f"`{ids.removeprefix('^').removesuffix(chr(92) + 'z')}`",
            language,
            fields,
            "the same bytes in every database, log, header and terminal",
        ),
        Limit("an amount", f"{messages.MAX_AMOUNT:,}", language, fields, "sums of a wallet stay far below 2^63"),
        Limit(
            "a text",
            f"{messages.MAX_DETAIL} characters, none of control",
            language,
            fields,
            "it is shown to people",
        ),
        Limit(
            "payments in one `payment.settled`",
            f"{messages.MAX_SETTLED}",
            language,
            fields,
            "half of what a body can hold",
        ),
        Limit(
            "headers",
            f"{consumer.MAX_HEADERS}, {_bytes(wire.MAX_HEADER_BYTES)}, {wire.MAX_HEADER_VALUES} values "
            f"at {wire.MAX_NESTING} levels",
            f"{headers}, `common/consumer.py`",
            unread,
            "hundreds of deliveries are held at once, and a value takes many times its bytes",
        ),
    )


def _service() -> tuple[Limit, ...]:
    return (
        Limit(
            "deliveries in hand, per queue",
            "2 x `BATCH_SIZE`; the queues of commands share it",
            "`common/settings.py`",
            "the rest waits in the broker",
            "one batch being done, one waiting. With its three queues full of the largest bodies a service took "
            "156 MiB, and 345 with a `BATCH_SIZE` of 1,000, the largest; a test allows 200",
        ),
        Limit(
            "events not yet published",
            f"`OUTBOX_LIMIT`, {_FIELDS['outbox_limit'].default:,}",
            "`common/settings.py`",
            "takes no more messages until the broker takes events again",
            "they are rows of its database, and in memory",
        ),
        Limit(
            "deliveries of a message that nobody answers for",
            f"{topology.DELIVERY_LIMIT}",
            "`common/topology.py`",
            "dead letter; then handled alone",
            "a message that kills its service must not do so for ever",
        ),
        Limit(
            "lanes",
            f"{settings.MOST_LANES}",
            "`common/settings.py`, `LANES`",
            "the service does not start",
            "each is a queue more for every service",
        ),
    )


def _broker() -> tuple[Limit, ...]:
    private, client = rights.PRIVATE_QUEUE, rights.grant(User("client", Role.CLIENT), topology.derive(()))
    assert client.most
    largest = re.search(r"^max_message_size = (\d+)$", _CONF.read_text(), re.MULTILINE)
    assert largest, f"{_CONF} limits no message"
    users = "`common/rights.py`"
    return (
        Limit(
            "commands waiting, per queue",
            f"{topology.MAX_COMMANDS:,}, or {_bytes(topology.MAX_COMMAND_BYTES)}",
            "`common/topology.py`",
            "refused (`basic.nack`): nothing was taken, and nothing that was confirmed is dropped. It takes more "
            "when four fifths are left",
            "a few minutes of work; an operator policy may lower it",
        ),
        Limit(
            "events, retries, dead letters and parked messages waiting",
            "no limit",
            "`common/topology.py`",
            "-",
            "a full queue of events would block the services in a ring, and what is undone must find room. "
            "Alerts watch them",
        ),
        Limit(
            "the history",
            f"{topology.HISTORY_AGE}, {_bytes(topology.HISTORY_BYTES)}",
            "`common/topology.py`",
            "the oldest is forgotten",
            "no saga asks it",
        ),
        Limit(
            "any message",
            _bytes(int(largest[1])),
            "`deploy/broker/definitions.conf`",
            "the broker closes the channel of its publisher",
            "a service tells the history of a thousand messages at once; nothing else is as large",
        ),
        Limit(
            "what a user takes up who is no service",
            f"{client.most.connections} connections, {client.most.channels} channels",
            users,
            "the broker closes the connection",
            "they are the broker's memory, which the services need",
        ),
        Limit("queues in the virtual host", f"{rights.MAX_QUEUES:,}", users, "not declared", "as above"),
        Limit(
            "a queue that the broker named for a client",
            f"{_bytes(private['max-length-bytes'])}, {private['message-ttl'] // 60_000} minutes",
            f"{users}, an operator policy",
            "its oldest answers are dropped; the queue itself, when nobody uses it",
            "whoever does not read must not fill the disk. Asking again brings the answer again",
        ),
    )


def _bytes(count: int) -> str:
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if count % unit == 0:
            return f"{count // unit} {name}"
    return f"{count} bytes"
