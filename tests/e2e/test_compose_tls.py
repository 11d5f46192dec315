"""compose.tls.yaml: every address in it is encrypted and checked, and every file that it names is made."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from common import saga, tls
from containers.labels import ROOT
from tools.certs import __main__ as certs
from tools.images import Images

pytestmark = pytest.mark.container

_VENDORS = ("compose.yaml", "compose.vendors.yaml", "compose.tls.yaml", "compose.vendors.tls.yaml")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make certs` makes."""
    made = tmp_path_factory.mktemp("var") / "certs"
    assert certs.main(made) == 0
    return made


def _services(stand: Images, home: Path, *files: str) -> tuple[dict[str, Any], dict[str, Any]]:
    named = [word for file in files for word in ("-f", file)]
    done = subprocess.run(
        ["docker", "compose", *named, "--profile=tools", "config", "--format=json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | stand.environment() | {"CERTS": str(home)},
    )
    config = json.loads(done.stdout)
    return config["services"], config["secrets"]


@pytest.mark.parametrize("files", [_VENDORS[::2], _VENDORS], ids=["plain", "vendors"])
def test_every_connection_of_the_encrypted_system_is_checked(
    stand: Images, home: Path, files: tuple[str, ...]
) -> None:
    """One address that was forgotten would be the one on which somebody listens."""
    services, secrets = _services(stand, home, *files)
    servers = {hosts[0]: name for name, hosts in certs.SERVERS.items()}
    for name in (*saga.SERVICES, "saga", "rights"):
        mounted = {f"/run/secrets/{Path(it['target']).name}": it["source"] for it in services[name]["secrets"]}
        told = {variable: url for variable, url in services[name]["environment"].items() if "_URL" in variable}
        assert len(told) == {"saga": 7, "rights": 1}.get(name, 2)
        for url in told.values():
            address = urlsplit(url)
            if address.scheme == "sqlite":
                continue
            assert address.scheme in {"amqps", "https", "postgres", "mariadb"}
            files_named = {option: file for option, file in tls.options_of(url).items() if option in tls.OPTIONS}
            assert "cafile" in files_named
            assert set(files_named.values()) <= set(mounted)
            # Its own certificate, and a server that there is.
            if address.scheme != "https":
                assert files_named["certfile"] == f"/run/secrets/{address.username}.pem"
            assert address.hostname in servers
        if name in saga.SERVICES:
            assert {source for source in mounted.values() if source.endswith("-key")} == {f"{name}-key"}
    for host in services.keys() & servers.keys():
        shown = {Path(it["target"]).name: secrets[it["source"]]["file"] for it in services[host]["secrets"]}
        assert Path(shown["server.key"]).name == f"{servers[host]}.key"
    for secret in secrets.values():
        assert Path(secret["file"]).is_file()


def test_every_services_user_has_to_show_its_own_certificate_to_mariadb() -> None:
    """A wrong statement among those of its start would be a line in MariaDB's log, and no demand."""
    demanded = (ROOT / "deploy" / "tls" / "mariadb.sql").read_text().splitlines()
    for name in saga.SERVICES:
        assert f"ALTER USER IF EXISTS {name}@'%' REQUIRE SUBJECT '/O=concert-saga/CN={name}';" in demanded


def test_the_encrypted_system_opens_no_port_that_is_not(stand: Images, home: Path) -> None:
    """What is published is what the broker encrypts, and its health is asked for there."""
    services, _ = _services(stand, home, "compose.yaml", "compose.tls.yaml")
    ports = {port["target"]: port for port in services["rabbitmq"]["ports"]}
    assert ports.keys() == {5671, 15671}
    assert {port["host_ip"] for port in ports.values()} == {"127.0.0.1"}
    assert "/5671" in services["rabbitmq"]["healthcheck"]["test"][-1]
    configured = (ROOT / "deploy" / "tls" / "rabbitmq.conf").read_text()
    assert "listeners.tcp = none" in configured
    hba = [line.split() for line in (ROOT / "deploy" / "tls" / "pg_hba.conf").read_text().splitlines()]
    assert {line[0] for line in hba if line and line[0] != "#"} == {"local", "hostssl"}
