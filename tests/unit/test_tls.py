"""Why an encrypted connection was not made: the words, whatever the error was wrapped in."""

from __future__ import annotations

import ssl

import pytest

from common import tls

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
    ],
)
def test_what_is_wrong_with_a_certificate_is_told(error: Exception, told: str) -> None:
    """Also when the AMQP library has wrapped it twice."""
    assert told in str(tls.why(error, URL))
    wrapped = ConnectionError("connection lost")
    wrapped.__cause__ = RuntimeError("something")
    wrapped.__cause__.__context__ = error
    assert tls.why(wrapped, URL) == tls.why(error, URL)


@pytest.mark.parametrize("error", [OSError("refused"), ssl.SSLError(1, "wrong version number"), TimeoutError()])
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


@pytest.mark.timeout(10)
def test_an_error_that_led_to_itself_is_looked_at_once() -> None:
    """A lost connection raises one error again and again; a service that went round in it would hang for ever."""
    first, second = ConnectionError("one"), ConnectionError("two")
    first.__context__, second.__context__ = second, first
    assert tls.why(first, URL) is None
