"""`make certs`: an authority for development, a certificate for the broker and one for each of its users."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from common import rights
from tools.certs import Authority

HOME = Path(__file__).resolve().parents[2] / "var" / "certs"
_BROKER = ("DNS:localhost", "DNS:rabbitmq", "IP:127.0.0.1")


def main() -> int:
    """Make, or renew, all certificates; the authority is made once."""
    if not shutil.which("openssl"):
        print("openssl is not installed (Debian, Ubuntu: apt-get install openssl)", file=sys.stderr)
        return 1
    authority = Authority(HOME)
    authority.issue("broker", *_BROKER)
    for user in rights.users():
        authority.issue(user.name)
    print(
        f"{HOME}: the authority ca.pem; <name>.pem and <name>.key for the broker and {len(rights.users())} users"
    )
    print(f"amqps://point:password@localhost:5671/?cafile={HOME}/ca.pem&certfile={HOME}/point.pem&keyfile=...")
    return 0


if __name__ == "__main__":
    sys.exit(main())
