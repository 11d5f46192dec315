"""The stream of frames: a session gets frames, or learns that its connection is over, and nothing else."""

from __future__ import annotations

import warnings

from aiormq.exceptions import AMQPConnectionError, InvalidFrameError, ProtocolSyntaxError

from common import wire

_PIECE = 97


class _Socket:
    """What the network gives, in pieces that know no frames."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def read(self, _: int) -> bytes:
        piece, self._data = self._data[:_PIECE], self._data[_PIECE:]
        return piece


def run(data: bytes) -> None:
    """One input: all that the other side sends."""
    wire.install()
    with warnings.catch_warnings():
        # pamqp warns of methods that no broker sends any more.
        warnings.simplefilter("ignore", DeprecationWarning)
        _read_all(data)


def _read_all(data: bytes) -> None:
    reader = wire.FrameReader(_Socket(data))  # type: ignore[arg-type] # all that it uses of a socket
    read = 0
    try:
        while True:
            size, channel, frame = _now(reader)
            read += size
            assert frame is not None
            assert 0 <= channel <= 0xFFFF
    except (AMQPConnectionError, InvalidFrameError, ProtocolSyntaxError):
        assert read <= len(data)


def _now(reader: wire.FrameReader) -> tuple[int, int, object]:
    """The next frame. Nothing here waits, so that no loop is needed."""
    try:
        reader.get_frame().send(None)
    except StopIteration as done:
        found: tuple[int, int, object] = done.value
        return found
    raise AssertionError("it waited for more than the socket gives")
