"""Write the documents that the code already knows: settings, topology, messages, and the saga's table and diagram.

`python -m tools.generate` writes them, with `--check` it fails where one is stale. What it writes depends on the
code alone: not on the machine, the time or the environment.
"""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from common import messages, personal, recovery, retention, rights, saga, topology
from common.barrier import PROTOCOL_BROKEN
from common.history import OPERATOR
from common.messages import TYPES, Body
from common.settings import Settings
from ops.drawing import mermaid
from tools import fuzz_page, limits_page, proof_page
from tools.contracts import asyncapi
from tools.matrix import page as versions_page
from tools.rights import definitions, table

ROOT = Path(__file__).resolve().parents[1]
_NOTE = "<!-- Written by `python -m tools.generate`. Change the code, not this file. -->"
_DELAYS = Settings.model_fields["retry_delays"].default
_NOTHING = "-"

#: What a person is told about each reason; generating fails for a code that has no words here.
_REFUSALS: Mapping[str, str] = {
    "over_limit": "more points than one payment may take (`PAYMENT_LIMIT`)",
    "deadline_passed": "the payment's `expires_at` had passed when the step was about to be done",
    "unknown_reservation": "nobody made this reservation",
    "not_your_reservation": "it belongs to another user",
    "hold_expired": "its hold has run out",
    "seat_given_away": "its hold ran out, and the seat was given to somebody else",
    "reservation_taken": "another payment has confirmed it",
    "price_mismatch": "the payment's amount is not the seat's price",
    "no_wallet": "the user has no wallet; the first top-up opens one",
    "balance_too_low": "the wallet holds fewer points than the price",
    "unknown_token": "nobody was given this token",
    "not_your_token": "it belongs to another user",
    "token_not_active": "another payment has used it up",
    "seat_taken": "the seat is held or sold",
    "hold_in_the_past": "`held_until` is already over",
    "wallet_full": "a wallet would hold more than any may",
}
_MACHINERY: Mapping[str, str] = {
    saga.RETRIES_SPENT: "the step kept failing until its retries were used up; `detail` tells the last error",
    saga.DATA_ERROR: "a database cannot store this content, now or ever",
    recovery.CRASHED_ALONE: "the message ended its service's process, also when it was handled alone",
    saga.ABORTED: "an operator ended the saga with `saga abort`; who and why is told by the history",
    saga.IDEMPOTENCY_CONFLICT: "in `<service>.rejected`: the id was used before with other content; the first one "
    "stays untouched",
}
_PARKED: Mapping[str, str] = {
    "too_large": f"the body has more than {messages.MAX_BODY // 1024} KiB; only its beginning is kept",
    "not_utf8": "the body is not UTF-8",
    "not_json": "the body is not JSON, nests too deeply, or holds a number that JSON does not know",
    "not_an_object": "the body is JSON, but not an object",
    "duplicate_field": "a field appears twice",
    "bad_text": "a text contains a lone surrogate",
    "invalid_fields": "a field is missing, unknown or not as listed here; `x-detail` tells which",
    "wrong_content_type": "the content type is neither missing nor `application/json`",
    "wrong_content_encoding": "the content is compressed or otherwise encoded",
    "bad_headers": "the headers cannot be read, are too many, or contradict the routing key",
    "not_ours": "the message came, by a wrong binding or a CC header, to a service that does not take its type",
    "unknown_origin": "neither the service nor the broker says how it came to the service's recovery",
    rights.NOT_ITS_OWNER: "another broker user published it than the one who may say it; the detail names them",
    "dead_letter_failed": "the dead-letter handler's database cannot store its content",
    "channel_failed": "a notice that no channel took, after its last attempt",
    retention.TOO_OLD: "its payment is so old that the saga may be forgotten here; audit it, then discard it",
    "unknown_type": "no service of this version knew the type for as long as `UNKNOWN_TYPE_HOURS` says",
    saga.IDEMPOTENCY_CONFLICT: "the id was used before with other content",
    PROTOCOL_BROKEN: "it cannot be, such as a failure after the pivot; an alarm is raised",
}


