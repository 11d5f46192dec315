"""docs/asyncapi.yaml: valid by AsyncAPI's own rules, and as true as the code."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from common import saga, topology
from common.messages import MAX_AMOUNT, MAX_DETAIL, TYPES, Malformed, decode
from common.outbox import is_mandatory
from tests.support import bodies
from tests.support.contracts.document import SCHEMA, made, official, reader
from tests.support.tools import missing
from tools.contracts import asyncapi, schemas, validator

TODAY = made()
SPOKEN = [key for key in saga.vocabulary() if key in TODAY["components"]["messages"]]
COMMANDS = [key for service in saga.SERVICES for key in saga.command_keys(service)]


@pytest.fixture(scope="module")
def home() -> Path:
    """Where AsyncAPI's own validator is."""
    try:
        return validator.installed()
    except validator.NoValidatorError as error:
        missing("Node", f"AsyncAPI's own validator cannot be had, and its JSON schema has to do ({error})")


@pytest.mark.usefixtures("home")
def test_asyncapis_own_validator_has_neither_an_error_nor_a_warning() -> None:
    """Others feed this page to tools; it must be what it says it is."""
    findings = validator.validate(asyncapi.PAGE.read_text())
    assert not [finding.text for finding in findings if finding.is_wrong]


@pytest.mark.usefixtures("home")
def test_asyncapis_own_validator_is_really_asked() -> None:
    """A validator that finds nothing anywhere proves nothing; this fault is one that no JSON schema sees."""
    document = made()
    strange = {"$ref": "#/channels/payment.pay/messages/payment.pay"}
    document["operations"]["payment-sends-payment.paid"]["messages"] = [strange]
    assert not list(official().iter_errors(document))
    findings = validator.validate(yaml.safe_dump(document))
    assert any(finding.is_wrong and "does not belong" in finding.text for finding in findings), findings


def test_the_json_schema_that_stands_in_is_asyncapis_own(home: Path) -> None:
    """Where there is no Node.js it is all that is asked, so nobody may have bent it."""
    shipped = (home / "node_modules/@asyncapi/specs/schemas/3.0.0.json").read_bytes()
    assert gzip.decompress(SCHEMA.read_bytes()) == shipped


def test_the_page_is_valid_by_asyncapis_json_schema() -> None:
    """The second best, which needs no Node.js."""
    page = yaml.safe_load(asyncapi.PAGE.read_text())
    assert not [error.message for error in official().iter_errors(page)]
    page["operations"]["payment-sends-payment.paid"]["action"] = "shout"
    assert not official().is_valid(page), "the schema finds nothing"


def test_the_page_is_made_of_the_code_alone() -> None:
    """What is generated must be the same on every machine, or CI would call it stale."""
    program = (
        "from tools import generate; from tools.contracts import asyncapi; import sys;"
        "sys.stdout.write(asyncapi.page(generate._REFUSALS, generate._MACHINERY))"
    )
    for seed in ("1", "2"):
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONHASHSEED": seed,
            "TZ": f"UTC-{seed}",
            "LC_ALL": "C.UTF-8",
        }
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=asyncapi.ROOT, env=environment, capture_output=True, check=True
        )
        assert done.stdout.decode() == asyncapi.PAGE.read_text(), "run `python -m tools.generate`"


def test_the_page_holds_no_private_facts() -> None:
    """It is made to be given away: no person, no machine, no address but the reader's own."""
    text = asyncapi.PAGE.read_text()
    assert not [word for word in ("@", "://", "127.0.0.1", str(Path.home())) if word in text]


def test_every_message_of_the_language_is_told_and_none_besides() -> None:
    """A message that is missing from the page cannot be relied on by anybody."""
    messages = set(TODAY["components"]["messages"])
    assert messages == {key for key in saga.vocabulary() if not key.endswith(".failed") or saga.may_fail(key)}
    channels = TODAY["channels"]
    assert {name for channel in channels.values() for name in channel["messages"]} == messages


def test_every_service_receives_and_sends_what_the_saga_table_says() -> None:
    """The operations are the choreography; one that is wrong sends a newcomer the wrong way."""
    operations = TODAY["operations"]
    for service in saga.SERVICES:
        received, sent = (
            {
                reference["$ref"].rpartition("/")[2]
                for operation in operations.values()
                if operation["action"] == action and operation["tags"] == [{"name": service}]
                for reference in operation["messages"]
            }
            for action in ("receive", "send")
        )
        assert sent == set(saga.emitted_keys(service))
        assert received == {key for key in SPOKEN if saga.takes(service, key)}


def test_a_channel_names_the_queues_that_are_really_bound() -> None:
    """An operator looks for a message where the page says that it waits."""
    channels = TODAY["channels"]
    for type_ in SPOKEN:
        channel = next(channel for channel in channels.values() if type_ in channel["messages"])
        bound = {
            binding.queue: binding.key
            for binding in topology.derive(()).bindings
            if binding.exchange == topology.EVENTS and binding.key in {type_, saga.binding_of(type_)}
        }
        assert channel["x-bound-queues"] == bound


