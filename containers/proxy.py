"""A TCP proxy that makes the way longer: `python proxy.py MILLISECONDS PORT=HOST ...`, alone in a container."""

import asyncio
import contextlib
import sys
from functools import partial


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float) -> None:
    """Carry bytes one way, each so many seconds later, in order; when one side ends, so does the other."""
    loop = asyncio.get_running_loop()
    under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def deliver() -> None:
        while True:
            due, part = await under_way.get()
            await asyncio.sleep(due - loop.time())
            if not part:
                return
            writer.write(part)
            await writer.drain()

    async def collect() -> None:
        part = b"-"
        while part:
            part = await reader.read(65536)
            under_way.put_nowait((loop.time() + seconds, part))

    with contextlib.suppress(OSError):
        await asyncio.gather(collect(), deliver())
    writer.close()


async def _meet(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, host: str, port: int, seconds: float
) -> None:
    there_reader, there_writer = await asyncio.open_connection(host, port)
    await asyncio.gather(_carry(reader, there_writer, seconds), _carry(there_reader, writer, seconds))


async def _main(milliseconds: str, *routes: str) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for route in routes:
            port, _, host = route.partition("=")
            meet = partial(_meet, host=host, port=int(port), seconds=int(milliseconds) / 1000)
            await stack.enter_async_context(await asyncio.start_server(meet, "0.0.0.0", int(port)))  # noqa: S104
        print("carrying", flush=True)  # noqa: T201 - whoever started it waits for this
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
