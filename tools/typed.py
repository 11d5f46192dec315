"""A command of the language as a person would type it: with rabbitmqadmin, old or new, or with curl."""

import json
import shlex
from collections.abc import Mapping
from urllib.parse import quote, unquote, urlsplit

from common.topology import EVENTS
from tools.broker import Broker


def lines(broker: Broker, key: str, body: Mapping[str, object]) -> dict[str, str]:
    """Return the line for each tool that can publish the command."""
    payload = json.dumps(body)
    address = urlsplit(broker.management_url)
    # The management address tells no virtual host; the AMQP one does: an empty path is the default one.
    vhost = unquote(urlsplit(broker.amqp_url).path[1:]) or "/"
    host, port = (
        address.hostname or "localhost",
        str(address.port or (443 if address.scheme == "https" else 80)),
    )
    tls = address.scheme == "https"
    old = [
        *("rabbitmqadmin", "-H", host, "-P", port, "-u", broker.user, "-p", broker.password),
        *(["--ssl"] if tls else []),
        *(["-V", vhost] if vhost != "/" else []),
        *("publish", f"exchange={EVENTS}", f"routing_key={key}", f"payload={payload}"),
    ]
    new = [
        *("rabbitmqadmin", "--host", host, "--port", port),
        *("--username", broker.user, "--password", broker.password),
        *(["--use-tls"] if tls else []),
        *(["--vhost", vhost] if vhost != "/" else []),
        *("publish", "message", "--exchange", EVENTS, "--routing-key", key, "--payload", payload),
    ]
    publication = {"properties": {}, "routing_key": key, "payload": payload, "payload_encoding": "string"}
    curl = [
        *("curl", "--noproxy", "*", "-su", f"{broker.user}:{broker.password}"),
        *("-H", "content-type: application/json", "-d", json.dumps(publication)),
        f"{broker.management_url}/api/exchanges/{quote(vhost, safe='')}/{EVENTS}/publish",
    ]
    return {
        "rabbitmqadmin of RabbitMQ 3, or /cli/ of its management UI": shlex.join(old),
        "rabbitmqadmin of RabbitMQ 4": shlex.join(new),
        "curl": shlex.join(curl),
    }
