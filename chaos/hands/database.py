"""What happens to PostgreSQL: crashes, lost connections, locks, no room, no writing, no speed."""

from __future__ import annotations

import asyncio

import asyncpg

from chaos.stage import Stage
from common import saga
from containers.patience import eventually

_BALLAST = "/var/lib/postgresql/data/ballast"


async def killed(stage: Stage, seconds: float) -> str:
    """SIGKILL to the server with all its connections, and its recovery from the log of writes."""
    node = stage.system.database
    await stage.strike(node)
    await stage.revive(node)
    await node.ready()
    await asyncio.sleep(seconds)
    return "all five databases"


async def restarted(stage: Stage, seconds: float) -> str:
    """The server is stopped in good order, stays away, and is started again."""
    node = stage.system.database
    await node.stop()
    try:
        await asyncio.sleep(seconds)
    finally:
        await node.start()
        await node.ready()
    return "all five databases"


async def frozen(stage: Stage, seconds: float) -> str:
    """The server is stopped in its tracks (SIGSTOP): connections stay open, and nobody answers on them."""
    node = stage.system.database
    await node.freeze(seconds)
    return "all five databases"


async def connections_terminated(stage: Stage, seconds: float) -> str:
    """Every connection of every service is terminated, again and again."""
    ends = asyncio.get_running_loop().time() + seconds
    rounds = 0
    while asyncio.get_running_loop().time() < ends:
        await terminate_connections(stage)
        rounds += 1
        await asyncio.sleep(stage.chance.uniform(0.5, 2))
    return f"{rounds} times"


async def terminate_connections(stage: Stage) -> None:
    """Terminate what a service opened to its database; the services enter none but their own."""
    await stage.system.administer(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE usename = datname AND usename <> current_user"
    )


async def locks_held(stage: Stage, seconds: float) -> str:
    """Somebody's transaction holds a lock on the table that every step writes, and does not end."""
    service = stage.chance.choice(saga.SERVICES)
    connection = await asyncpg.connect(stage.system.database_url(service), timeout=10)
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE saga_step IN ACCESS EXCLUSIVE MODE")
            await asyncio.sleep(seconds)
    finally:
        await connection.close(timeout=5)
    return f"saga_step of {service}"


async def read_only(stage: Stage, seconds: float) -> str:
    """The server takes no writes, as a standby does that was not promoted yet."""
    await stage.system.administer("ALTER SYSTEM SET default_transaction_read_only = on")
    await stage.system.administer("SELECT pg_reload_conf()")
    try:
        await asyncio.sleep(seconds)
    finally:
        # ALTER SYSTEM is no transaction's write, so it may be told still.
        await stage.system.administer("ALTER SYSTEM RESET default_transaction_read_only")
        await stage.system.administer("SELECT pg_reload_conf()")
    return "all five databases"


async def slow(stage: Stage, seconds: float) -> str:
    """The server gets a twentieth of one processor."""
    node = stage.system.database
    await node.allow(0.05)
    try:
        await asyncio.sleep(seconds)
    finally:
        await node.allow(0)
    return "a twentieth of one processor"


async def disk_full(stage: Stage, seconds: float) -> str:
    """The disk of the server is filled to the last byte, and emptied again; the server may die of it meanwhile."""
    node = stage.system.database
    # It ends with an error when nothing is left; that is what it is for.
    await node.run("sh", "-c", f"dd if=/dev/zero of={_BALLAST} bs=64k 2>&1 || true")
    try:
        await asyncio.sleep(seconds)
    finally:

        async def emptied() -> None:
            # It starts again and again while it has no room for its log, so there may be nobody to tell.
            await node.run("rm", "-f", _BALLAST)

        await eventually(emptied)
    return "no byte left"