def documents() -> dict[Path, str]:
    """Every generated text by its file; of files that people write, with the generated parts renewed."""
    made = {
        ROOT / "docs/settings.md": settings_page(),
        ROOT / "docs/topology.md": topology_page(),
        ROOT / "docs/messages.md": messages_page(),
        asyncapi.PAGE: asyncapi.page(_REFUSALS, _MACHINERY),
        ROOT / "docs/proof.md": proof_page.page(_NOTE),
        ROOT / "docs/fuzz.md": fuzz_page.page(_NOTE),
        ROOT / "docs/versions.md": versions_page.page(_NOTE),
        **{ROOT / name: text for name, text in definitions.files().items()},
    }
    parts = {"saga": lambda: mermaid.fenced(mermaid.flow()), "table": saga_table}
    security = ROOT / "docs/security.md"
    made[security] = with_parts(
        security.read_text(), {"rights": rights_table, "limits": limits_table, "personal": personal_table}
    )
    for name in ("README.md", "ARCHITECTURE.md"):
        path = ROOT / name
        if path.exists():
            made[path] = with_parts(path.read_text(), parts)
    return made


def with_parts(text: str, parts: Mapping[str, Callable[[], str]]) -> str:
    """Renew what stands between `<!-- generated:NAME -->` and `<!-- /generated:NAME -->`."""
    for name, write in parts.items():
        begin, end = f"<!-- generated:{name} -->", f"<!-- /generated:{name} -->"
        before, begun, rest = text.partition(begin)
        _, ended, after = rest.partition(end)
        if not begun or not ended:
            raise ValueError(f"the place of the generated part is gone: {begin} ... {end}")
        text = f"{before}{begin}\n{write()}\n{end}{after}"
    return text


# The saga


def saga_table() -> str:
    """The saga in one table."""
    rows = []
    for number, step in enumerate(saga.SAGA, 1):
        on = [step.on] if step.refusals else [step.on, saga.ANY_FAILED]
        undone = (
            _code(step.compensation)
            if step.compensation
            else "nothing: it is the pivot"
            if step.pivot
            else _NOTHING
        )
        refusals = ", ".join(_words(reason) for reason in step.refusals) or _NOTHING
        rows.append([str(number), step.service, _codes(on, " and "), _code(step.emits), refusals, undone])
    heads = [
        "#",
        "service",
        "does its part on",
        "emits",
        "may refuse because",
        f"is undone on `{saga.ANY_FAILED}`, emits",
    ]
    return _table(heads, rows)


def rights_table() -> str:
    """Who may do what on the broker."""
    heads = ["user", "is a", "publishes", "reads", "declares, and binds"]
    return _table(heads, table.rows(_DELAYS))


def limits_table() -> str:
    """Every limit, and what happens at it."""
    return _table(limits_page.HEADS, limits_page.rows())


def personal_table() -> str:
    """Which fields tell of a person, and which messages are known by one."""
    rows = [[_code(name), "masked", why] for name, why in personal.PERSONAL.items()]
    rows.append([_codes(sorted(personal.KNOWN_BY_A_PERSON)), "their id is masked", "it is a token"])
    rows.append([_codes(sorted(personal.IMPERSONAL)), "shown", "by itself it tells of nobody"])
    return _table(["field, or message", "is", "because"], [*rows, ["any other", "masked", "nobody has decided"]])


# Settings


def settings_page() -> str:
    """docs/settings.md."""
    shared = Settings.model_fields
    own = {service: _own_settings(service) for service in saga.SERVICES}
    every = [_setting(name, field, "all") for name, field in shared.items()]
    some = [
        _setting(name, field, service)
        for service, kind in own.items()
        for name, field in kind.model_fields.items()
        if name not in shared
    ]
    return _page(
        "Settings",
        "A service is told everything by its environment. An empty variable counts as not set. A wrong one stops "
        "the service at start, with one line that names it. Instead of a variable, its name with `_FILE` may name "
        "a file that holds the value, as for secrets: `RABBITMQ_URL_FILE=/run/secrets/point.url`. The broker's "
        "address is read from its file anew for each session, so a password changes without a stop.",
        _table(["variable", "default", "values", "service", "meaning"], every + some),
        "The five services of one machine may share an environment, but for `DATABASE_URL` and `HEALTH_PORT`: "
        "each needs its own. `RETRY_DELAYS` must be the same in all.",
    )


def _own_settings(service: str) -> type[Settings]:
    module = importlib.import_module(f"{service}_svc.__main__")
    kinds = [kind for kind in vars(module).values() if isinstance(kind, type) and issubclass(kind, Settings)]
    return max(kinds, key=lambda kind: len(kind.model_fields))


def _setting(name: str, field: FieldInfo, service: str) -> list[str]:
    return [_code(name.upper()), _default(field.default), _values(field), service, field.description or ""]


def _choices(annotation: object) -> tuple[object, ...]:
    """What a setting's type lists, also where it may be left out."""
    found = getattr(annotation, "__args__", ())
    return next((_choices(one) for one in found if getattr(one, "__args__", ())), found)


