"""Every event is a CloudEvent 1.0 in binary mode, as the CloudEvents SDK reads it.

The SDK's AMQP binding is that of AMQP 1.0: application properties named `cloudEvents_*`. RabbitMQ shows the
headers of an AMQP 0-9-1 message as just these, so they are handed over unchanged. (The SDK's binding called
RabbitMQ is another project's, with headers named `ce-*`.) What is read here are the bytes that go to the broker.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pamqp.frame
import pytest
from cloudevents.core.bindings.amqp import AMQPMessage, from_amqp_event
from cloudevents.core.exceptions import CloudEventValidationError
from pamqp.body import ContentBody
from pamqp.header import ContentHeader

from common import bus, saga, wire
from common.messages import TYPES
from common.outbox import Outbox
from tests.support.contracts.document import made, reader
from tools.contracts import schemas

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
NOW = datetime(2026, 11, 22, 10, 0, 0, 654321, tzinfo=UTC)
SAID = [(service, key) for service in saga.SERVICES for key in saga.emitted_keys(service)]


def published(service: str, type_: str) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """The properties, headers and body of an event, read from the frames that a service would send."""
    body = TYPES[type_].model_validate_json(json.dumps(schemas.example(type_)))
    outbox = Outbox(NOW)
    outbox.stage(type_, body.key, body.encode(), TRACE)
    publish = bus.Session(service, f"{service}-user")._event(outbox.events[0])
    frames = wire.publish(
        1,
        exchange=publish.exchange,
        routing_key=publish.routing_key,
        body=publish.body,
        properties=publish.properties,
        mandatory=publish.mandatory,
        body_limit=100_000,
    )
    read: list[Any] = []
    while frames:
        taken, _, frame = pamqp.frame.unmarshal(frames)
        read.append(frame)
        frames = frames[taken:]
    method, header, content = read
    assert (method.exchange, method.routing_key) == ("saga.events", type_)
    assert isinstance(header, ContentHeader)
    assert isinstance(content, ContentBody)
    properties: dict[str, Any] = dict(header.properties)
    return properties, properties.pop("headers"), content.value


def as_sdk(properties: dict[str, Any], headers: dict[str, Any], body: bytes) -> AMQPMessage:
    """A message as the SDK's binding wants it."""
    return AMQPMessage({"content-type": properties["content_type"]}, headers, body)


@pytest.mark.parametrize(("service", "type_"), SAID)
async def test_the_sdk_reads_an_event_as_a_cloudevent(service: str, type_: str) -> None:
    """Whoever has a CloudEvents toolbox needs none of ours."""
    properties, headers, body = published(service, type_)
    event = from_amqp_event(as_sdk(properties, headers, body))
    assert event.get_specversion() == "1.0"
    assert event.get_type() == type_
    assert event.get_source() == f"/concert-saga/{service}"
    assert event.get_subject() == schemas.key(type_) == properties["correlation_id"]
    assert event.get_id() == properties["message_id"]
    assert event.get_time() == NOW
    assert event.get_datacontenttype() == "application/json"
    assert event.get_data() == json.loads(body)
    assert set(schemas.example(type_)) <= json.loads(body).keys(), "the body is the event's data, all of it"
    # These two the SDK would make up.
    assert {"cloudEvents_id", "cloudEvents_specversion"} <= headers.keys()


async def test_an_event_said_again_is_the_same_cloudevent() -> None:
    """CloudEvents tells repetitions by source and id; two events of one saga, or of two sagas, must differ."""
    names = {}
    for service, type_ in SAID:
        first, again = (from_amqp_event(as_sdk(*published(service, type_))) for _ in range(2))
        assert (first.get_source(), first.get_id()) == (again.get_source(), again.get_id())
        names[first.get_source(), first.get_id()] = type_
    assert len(names) == len(SAID)


@pytest.mark.parametrize("lost", ["source", "type"])
async def test_the_sdk_refuses_an_event_that_lacks_what_cloudevents_demands(lost: str) -> None:
    """Were it content with anything, the test above would show nothing."""
    properties, headers, body = published("payment", "payment.paid")
    del headers[f"cloudEvents_{lost}"]
    with pytest.raises(CloudEventValidationError):
        from_amqp_event(as_sdk(properties, headers, body))


@pytest.mark.parametrize(("service", "type_"), SAID)
async def test_the_published_headers_are_the_ones_that_travel(service: str, type_: str) -> None:
    """The page's headers, and its example of them, are written apart from the code that sends them."""
    properties, headers, _ = published(service, type_)
    message = made()["components"]["messages"][type_]
    (example,) = message["examples"]
    assert not list(reader(type_, "headers").iter_errors(headers))
    changing = {"cloudEvents_time", "traceparent"}
    assert set(headers) == set(example["headers"])
    assert all(headers[name] == value for name, value in example["headers"].items() if name not in changing)
    assert properties["message_type"] == message["bindings"]["amqp"]["messageType"] == type_
    assert properties["content_type"] == message["contentType"]
    assert properties["delivery_mode"] == 2
    assert f"`app_id` {properties['app_id']}," in message["description"]
