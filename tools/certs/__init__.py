"""Certificates for development and tests: an authority, and what it signs, made by `openssl`.

Production has an authority of its own; what it signs is the same: a name for each user, hosts for the broker.
"""

import os
import subprocess
from pathlib import Path

_DAYS = 90
_CURVE = "ec_paramgen_curve:P-256"


class Authority:
    """An authority whose key and certificate, `ca.key` and `ca.pem`, are in a directory; made if there is none."""

    def __init__(self, home: Path, *, days: int = 10 * 365) -> None:
        self.home = home
        self.certificate = home / "ca.pem"
        self._key = home / "ca.key"
        if not self.certificate.exists():
            home.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._make_key(self._key)
            subject = ["-subj", "/O=concert-saga/CN=development authority", "-days", str(days)]
            limits = ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign"]
            _openssl("req", "-x509", "-new", "-key", self._key, "-out", self.certificate, *subject, *limits)

    def issue(self, name: str, *hosts: str, days: int = _DAYS) -> tuple[Path, Path]:
        """A certificate and its key for a user, or for these hosts (`DNS:broker`, `IP:127.0.0.1`).

        Both files are replaced; a negative number of days makes a certificate that has expired.
        """
        certificate, key, request = (self.home / f"{name}.{kind}" for kind in ("pem", "key", "csr"))
        self._make_key(key)
        _openssl("req", "-new", "-key", key, "-out", request, "-subj", f"/O=concert-saga/CN={name}")
        extensions = self.home / f"{name}.ext"
        purpose = "serverAuth" if hosts else "clientAuth"
        alternative = f"subjectAltName={','.join(hosts)}\n" if hosts else ""
        # With the identifiers of both keys: Python from 3.13 on is strict and trusts no certificate without.
        identifiers = "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
        purposes = f"keyUsage=critical,digitalSignature\nextendedKeyUsage={purpose}\n"
        extensions.write_text(f"basicConstraints=CA:FALSE\n{identifiers}{purposes}{alternative}")
        signing: list[str | Path] = ["-CA", self.certificate, "-CAkey", self._key, "-CAcreateserial"]
        signing += ["-days", str(days)]
        new = certificate.with_suffix(".new")
        _openssl("x509", "-req", "-in", request, "-out", new, *signing, "-extfile", extensions)
        new.replace(certificate)
        request.unlink()
        extensions.unlink()
        return certificate, key

    @staticmethod
    def _make_key(file: Path) -> None:
        new = file.with_suffix(".new")
        new.unlink(missing_ok=True)
        os.close(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        _openssl("genpkey", "-algorithm", "EC", "-pkeyopt", _CURVE, "-out", new)
        new.replace(file)


def _openssl(*words: str | Path) -> None:
    done = subprocess.run(["openssl", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"openssl {words[0]}: {done.stderr.strip()}")
