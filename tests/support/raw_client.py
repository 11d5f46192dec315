"""A client that publishes what no client library would send: any bytes as routing key and properties."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator
from urllib.parse import unquote, urlsplit

from pamqp import base, commands, frame

from common import topology
from tools.broker import Broker


class RawClient:
    """A connection that publishes any bytes as routing key and properties, and waits until the broker has them."""

    def __init__(self, broker: Broker) -> None:
        address = urlsplit(broker.amqp_url)
        self._line = socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=10)
        self._stream = self._line.makefile("rb")
        self._line.sendall(b"AMQP\x00\x00\x09\x01")
        self._hear("Connection.Start")
        self._say(0, commands.Connection.StartOk(response=f"\0{broker.user}\0{broker.password}"))
        self._hear("Connection.Tune")
        self._say(0, commands.Connection.TuneOk(1, 131_072, 0))
        self._say(0, commands.Connection.Open(virtual_host=unquote(address.path[1:])))
        self._hear("Connection.OpenOk")
        self._say(1, commands.Channel.Open())
        self._hear("Channel.OpenOk")
        self._say(1, commands.Confirm.Select())
        self._hear("Confirm.SelectOk")

    def publish(self, key: bytes, body: bytes, flags: int = 0, properties: bytes = b"") -> None:
        """Publish to the exchange of the saga; AssertionError if the broker does not confirm it.

        It may close the connection instead; whoever goes on needs another client then.
        """
        publish = struct.pack(">HHH", 60, 40, 0) + short(topology.EVENTS.encode()) + short(key) + b"\0"
        header = struct.pack(">HHQH", 60, 0, len(body), flags) + properties
        for kind, payload in ((1, publish), (2, header), (3, body)):
            self._line.sendall(struct.pack(">BHI", kind, 1, len(payload)) + payload + b"\xce")
        self._hear("Basic.Ack")

    def close(self) -> None:
        """Hang up."""
        self._stream.close()
        self._line.close()

    def _say(self, number: int, request: base.Frame) -> None:
        self._line.sendall(frame.marshal(request, number))

    def _hear(self, wanted: str) -> None:
        while True:
            begin = self._stream.read(7)
            assert len(begin) == 7, "the broker hung up"
            kind, _, size = struct.unpack(">BHI", begin)
            payload = self._stream.read(size + 1)
            if kind == 1:
                heard = vars(commands.INDEX_MAPPING[struct.unpack(">I", payload[:4])[0]])["name"]
                assert heard == wanted, heard
                return


@contextlib.contextmanager
def raw(broker: Broker) -> Iterator[RawClient]:
    """A raw client, gone afterwards."""
    client = RawClient(broker)
    try:
        yield client
    finally:
        client.close()


def short(value: bytes) -> bytes:
    """AMQP's short string."""
    return bytes([len(value)]) + value