def _default(value: object) -> str:
    match value:
        case bool():
            return _code(str(value).lower())
        case tuple() if value:
            return _code(",".join(map(str, value)))
        case "" | () | None:
            return _NOTHING
        case int() | float() | str():
            return _code(f"{value}")
    raise TypeError(f"no words for the default {value!r}")


def _values(field: FieldInfo) -> str:
    choices = _choices(field.annotation)
    if field.annotation is bool:
        return "`true`, `false`"
    if choices and all(isinstance(choice, str) for choice in choices):
        return _codes(map(str, choices))
    bounds = {
        bound: getattr(rule, bound)
        for rule in field.metadata
        for bound in ("ge", "gt", "le")
        if hasattr(rule, bound)
    }
    if "le" in bounds:
        least = f"{bounds['ge']:,} .. " if "ge" in bounds else f"above {bounds['gt']:,}, up to "
        return f"{least}{bounds['le']:,}"
    if bounds:
        return f"from {bounds['ge']:,}" if "ge" in bounds else f"above {bounds['gt']:,}"
    return "delays like `500ms`, `1s`, `5m`, growing" if field.default == _DELAYS else "text"


# Topology


def topology_page() -> str:
    """docs/topology.md."""
    derived = topology.derive(_DELAYS)
    exchanges = {
        topology.EVENTS: "commands and events: what clients publish and observers may listen to",
        topology.RECOVERY: "the services' own recovery; exactly one queue is bound to each key",
    }
    if set(exchanges) != set(derived.exchanges):
        raise ValueError("an exchange has no words yet")
    return _page(
        "Broker objects",
        "Everything here is derived from the table in `common/saga.py` by `common/topology.py`, and declared by "
        f"whichever service comes first. The retry levels are those of the default `RETRY_DELAYS`, "
        f"{', '.join(map(str, _DELAYS))}; another setting gives other queues.",
        _recovery_flow(),
        "## Exchanges",
        "Both are durable topic exchanges.",
        _table(["exchange", "carries"], [[_code(name), exchanges[name]] for name in derived.exchanges]),
        "## Queues",
        f"All are durable quorum queues. `<svc>` is one of {_codes(saga.SERVICES)}.",
        _queue_kinds(derived),
        "A queue's arguments cannot change; a queue that is there with others has to be emptied and deleted "
        "first. Dead-lettering *at least once* keeps a message until its target has confirmed it; it needs "
        "`x-overflow: reject-publish`.",
        f"## Bindings to `{topology.EVENTS}`",
        "A binding of one of these queues to any other key of the language is stale, and removed when the "
        "topology is declared. Queues of your own may be bound as you like.",
        _bindings(derived, topology.EVENTS),
        f"## Bindings to `{topology.RECOVERY}`",
        "`<svc>.return` is how a retried message comes back, `<svc>.replay` how the broker gives back a letter "
        "that an operator rejected; nobody may publish either. `<svc>.abort` is how an operator ends a saga that "
        "waits there.",
        _recovery_bindings(derived),
        "## The history",
        f"`{topology.HISTORY}` is a stream: what each service tells of every batch, unconfirmed, under its key "
        f"{_codes(topology.history_key(teller) for teller in (*saga.SERVICES, OPERATOR))} of "
        f"`{topology.RECOVERY}`. `saga watch`, `saga show` and the board read it; no saga depends on it.",
        _table(["argument", "value"], [[_code(name), str(value)] for name, value in _history(derived).items()]),
    )


def _history(derived: topology.Topology) -> Mapping[str, str | int]:
    return next(queue.arguments for queue in derived.queues if queue.name == topology.HISTORY)


def _recovery_flow() -> str:
    service = "&lt;svc&gt;"
    return "\n".join(
        [
            "```mermaid",
            "flowchart LR",
            f'    events{{{{"{topology.EVENTS}"}}}} --> work["{service}.commands, {service}.events"]',
            '    work --> service(["the service"])',
            f'    service -.->|"a passing error"| retry["{service}.retry.&lt;delay&gt;"]',
            '    retry -.->|"when its delay is over"| work',
            f'    service -.->|"refused, or retries spent"| dead["{service}.dead"]',
            f'    service -.->|"unreadable, in conflict"| parked["{service}.parked"]',
            '    work -.->|"too many crashes"| dead',
            '    dead --> handler(["its dead-letter handler"])',
            f'    handler -->|"{service}.failed"| events',
            '    parked --> person(["a person"])',
            "```",
        ]
    )


