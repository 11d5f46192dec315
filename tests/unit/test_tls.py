"""What an address asks for, and why no encrypted connection was made: the words, whatever they came wrapped in."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

import pytest

from common import tls
from common.settings import Settings, load
from tools.certs import Authority


def openssl(*words: str) -> None:
    """Ask for what no library does."""
    subprocess.run(["openssl", *words], check=True, capture_output=True)


URL = "amqps://point:hush@broker/"


def refused(code: int) -> ssl.SSLCertVerificationError:
    """What the library raises about the other side's certificate."""
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code, error.verify_message = code, "as the library says"
    return error


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (refused(10), "the broker's certificate has expired"),
        (refused(9), "the broker's certificate is not valid yet"),
        (refused(62), "the broker's certificate is for another host"),
        (refused(64), "the broker's certificate is for another host"),
        (refused(19), "the broker's certificate is not signed by an authority that is trusted here"),
        (
            ssl.SSLError(1, "[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert certificate required"),
            "there is none",
        ),
        (
            ssl.SSLError(1, "[SSL: SSLV3_ALERT_CERTIFICATE_EXPIRED] sslv3 alert certificate expired"),
            "it has expired",
        ),
        (
            ssl.SSLError(1, "[SSL: TLSV1_ALERT_UNKNOWN_CA] tlsv1 alert unknown ca"),
            "an authority that the broker trusts",
        ),
        (ssl.SSLError(1, "[SSL: SSLV3_ALERT_BAD_CERTIFICATE] sslv3 alert bad certificate"), "it is refused"),
        (
            ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number"),
            "the broker takes no encrypted connections at this port",
        ),
        (tls.EncryptionError("cafile: ca.pem: No such file or directory"), "cafile: ca.pem: No such file"),
    ],
)
def test_what_is_wrong_with_a_certificate_is_told(error: Exception, told: str) -> None:
    """Also when the AMQP library has wrapped it twice."""
    assert told in str(tls.why(error, URL))
    wrapped = ConnectionError("connection lost")
    wrapped.__cause__ = RuntimeError("something")
    wrapped.__cause__.__context__ = error
    assert tls.why(wrapped, URL) == tls.why(error, URL)


@pytest.mark.parametrize("error", [OSError("refused"), ssl.SSLError(1, "no shared cipher"), TimeoutError()])
def test_what_has_nothing_to_do_with_certificates_is_left_alone(error: Exception) -> None:
    """A broker that is away is told in other words."""
    assert tls.why(error, URL) is None


@pytest.mark.parametrize(
    "error",
    [ConnectionResetError(104, "Connection reset by peer"), ConnectionError("the server closed the connection")],
)
def test_a_broker_that_hangs_up_may_have_refused_the_certificate(error: Exception) -> None:
    """Its last word is lost when the connection is reset; without encryption it means nothing of the kind."""
    assert "does not accept this certificate (certfile), or it is just going away" in str(tls.why(error, URL))
    assert tls.why(error, "amqp://point:hush@broker/") is None


def test_a_file_that_is_missing_is_named_and_not_what_stands_beside_it() -> None:
    """The library says only that one is. In a list of addresses, the next one has a password in it."""
    missing = FileNotFoundError(2, "No such file or directory")
    for more in ("", ",amqps://point:hush@other/?cafile=nowhere.pem"):
        told = tls.why(missing, f"amqps://point:hush@broker/?cafile=nowhere.pem{more}")
        assert told == "cafile: nowhere.pem: No such file or directory"


@pytest.mark.timeout(10)
def test_an_error_that_led_to_itself_is_looked_at_once() -> None:
    """A lost connection raises one error again and again; a service that went round in it would hang for ever."""
    first, second = ConnectionError("one"), ConnectionError("two")
    first.__context__, second.__context__ = second, first
    assert tls.why(first, URL) is None