def test_an_event_that_a_service_waits_for_is_mandatory() -> None:
    """Whoever publishes in a service's stead must know which events have to find a queue."""
    document = TODAY
    for service in saga.SERVICES:
        for key in saga.emitted_keys(service):
            (trait,) = document["operations"][f"{service}-sends-{key}"]["traits"]
            bindings = document["components"]["operationTraits"][trait["$ref"].rpartition("/")[2]]["bindings"]
            assert bindings["amqp"]["mandatory"] is is_mandatory(key)


def test_every_step_tells_its_reasons_and_what_undoes_it() -> None:
    """This is what AsyncAPI has no word for, and what makes five services one saga."""
    document = TODAY
    for number, step in enumerate(saga.SAGA, 1):
        part = document["operations"][f"{step.service}-receives-{step.on}"]["x-saga"]
        assert part["step"] == number
        assert tuple(part.get("reasons", ())) == step.refusals
        assert part.get("undone-by") == step.compensation
        assert part.get("pivot", False) is step.pivot
        if step.refusals:
            assert tuple(document["components"]["messages"][step.failed]["x-reasons"]) == step.refusals
        if step.compensation:
            messages = document["components"]["messages"]
            assert messages[step.compensation]["x-compensates"] == step.emits
            assert messages[step.emits]["x-compensated-by"] == step.compensation
            undoing = document["operations"][f"{step.service}-receives-failed"]["x-saga"]
            assert undoing == {"undoes": step.emits, "emits": [step.compensation]}


@pytest.mark.parametrize("type_", SPOKEN)
def test_an_example_is_a_message_that_the_services_read(type_: str) -> None:
    """People copy examples."""
    message = TODAY["components"]["messages"][type_]
    for example in message["examples"]:
        body = decode(type_, json.dumps(example["payload"]).encode())
        if type_ != saga.SETTLED:
            place = message["correlationId"]["location"].removeprefix("$message.payload#/")
            assert example["payload"][place] == body.key
        assert reader(type_, "payload").is_valid(example["payload"])
        assert reader(type_, "headers").is_valid(example.get("headers", {}))


_LONG = "x" * MAX_DETAIL
_TEXTS = st.one_of(
    st.sampled_from(["", "a", "a" * 64, "a" * 65, "a\n", "\n", "ä", "a b", "-", _LONG, f"{_LONG}x"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    st.sampled_from(["HELD", "RELEASED", "SOLD", "completed", "failed", "payment", "no_wallet", "No"]),
    st.sampled_from(["2026-11-22T10:00:00Z", "2026-11-22t10:00:00.123456789+09:00", "2026-11-22 10:00:00Z"]),
    st.sampled_from(["2026-11-22T10:00:00", "2026-11-22", "2026-11-22T10:00:00Z\n", "\u0662026-11-22T10:00:00Z"]),
)
_VALUES = st.one_of(
    _TEXTS,
    st.none(),
    st.booleans(),
    st.sampled_from([-1, 0, 1, MAX_AMOUNT, MAX_AMOUNT + 1, 1_000_000, 1_000_001, 0.5, 10**30]),
    st.lists(st.integers(), max_size=1),
    st.dictionaries(st.text("ab"), st.integers(), max_size=1),
)


@given(st.data())
def test_the_published_schema_accepts_what_the_services_read_and_nothing_else(data: st.DataObject) -> None:
    """A client that keeps to the page must not be refused, and the page must not refuse what is right.

    JSON Schema calls 1.0 whole, does not know the calendar and sees no lone surrogates; the services do.
    """
    type_ = data.draw(st.sampled_from(SPOKEN))
    body: dict[str, Any] = dict(bodies.valid(type_))
    name = data.draw(st.sampled_from(sorted(TYPES[type_].model_fields)))
    if data.draw(st.booleans()):
        body[name] = data.draw(_VALUES)
    else:
        body.pop(name, None)
    try:
        decode(type_, json.dumps(body).encode())
    except Malformed:
        read = False
    else:
        read = True
    assert reader(type_, "payload").is_valid(body) is read, (type_, body)


def test_unknown_fields_are_told_as_they_are_treated() -> None:
    """Whether a field may be added to a message depends on it."""
    for type_ in SPOKEN:
        body = bodies.valid(type_) | {"unheard_of": 1}
        told = TODAY["components"]["messages"][type_]["x-unknown-fields"]
        try:
            passed = "unheard_of" in dict(decode(type_, json.dumps(body).encode()))
        except Malformed:
            passed = False
        read_by_services = any(saga.takes(service, type_) for service in saga.SERVICES)
        assert told == (
            "never read by a service" if not read_by_services else "passed on" if passed else "refused"
        )
        assert reader(type_, "payload").is_valid(body) is (type_ not in COMMANDS)


def test_a_field_without_an_example_is_noticed() -> None:
    """Whoever adds a field is told to give it one, before a reader misses it."""
    examples = dict(schemas._EXAMPLES)
    fields = {name for model in TYPES.values() for name in model.model_fields}
    assert fields - {"service", "reason", "detail", "id"} == set(examples), "one is missing, or nobody needs it"
