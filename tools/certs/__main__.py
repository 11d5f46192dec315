"""`make certs`: an authority for development, a certificate for each server and one for each user.

A service shows the same to the broker and to its database. Containers run as other users than we do, and must read
their keys: the files are open, and the directory that they are in is closed to everybody else on this machine. The
authority's own key is ours alone.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from common import rights
from tools.certs import Authority

HOME = Path(__file__).resolve().parents[2] / "var" / "certs"
#: Whom a certificate is for: by their names under compose, and seen from this machine.
SERVERS = {
    "broker": ("rabbitmq", "rabbitmq-1", "rabbitmq-2", "rabbitmq-3"),
    "postgres": ("postgres",),
    "mariadb": ("mariadb",),
}
_HERE = ("DNS:localhost", "IP:127.0.0.1")


def main(home: Path = HOME) -> int:
    """Make, or renew, all certificates; the authority is made once."""
    if not shutil.which("openssl"):
        print("openssl is not installed (Debian, Ubuntu: apt-get install openssl)", file=sys.stderr)
        return 1
    authority = Authority(home)
    home.chmod(0o700)
    users = [user.name for user in rights.users()]
    issued = [authority.issue(name, *(f"DNS:{host}" for host in hosts), *_HERE) for name, hosts in SERVERS.items()]
    issued += [authority.issue(user) for user in users]
    for certificate, key in issued:
        certificate.chmod(0o644)
        key.chmod(0o644)
    authority.certificate.chmod(0o644)
    files = f"?cafile={home}/ca.pem&certfile={home}/point.pem&keyfile={home}/point.key"
    print(f"{home}: ca.pem; NAME.pem and NAME.key of {', '.join([*SERVERS, *users])}; good for 90 days")
    print(f"amqps://point:PASSWORD@localhost:5671/{files}")
    print(f"postgres://point:PASSWORD@localhost/point{files}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
