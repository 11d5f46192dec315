"""A database server that lets in who shows a certificate, over an encrypted connection, and nobody else.

What it asks for is written where compose.tls.yaml has it from: deploy/tls.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlencode, urlsplit

import pytest

from tests.support import databases, mariadb
from tests.support.databases import Server
from tools.certs import Authority
from tools.stack import ROOT

T = TypeVar("T")

_DEPLOYED = ROOT / "deploy" / "tls"
#: Who logs in, and which database is theirs.
USER = "point"


@dataclass(frozen=True, slots=True)
class Guarded:
    """The server; the user's login is of no use without the user's certificate."""

    server: Server
    authority: Authority
    password: str
    folder: Path
    owner: str | None

    def url(self, *, host: str = "localhost", certificate: str | None = USER, **options: str | Path) -> str:
        """The address with these certificates; an option that is empty is left away."""
        home = self.authority.home
        told: dict[str, str | Path] = {"cafile": self.authority.certificate}
        if certificate is not None:
            told |= {"certfile": home / f"{certificate}.pem", "keyfile": home / f"{certificate}.key"}
        told = {name: value for name, value in (told | options).items() if value}
        parts = urlsplit(self.server.url)
        place = f"{parts.scheme}://{USER}:{self.password}@{host}:{parts.port}/{USER}"
        return f"{place}?{urlencode(told)}" if told else place

    def shows(self, *hosts: str, days: int = 90) -> None:
        """Give the server another certificate, while it runs."""
        _certificate(self.authority, self.folder, self.owner, *hosts, days=days)
        reread = "FLUSH SSL" if isinstance(self.server, mariadb.MariaDB) else "SELECT pg_reload_conf()"
        self.server.execute(reread)


def _certificate(
    authority: Authority, folder: Path, owner: str | None, *hosts: str, days: int = 90
) -> Mapping[str, Path]:
    """Put a server's certificate where it is read; whose it is are the hosts."""
    issued = dict(zip(("cert", "key"), authority.issue("server", *hosts, days=days), strict=True))
    files = {}
    for name, file in (issued | {"ca": authority.certificate}).items():
        files[name] = folder / f"{name}.pem"
        new = folder / f"{name}.new"
        shutil.copyfile(file, new)
        # PostgreSQL takes no key that others can read.
        new.chmod(0o600)
        if owner:
            shutil.chown(new, owner)
        new.replace(files[name])
    return files


@contextlib.contextmanager
def guarded(home: Path) -> Iterator[Guarded]:
    """A server of this run's vendor, with the user's database; skips where it is not installed."""
    authority = Authority(home)
    authority.issue(USER)
    password = secrets.token_hex(8)
    kept: list[tuple[Path, str | None]] = []
    start = _mariadb if databases.VENDOR == "mariadb" else _postgres
    with start(authority, password, kept) as server:
        ((folder, owner),) = kept
        yield Guarded(server, authority, password, folder, owner)


@contextlib.contextmanager
def plain() -> Iterator[Server]:
    """A server of this run's vendor that knows no encryption; skips where it is not installed."""
    if databases.VENDOR == "mariadb":
        # From 11.4 on it makes itself a certificate if nobody says otherwise.
        with mariadb.private_mariadb(
            _installed(mariadb.binaries()), prepare=lambda _, __: ["--skip-ssl"]
        ) as server:
            yield server
    else:
        with databases.private_postgres(_installed(databases.binaries())) as server:
            yield server


def _installed(programs: T | None) -> T:
    if programs is None:
        pytest.skip(f"no {databases.VENDOR} is installed here, which could be given certificates")
    return programs


@contextlib.contextmanager
def _postgres(authority: Authority, password: str, kept: list[tuple[Path, str | None]]) -> Iterator[Server]:
    programs = _installed(databases.binaries())

    def prepare(folder: Path, owner: str | None) -> list[str]:
        files = _certificate(authority, folder, owner, "DNS:localhost")
        asked = (_DEPLOYED / "pg_hba.conf").read_text()
        (folder / "data" / "pg_hba.conf").write_text(f"host all saga 127.0.0.1/32 trust\n{asked}")
        kept.append((folder, owner))
        return ["-c", "ssl=on", *(f"--ssl_{name}_file={file}" for name, file in files.items())]

    with databases.private_postgres(programs, prepare=prepare) as server:
        server.execute(f"CREATE ROLE {USER} LOGIN PASSWORD '{password}'")
        server.execute(f"CREATE DATABASE {USER} OWNER {USER}")
        yield server


@contextlib.contextmanager
def _mariadb(authority: Authority, password: str, kept: list[tuple[Path, str | None]]) -> Iterator[Server]:
    programs = _installed(mariadb.binaries())

    def prepare(folder: Path, owner: str | None) -> list[str]:
        files = _certificate(authority, folder, owner, "DNS:localhost")
        kept.append((folder, owner))
        return [f"--ssl-{name}={file}" for name, file in files.items()]

    with mariadb.private_mariadb(programs, prepare=prepare) as server:
        server.execute(f"CREATE USER {USER}@'%' IDENTIFIED BY '{password}'")
        server.execute(f"CREATE DATABASE {USER}")
        server.execute(f"GRANT ALL ON {USER}.* TO {USER}@'%'")
        lines = (_DEPLOYED / "mariadb.sql").read_text().splitlines()
        for statement in (line for line in lines if line and not line.startswith("--")):
            server.execute(statement)
        yield server
