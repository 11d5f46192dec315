"""What the page shows, in sections, each told anew only when it has changed.

A follower that reads slowly skips what was overtaken and gets the newest: so a flood of sagas costs a page no more
than a trickle, and a page that has stopped reading holds nothing but its place.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator

#: Seconds without news after which a follower is told that there are none, so that it knows it is not cut off.
HEARTBEAT = 5.0


class Feed:
    """The newest of each section, as server-sent events."""

    def __init__(self) -> None:
        self._sections: dict[str, tuple[int, bytes]] = {}
        self._told = 0
        self._news = asyncio.Event()
        self._closed = False

    def tell(self, section: str, content: object) -> bool:
        """Make this the content of a section; whether that is news."""
        # Ids come from strangers: a half of a character can be escaped, but not be encoded.
        chunk = f"event: {section}\ndata: {json.dumps(content, separators=(',', ':'))}\n\n".encode()
        if section in self._sections and self._sections[section][1] == chunk:
            return False
        self._told += 1
        self._sections[section] = (self._told, chunk)
        self._awaken()
        return True

    def close(self) -> None:
        """Send all followers away."""
        self._closed = True
        self._awaken()

    async def follow(self, *, heartbeat: float = HEARTBEAT) -> AsyncGenerator[bytes, None]:
        """All sections now, then what changes, until the feed is closed."""
        seen = 0
        while not self._closed:
            news = self._news
            fresh = [chunk for number, chunk in self._sections.values() if number > seen]
            seen = self._told
            if fresh:
                yield b"".join(fresh)
                continue
            try:
                async with asyncio.timeout(heartbeat):
                    await news.wait()
            except TimeoutError:
                yield b"event: beat\ndata: 0\n\n"

    def _awaken(self) -> None:
        self._news.set()
        self._news = asyncio.Event()
