"""Certificates for development: who can read what, and for whom each is good."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

import pytest

from common import rights
from tools.certs.__main__ import SERVERS, main


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make certs` makes."""
    home = tmp_path_factory.mktemp("var") / "certs"
    assert main(home) == 0
    return home


def _openssl(*words: str | Path) -> str:
    return subprocess.run(["openssl", *words], check=True, capture_output=True, text=True).stdout


def test_there_is_one_for_each_server_and_each_user(made: Path) -> None:
    """Signed by the authority, and good for what they are for, and for nothing else."""
    for name in (*SERVERS, *(user.name for user in rights.users())):
        wanted, other = ("sslserver", "sslclient") if name in SERVERS else ("sslclient", "sslserver")
        verify = ("verify", "-x509_strict", "-CAfile", made / "ca.pem", "-purpose")
        assert _openssl(*verify, wanted, made / f"{name}.pem").strip().endswith("OK")
        with pytest.raises(subprocess.CalledProcessError):
            _openssl(*verify, other, made / f"{name}.pem")
        ssl.create_default_context().load_cert_chain(made / f"{name}.pem", made / f"{name}.key")


@pytest.mark.parametrize("server", SERVERS)
def test_a_server_is_known_by_its_name_under_compose_and_on_this_machine(made: Path, server: str) -> None:
    """A service in a container and a person at the terminal both find it."""
    for host in (*SERVERS[server], "localhost"):
        told = _openssl("x509", "-in", made / f"{server}.pem", "-noout", "-checkhost", host)
        assert "does match" in told
    assert "NOT match" in _openssl("x509", "-in", made / f"{server}.pem", "-noout", "-checkhost", "elsewhere")


def test_keys_can_be_read_in_containers_and_by_nobody_else_here(made: Path) -> None:
    """The directory is closed; the authority's key, with which anybody could be anybody, is closed by itself."""
    assert made.stat().st_mode & 0o777 == 0o700
    assert (made / "ca.key").stat().st_mode & 0o777 == 0o600
    assert (made / "point.key").stat().st_mode & 0o777 == 0o644


def test_again_it_renews_all_but_the_authority(made: Path) -> None:
    """Who trusts it goes on to do so."""
    before = {file.name: file.read_bytes() for file in made.iterdir()}
    made.chmod(0o755)
    assert main(made) == 0
    same = {file.name for file in made.iterdir() if file.read_bytes() == before.get(file.name)}
    assert same == {"ca.pem", "ca.key"}
    assert made.stat().st_mode & 0o777 == 0o700
