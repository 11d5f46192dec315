"""What listens on this machine: ports nobody has, and whether somebody answers on one."""

import http.client
import json
import random
import socket
import urllib.error
import urllib.request
from base64 import b64encode
from typing import Any

# Below the range from which systems take the local end of outgoing connections: a port from that range may be
# taken while its owner is down for a restart, by the very client that tries to reach it again.
_PORTS = range(20_000, 30_000)

# A proxy set for the outside world has no business between two programs on one machine.
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def free_ports(count: int) -> tuple[int, ...]:
    """Find ports of the loopback interface that nobody listens on."""
    found: list[int] = []
    for port in random.sample(_PORTS, len(_PORTS)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return tuple(found)
    raise OSError(f"no {count} free ports between {_PORTS.start} and {_PORTS.stop}")


def speaks_amqp(host: str, port: int) -> bool:
    """Say the protocol's first words and see whether the broker answers with its own."""
    try:
        with socket.create_connection((host, port), timeout=2) as connection:
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            return bool(connection.recv(1))
    except OSError:
        return False


def ask(url: str, *, user: str | None = None, password: str = "", seconds: float = 3) -> tuple[int, Any]:
    """Get a page of JSON: its status and content; status 0 if nobody answered."""
    request = urllib.request.Request(url)  # noqa: S310 - our own http addresses
    if user is not None:
        key = b64encode(f"{user}:{password}".encode()).decode()
        request.add_header("Authorization", f"Basic {key}")
    try:
        with _direct.open(request, timeout=seconds) as answer:
            status, body = answer.status, answer.read()
    except urllib.error.HTTPError as refusal:
        with refusal:
            status, body = refusal.code, refusal.read()
    except (OSError, http.client.HTTPException):
        return 0, None
    try:
        return status, json.loads(body)
    except ValueError:
        return status, None
