"""What is in an image, as JSON: run inside it, by its own Python, with nothing but the standard library.

Python's packages are what the image's environment says it has, and not what was asked for; the system's are those
of Debian's own list.
"""

import json
import platform
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

_FORMAT = "${Package}\t${Version}\t${Architecture}\t${source:Package}\t${source:Version}\n"


def _python() -> list[dict[str, Any]]:
    return [
        {
            "name": _name(found.name),
            "version": found.version,
            "license": str(found.metadata.json.get("license_expression") or ""),
            "needs": sorted({_name(line) for line in found.requires or () if "extra ==" not in line}),
        }
        for found in metadata.distributions()
    ]


def _name(line: str) -> str:
    """The name at the beginning of a requirement, as package indexes spell it."""
    match = re.match(r"[A-Za-z0-9._-]+", line)
    return re.sub(r"[-_.]+", "-", match[0]).lower() if match else ""


def _debian() -> list[dict[str, str]]:
    try:
        told = subprocess.run(
            ["dpkg-query", "-W", "-f", _FORMAT], check=True, capture_output=True, text=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    names = ("name", "version", "architecture", "source", "source_version")
    return [dict(zip(names, line.split("\t"), strict=True)) for line in told.splitlines()]


def _system() -> dict[str, str]:
    file = Path("/etc/os-release")
    lines = file.read_text().splitlines() if file.exists() else []
    return {name: value.strip('"') for name, _, value in (line.partition("=") for line in lines) if name}


if __name__ == "__main__":
    found = {
        "python": sorted(_python(), key=lambda it: str(it["name"])),
        "debian": _debian(),
        "system": _system(),
        "interpreter": platform.python_version(),
    }
    json.dump(found, sys.stdout)