@pytest.mark.parametrize(
    ("options", "files"),
    [
        ("", None),
        ("?maxsize=9", None),
        ("?tls=true", tls.Files()),
        ("?cafile=/c/ca.pem", tls.Files("/c/ca.pem")),
        ("?cafile=ca.pem&certfile=me.pem&keyfile=me.key", tls.Files("ca.pem", "me.pem", "me.key")),
        ("?tls=true&certfile=both.pem", tls.Files(None, "both.pem")),
        ("?cafile=%2Fc%2F%C3%A4.pem", tls.Files("/c/ä.pem")),
    ],
)
@pytest.mark.parametrize("vendor", ["postgres", "mariadb"])
def test_a_databases_address_asks_for_encryption_as_the_brokers_does(
    vendor: str, options: str, files: tls.Files | None
) -> None:
    """One way for all vendors, and any of the words alone is enough: none of them is ever ignored."""
    context = tls.of_database(f"{vendor}://point:hush@db/point{options}")
    assert (context.files if context else None) == files


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("postgres://point:hush@db/point?sslmode=require", "sslmode is not known here: say tls=true"),
        ("mariadb://point:hush@db/point?ssl=true", "ssl is not known here"),
        ("mariadb://point:hush@db/point?ssl_ca=ca.pem", "ssl_ca is not known here"),
        ("postgres://point:hush@db/point?tls=false", "tls can only be true"),
        ("postgres://point:hush@db/point?tls=", "tls can only be true"),
        ("postgres://point:hush@db/point?cafile=", "cafile names no file"),
        ("postgres://point:hush@db/point?keyfile=hush.key", "keyfile= needs certfile="),
        ("postgres:///point?cafile=ca.pem", "needs the name of a host"),
        ("sqlite:////tmp/x?cafile=ca.pem", "nothing is encrypted on the way to it"),
    ],
)
def test_nobody_is_left_with_less_than_they_think_they_asked_for(url: str, told: str) -> None:
    """Another client's word for it would be ignored, or would mean that nobody looks who answers."""
    with pytest.raises(ValueError, match=told) as refused:
        tls.of_database(url)
    assert "hush@" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("amqps://point:hush@broker/?no_verify_ssl=1", "no_verify_ssl would let anybody answer"),
        ("amqp://point:hush@broker/?cafile=ca.pem", "certificates need amqps://"),
    ],
)
def test_nor_at_the_broker(url: str, told: str) -> None:
    """The same for its address."""
    with pytest.raises(ValueError, match=told):
        tls.look_at_broker(url)
    tls.look_at_broker("amqps://point:hush@broker/?cafile=ca.pem")


@pytest.mark.parametrize(
    ("variable", "url"),
    [
        ("DATABASE_URL", "postgres://point:hush@db/point?sslmode=require"),
        ("RABBITMQ_URL", "amqps://point:hush@one/,amqps://point:hush@two/?no_verify_ssl=1"),
    ],
)
def test_a_service_does_not_start_with_less(monkeypatch: pytest.MonkeyPatch, variable: str, url: str) -> None:
    """One line names the variable and what to write, and not the password."""
    for name in ("DATABASE_URL", "RABBITMQ_URL"):
        monkeypatch.delenv(f"{name}_FILE", raising=False)
        monkeypatch.setenv(name, url if name == variable else "")
    with pytest.raises(SystemExit) as stopped:
        load(Settings)
    line = str(stopped.value)
    assert line.startswith(f"wrong setting: {variable}: Value error, ")
    assert "hush" not in line
    assert "\n" not in line


def test_nor_at_the_management_api() -> None:
    """Without a word, the authorities of this machine are trusted, and nobody is where nothing is encrypted."""
    with pytest.raises(ValueError, match="certificates need https://"):
        tls.of_https("http://u:hush@broker:15672?cafile=ca.pem")
    assert tls.of_https("http://u:hush@broker:15672?vhost=x") is None
    plain, named = tls.of_https("https://u:hush@broker"), tls.of_https("https://broker?vhost=x&cafile=ca.pem")
    assert plain is not None
    assert named is not None
    assert (plain.files, named.files) == (tls.Files(), tls.Files("ca.pem"))


def test_files_that_cannot_be_meant_are_named(tmp_path: Path) -> None:
    """Which of three, and why; what is in them stays unsaid, and nobody is asked for a password."""
    authority = Authority(tmp_path)
    certificate, key = map(str, authority.issue("point"))
    other = str(authority.issue("other")[1])
    text = tmp_path / "text.pem"
    text.write_text("hush")
    locked = tmp_path / "locked.key"
    openssl("pkey", "-in", key, "-out", str(locked), "-aes256", "-passout", "pass:hush")
    ca = str(authority.certificate)
    for files, told in (
        (tls.Files("nowhere.pem"), "cafile: nowhere.pem: No such file or directory"),
        (tls.Files(str(text)), "cafile: .*text.pem: "),
        (tls.Files(ca, "nowhere.pem"), "certfile and keyfile: nowhere.pem: No such file"),
        (tls.Files(ca, certificate), "certfile and keyfile: .*point.pem: "),
        (
            tls.Files(ca, certificate, other),
            "certfile and keyfile: .*point.pem and .*other.key: key values",
        ),
        (tls.Files(ca, certificate, str(locked)), "certfile and keyfile: "),
    ):
        with pytest.raises(tls.EncryptionError, match=told) as refused:
            files.read()
        assert "hush" not in str(refused.value)
    assert tls.Files(ca, certificate, key).read().verify_mode is ssl.CERT_REQUIRED


def test_a_context_that_is_asked_for_anything_else_trusts_nobody() -> None:
    """Should a client ever use it in another way, it must not be a way around the check."""
    context = tls.Context(tls.Files())
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert not context.get_ca_certs()