def _queue_kinds(derived: topology.Topology) -> str:
    """One row per kind of queue: the same name and arguments but for the service's name in them."""
    kinds: dict[tuple[str, str], list[str]] = {}
    for queue in derived.queues:
        if queue.name == topology.HISTORY:
            continue
        service = queue.name.partition(".")[0]
        arguments = "<br>".join(
            f"`{name}: {_general(service, value)}`"
            for name, value in queue.arguments.items()
            if name != "x-queue-type"
        )
        kinds.setdefault((_general(service, queue.name), arguments), []).append(service)
    purposes = {
        topology.dead_queue("<svc>"): "terminal failures, read by the service's dead-letter handler",
        topology.parked_queue("<svc>"): "what only a person can decide",
        topology.events_queue("<svc>"): "the saga's events, and retried messages; never bounded",
        topology.commands_queue("<svc>"): "commands; full, it refuses more, which the publisher sees",
    } | {topology.retry_queue("<svc>", delay): f"waiting {delay} for another attempt" for delay in _DELAYS}
    rows = [
        [_code(name), purposes[name], "all" if tuple(of) == saga.SERVICES else ", ".join(of), arguments]
        for (name, arguments), of in kinds.items()
    ]
    return _table(["queue", "holds", "services", "arguments"], rows)


def _general(service: str, value: str | int) -> str:
    return re.sub(rf"^{service}\.", "<svc>.", str(value))


def _bindings(derived: topology.Topology, exchange: str) -> str:
    keys: dict[str, list[str]] = {}
    for binding in derived.bindings:
        if binding.exchange == exchange:
            keys.setdefault(binding.queue, []).append(binding.key)
    return _table(["queue", "routing keys"], [[_code(queue), _codes(bound)] for queue, bound in keys.items()])


def _recovery_bindings(derived: topology.Topology) -> str:
    """One row per kind of key, and which services have it."""
    kinds: dict[tuple[str, str], list[str]] = {}
    for binding in derived.bindings:
        if binding.exchange == topology.RECOVERY and binding.queue != topology.HISTORY:
            service = binding.key.partition(".")[0]
            kind = _general(service, binding.key), _general(service, binding.queue)
            kinds.setdefault(kind, []).append(service)
    rows = [
        [_code(key), _code(queue), "all" if tuple(services) == saga.SERVICES else ", ".join(services)]
        for (key, queue), services in kinds.items()
    ]
    return _table(["routing key", "queue", "services"], rows)


# Messages


def messages_page() -> str:
    """docs/messages.md."""
    forward = [step.emits for step in saga.SAGA if step.refusals]
    endings = [saga.COMPLETED, saga.SAGA[-1].emits]
    compensations = [step.compensation for step in saga.SAGA if step.compensation]
    commands = [key for service in saga.SERVICES for key in saga.command_keys(service)]
    answers = [command.answer for command in saga.COMMANDS]
    failures = [step.failed for step in saga.SAGA if step.refusals]
    rejections = [saga.rejected(service) for service in saga.SERVICES if saga.command_keys(service)]
    return _page(
        "Messages",
        f"All are JSON objects on the topic exchange `{topology.EVENTS}`; the routing key is the type. They are "
        "read strictly: nothing is coerced, and a field that is missing or wrong parks the message. Commands "
        "refuse fields that are not listed here; the events that carry a saga forward pass them on.",
        "A saga's id is its `payment_id`, and the client chooses it. Publishing the same command once more does "
        "nothing twice and repeats the answer; the same id with other content is refused.",
        "## Who says what",
        _table(
            ["routing key", "said by", "waited for by"],
            [[_code(key), _emitter(key), ", ".join(_takers(key)) or "observers"] for key in saga.vocabulary()],
        ),
        "## Commands",
        "To publish one, no AMQP property is needed.",
        *_bodies(commands),
        "## Events that carry a saga forward",
        *_bodies(forward),
        "## How a saga ends",
        *_bodies([*endings, *compensations]),
        "### `<service>.failed`",
        f"{_described(TYPES[failures[0]])} These exist: {_codes(failures)}.",
        _fields(TYPES[failures[0]]),
        "## Answers to the other commands",
        *_bodies(answers),
        "### `<service>.rejected`",
        f"{_described(TYPES[rejections[0]])} These exist: {_codes(rejections)}.",
        _fields(TYPES[rejections[0]]),
        "## Kinds of values",
        _kinds(),
        "## Reasons",
        "Codes are stable; `detail` is for people and may change. A step that refuses says so in "
        "`<service>.failed`, a command beside the saga in `<service>.rejected`.",
        _table(["in", "reason", "it means"], _reasons()),
        "These may be the reason of any step or command:",
        _table(["reason", "it means"], [[_code(code), words] for code, words in _MACHINERY.items()]),
        "What only a person can decide is parked: it goes to `<svc>.parked`, with the reason in the header "
        "`x-reason` and more in `x-detail`.",
        _table(["parked because", "it means"], [[_code(code), words] for code, words in _PARKED.items()]),
    )


