"""One life of a service. When it is killed, its wires are cut first: nothing it still does has any effect."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine, Generator
from typing import Any

from common.life import Life
from proof.simulator.faults import Act, Strike

_current: contextvars.ContextVar[Incarnation | None] = contextvars.ContextVar("incarnation", default=None)
_MANY = 200
_TURNS = 50


class GoneError(asyncio.CancelledError):
    """What a service that was killed gets from every wire."""


class UndeadError(RuntimeError):
    """A task goes on after its service was killed."""


class Incarnation:
    """A service from its start to its end: its tasks, and what connects it with the world."""

    def __init__(self, name: str, on_strike: Callable[[Strike], None]) -> None:
        #: `payment`, or `payment.2` for its second replica.
        self.name = name
        self.service = name.partition(".")[0]
        self.life = Life(self.service)
        self.gone = False
        #: It has its tables, and talks with the broker.
        self.works = False
        #: Virtual seconds until it is started again.
        self.restart_after = 0.1
        self.over = asyncio.Event()
        #: Called, once, when it is killed; each cuts a wire.
        self.wires: list[Callable[[], None]] = []
        #: Copies that are confirmed, and their originals not yet acked.
        self.copied = 0
        self._tasks: list[asyncio.Task[Any]] = []
        self._on_strike = on_strike

    def must_live(self) -> None:
        """Raise GoneError if it was killed."""
        if self.gone:
            raise GoneError

    def kill(self) -> None:
        """End it here and now."""
        if self.gone:
            return
        self.gone = True
        for cut in self.wires:
            cut()
        for task in self._tasks:
            task.cancel()
        self.over.set()

    def struck(self, strike: Strike) -> None:
        """Note what strikes, and die if it is deadly."""
        self._on_strike(strike)
        if strike.act is Act.CRASH:
            self.restart_after = strike.seconds
            self.kill()

    def start(self, main: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run `main`, and all tasks that come of it, as this service."""
        context = contextvars.copy_context()
        context.run(_current.set, self)
        return asyncio.get_running_loop().create_task(main, context=context)

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """Take a new task for one of this service's."""
        self._tasks.append(task)
        if len(self._tasks) > _MANY:
            self._tasks = [task for task in self._tasks if not task.done()]
        if self.gone:
            task.cancel()

    async def buried(self) -> None:
        """Wait until no task of it is left."""
        for _ in range(_TURNS):
            self._tasks = [task for task in self._tasks if not task.done()]
            if not self._tasks:
                return
            for task in self._tasks:
                task.cancel()
            await asyncio.sleep(0)
        raise UndeadError(f"{self.name} was killed, but goes on: {self._tasks}")


def current() -> Incarnation | None:
    """The service that runs now; None: the world around them."""
    return _current.get()


def task_factory(
    loop: asyncio.AbstractEventLoop,
    coro: Coroutine[Any, Any, Any] | Generator[Any, None, Any],
    **options: Any,  # noqa: ANN401 - the name and the context, as asyncio hands them on
) -> asyncio.Task[Any]:
    """Give every task to the service in whose context it runs."""
    task: asyncio.Task[Any] = asyncio.Task(coro, loop=loop, **options)
    context = options.get("context")
    incarnation = context.get(_current) if context is not None else _current.get()
    if incarnation is not None:
        incarnation.adopt(task)
    return task
