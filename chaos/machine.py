"""What a run was made on, for the report."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from containers.system import System
from tools.docker_engine import answer


def describe() -> dict[str, str]:
    """Cores, memory, kernel and engine."""
    memory = next((line.split()[1] for line in Path("/proc/meminfo").read_text().splitlines()), "0")
    return {
        "cores": str(os.cpu_count()),
        "memory": f"{int(memory) // (1 << 20)} GiB",
        "kernel": platform.release().partition("-")[0],
        "Docker": answer("docker", "version", "--format", "{{.Server.Version}}") or "unknown",
    }


async def versions(system: System) -> dict[str, str]:
    """What the servers say of themselves; AssertionError while one is away."""
    overview = await system.call("GET", "overview")
    (row,) = await system.query("payment", "SHOW server_version")
    return {
        "RabbitMQ": str(overview["rabbitmq_version"]),
        "Erlang": str(overview["erlang_version"]),
        "PostgreSQL": str(row["server_version"]).partition(" ")[0],
    }
