"""The simulated broker as its clients and those who break it see it."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import aio_pika
from aiormq.exceptions import AMQPConnectionError
from yarl import URL

from proof.broker.connection import Wire, connect
from proof.broker.core import Broker
from proof.broker.dead_letters import SECONDS_TO_RETRY
from proof.broker.faults import Faults


class SimulatedBroker:
    """A RabbitMQ in this process, driven by the running loop and its clock."""

    def __init__(
        self,
        *,
        version: str = "4.0",
        faults: Faults | None = None,
        chance: random.Random | None = None,
        dead_letter_retry: float = SECONDS_TO_RETRY,
    ) -> None:
        """Start it in the running loop; with `chance`, confirms come in any order, by its dice."""
        self.chance = chance
        self.core = Broker(
            asyncio.get_running_loop(), version=version, faults=faults, dead_letter_retry=dead_letter_retry
        )
        self.connections: list[Wire] = []
        #: While it is False, nobody can connect.
        self.is_up = True

    async def connect(self, url: str | URL, **options: Any) -> aio_pika.Connection:  # noqa: ANN401 - as aio-pika's
        """Stands in for aio_pika.connect; AMQPConnectionError while the broker is down."""
        del options
        await asyncio.sleep(0)
        if not self.is_up:
            raise AMQPConnectionError("connection refused")
        return await connect(self, url)

    def forget(self, wire: Wire) -> None:
        """A connection has ended."""
        if wire in self.connections:
            self.connections.remove(wire)

    def kill(self, who: Wire | str, *, client_after: float = 0.0, broker_after: float = 0.0) -> None:
        """Lose a connection, or all whose name begins with this word: from now on nothing gets through.

        Each end learns of it after so many seconds. Until the broker does, it gives what was delivered and not
        acked to nobody else; until the client does, it works on and waits for answers that do not come.
        """
        if isinstance(who, Wire):
            found = [who]
        else:
            found = [wire for wire in self.connections if wire.name.split()[0] == who]
        clock = self.core.clock
        for wire in found:
            wire.cut()
            clock.call_at(clock.time() + client_after, wire.over_at_client)
        if broker_after:
            clock.call_at(clock.time() + broker_after, self._lose, found)
        else:
            self._lose(found)

    def _lose(self, wires: list[Wire]) -> None:
        # All at once: what one gives back must not go to another that is lost as well, and count twice.
        for wire in wires:
            wire.deafen()
        for wire in wires:
            wire.over_at_broker()

    def stop(self) -> None:
        """The broker goes down: every connection is lost; what is in queues is kept."""
        self.is_up = False
        wires = list(self.connections)
        for wire in wires:
            wire.deafen()
        for wire in wires:
            self.kill(wire)

    def start(self) -> None:
        """The broker is up again."""
        self.is_up = True

    def restart(self) -> None:
        """Down, and up again at once."""
        self.stop()
        self.start()
