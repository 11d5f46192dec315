"""Waiting for what a running system brings about by itself: looked for again and again, never hoped for."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, overload

T = TypeVar("T")

#: Seconds between two looks: short at first for what is nearly there, longer for what takes its time.
_FIRST_PAUSE = 0.01
_LONGEST_PAUSE = 0.25


class TooLateError(Exception):
    """It did not come about in time; the text says what was seen last."""


@overload
async def eventually(check: Callable[[], Awaitable[T]], *, seconds: float = 30) -> T: ...
@overload
async def eventually(check: Callable[[], T], *, seconds: float = 30) -> T: ...


async def eventually(check: Callable[[], object], *, seconds: float = 30) -> object:
    """What `check` gives, once it is true; TooLateError with its last reason when `seconds` have passed.

    `check` may be a function or a coroutine function. It is not there yet while it gives something false or
    raises AssertionError; a bare `assert` in it therefore does both, and None from such a check counts as
    true. Any other exception is a fault of the check and is raised at once.
    """
    __tracebackhide__ = True  # from pytest, which shows the test instead
    ends = time.monotonic() + seconds
    pause = _FIRST_PAUSE
    while True:
        try:
            async with asyncio.timeout(max(1.0, ends - time.monotonic())) as deadline:
                result = check()
                value = await result if inspect.isawaitable(result) else result
        except AssertionError as error:
            reason = str(error) or "an assertion without a message"
        except TimeoutError:
            if not deadline.expired():
                raise
            reason = "the check itself did not answer"
        else:
            if value is None or value:
                return value
            reason = f"it was {value!r}"
        if time.monotonic() >= ends:
            raise TooLateError(f"not within {seconds:g} s: {reason}")
        await asyncio.sleep(min(pause, max(0.0, ends - time.monotonic())))
        pause = min(2 * pause, _LONGEST_PAUSE)