def _emitter(key: str) -> str:
    return next((service for service in saga.SERVICES if key in saga.emitted_keys(service)), "clients")


def _takers(key: str) -> list[str]:
    is_failure = key.endswith(saga.ANY_FAILED[1:])
    return [
        service
        for service in saga.SERVICES
        if key in (*saga.command_keys(service), *saga.event_keys(service))
        or (is_failure and saga.ANY_FAILED in saga.event_keys(service))
    ]


def _bodies(keys: Iterable[str]) -> Iterable[str]:
    for key in keys:
        yield f"### `{key}`"
        yield _described(TYPES[key])
        yield _fields(TYPES[key])


def _described(model: type[Body]) -> str:
    """A body's docstring without its own name."""
    text = " ".join((model.__doc__ or "").split()).partition(": ")[2]
    return text[:1].upper() + text[1:]


def _fields(model: type[Body]) -> str:
    schema = model.model_json_schema()
    required = schema.get("required", ())
    rows = [
        [_code(name), _kind(field), "" if name in required else "optional"]
        for name, field in schema["properties"].items()
    ]
    return _table(["field", "is", ""], rows)


def _kind(schema: Mapping[str, Any]) -> str:
    """A field's kind in the words of the table of kinds."""
    if "anyOf" in schema:
        return " or ".join(_kind(one) for one in schema["anyOf"] if one.get("type") != "null")
    if "enum" in schema:
        return _codes(schema["enum"], " or ")
    if schema.get("format") == "date-time":
        return "time"
    if schema["type"] == "integer":
        if (schema.get("minimum"), schema.get("maximum")) == (1, messages.MAX_AMOUNT):
            return "amount"
        return f"whole number from {schema['minimum']:,}" + (
            f" to {schema['maximum']:,}" if "maximum" in schema else ""
        )
    if "pattern" in schema:
        return f"text like `{_pattern(schema['pattern'])}`" if "." not in schema["pattern"] else "id"
    return f"text of 1 to {schema['maxLength']} characters"


def _pattern(pattern: str) -> str:
    return pattern.removeprefix("^").removesuffix(r"\z")


def _kinds() -> str:
    amounts = f'a whole number of points, 1 .. {messages.MAX_AMOUNT:,}; not `1.0`, not `"1"`'
    ids = messages.Pay.model_json_schema()["properties"]["payment_id"]["pattern"]
    return _table(
        ["kind", "is"],
        [
            ["id", f"text that matches `{_pattern(ids)}`, compared byte by byte"],
            ["amount", amounts],
            ["time", "RFC 3339 with an offset: `2026-11-22T10:00:00Z`"],
            ["text", "no control characters, no lone surrogates"],
        ],
    )


def _reasons() -> list[list[str]]:
    steps = [(step.failed, reason) for step in saga.SAGA for reason in step.refusals]
    commands = [
        (f"{saga.rejected(command.service)}", reason) for command in saga.COMMANDS for reason in command.refusals
    ]
    return [[_code(where), _code(reason), _REFUSALS[reason]] for where, reason in (*steps, *commands)]


# Text


def _page(title: str, *blocks: str) -> str:
    return "\n\n".join([f"# {title}", _NOTE, *blocks]) + "\n"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _code(text: str | None) -> str:
    return f"`{text}`"


def _codes(texts: Iterable[str], between: str = ", ") -> str:
    return between.join(map(_code, texts))


def _words(reason: str) -> str:
    return reason.replace("_", " ")


def main(arguments: list[str] | None = None) -> int:
    """Write what is stale, or with `--check` only tell it; 1 if anything was told."""
    parser = argparse.ArgumentParser(prog="python -m tools.generate", description="Write the generated documents.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a document is stale")
    check = parser.parse_args(arguments).check
    made = documents()
    stale = [path for path, text in made.items() if not path.exists() or path.read_text() != text]
    for path in stale:
        name = path.relative_to(ROOT)
        if check:
            print(f"{name} is stale: run `python -m tools.generate`", file=sys.stderr)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(made[path])
            print(f"{name} written")
    if not stale:
        print("generated documents: fresh")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
