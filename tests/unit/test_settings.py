"""Settings: what they are without any, and that a wrong one stops a service with one clear line."""

from __future__ import annotations

import os
from importlib import import_module

import pytest

from common import saga
from common.settings import Delay, Settings, addresses, load
from notify_svc.__main__ import NotifySettings
from notify_svc.__main__ import service as notify_service
from payment_svc.__main__ import PaymentSettings
from payment_svc.__main__ import service as payment_service
from reservation_svc.__main__ import ReservationSettings
from reservation_svc.__main__ import service as reservation_service

KINDS: tuple[type[Settings], ...] = (Settings, PaymentSettings, ReservationSettings, NotifySettings)
#: Apprise looks for a module that Python is about to drop; it gets along without.
QUIET_APPRISE = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")
NAMES = {name.upper() for kind in KINDS for name in kind.model_fields}


@pytest.fixture(autouse=True)
def _a_clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper() in NAMES]:
        monkeypatch.delenv(name)


def refused(kind: type[Settings]) -> str:
    """The one line with which a service leaves."""
    with pytest.raises(SystemExit) as caught:
        load(kind)
    line = str(caught.value)
    assert line.startswith("wrong setting: ")
    assert "\n" not in line
    return line


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_needs_to_be_set(kind: type[Settings]) -> None:
    """A person tries the system out before reading about it."""
    settings = load(kind)
    assert [str(delay) for delay in settings.retry_delays] == ["1s", "5s", "30s", "5m"]
    assert settings.prefetch == 2 * settings.batch_size


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_setting_is_no_setting(kind: type[Settings], monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose files hand every variable on, set or not."""
    for name in NAMES:
        monkeypatch.setenv(name, "")
    assert load(kind) == kind()


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (Settings, "BATCH_SIZE", "0"),
        (Settings, "BATCH_SIZE", "1001"),
        (Settings, "BATCH_SIZE", "many"),
        (Settings, "BATCH_SIZE", "1.5"),
        (Settings, "RETRY_DELAYS", "soon"),
        (Settings, "RETRY_DELAYS", "1s,"),
        (Settings, "RETRY_DELAYS", ","),
        (Settings, "RETRY_DELAYS", "5s,1s"),
        (Settings, "RETRY_DELAYS", "1s,1s"),
        (Settings, "RETRY_DELAYS", "0s"),
        (Settings, "RETRY_DELAYS", "-1s"),
        (Settings, "RETRY_DELAYS", "1.5s"),
        (Settings, "RETRY_DELAYS", "1d"),
        (Settings, "RETRY_DELAYS", "60s,1m"),
        (Settings, "UNKNOWN_TYPE_HOURS", "0"),
        (Settings, "UNKNOWN_TYPE_HOURS", "nan"),
        (Settings, "OUTBOX_LIMIT", "99"),
        (Settings, "SWEEP_SECONDS", "0"),
        (Settings, "DECLARE_TOPOLOGY", "perhaps"),
        (Settings, "HEALTH_PORT", "65536"),
        (Settings, "HEALTH_PORT", "-1"),
        (Settings, "LOG_LEVEL", "LOUD"),
        (Settings, "LOG_FORMAT", "xml"),
        (Settings, "RABBITMQ_URL", "http://127.0.0.1"),
        (Settings, "RABBITMQ_URL", "127.0.0.1:5672"),
        (Settings, "RABBITMQ_URL", "amqp://one,amqp://two:x"),
        (Settings, "DATABASE_URL", "mysql://u:secret@127.0.0.1/x"),
        (Settings, "DATABASE_URL", "var/data/x.sqlite3"),
        (PaymentSettings, "PAYMENT_LIMIT", "0"),
        (PaymentSettings, "PAYMENT_LIMIT", "1000000001"),
        (PaymentSettings, "PAYMENT_DEADLINE_SECONDS", "0"),
        (PaymentSettings, "PAYMENT_DEADLINE_SECONDS", "nan"),
        (ReservationSettings, "HOLD_SECONDS", "-1"),
    ],
)
def test_a_wrong_setting_is_named_in_one_line(
    kind: type[Settings], name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service that starts with half of what it was told is worse than one that does not start."""
    monkeypatch.setenv(name, value)
    line = refused(kind)
    assert name in line
    assert "secret" not in line


def test_a_cluster_is_named_by_several_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that knows one node is as mortal as that node; a comma may also be part of a password."""
    several = "amqp://u:a,b@one/, amqps://u:a,b@two:5671/x"
    monkeypatch.setenv("RABBITMQ_URL", several)
    assert addresses(Settings().rabbitmq_url) == ["amqp://u:a,b@one/", "amqps://u:a,b@two:5671/x"]
    assert addresses("amqp://u:a,b@one/") == ["amqp://u:a,b@one/"]


def test_all_wrong_settings_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One start, one list; not one start for each mistake."""
    monkeypatch.setenv("BATCH_SIZE", "0")
    monkeypatch.setenv("LOG_LEVEL", "LOUD")
    line = refused(Settings)
    assert "BATCH_SIZE" in line
    assert "LOG_LEVEL" in line


def test_lanes_share_what_one_queue_of_commands_may_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client more must not make a service hold more."""
    assert load(Settings).prefetch_of_a_lane == load(Settings).prefetch
    monkeypatch.setenv("LANES", "shop, app,kiosk_2")
    settings = load(Settings)
    assert settings.lanes == ("shop", "app", "kiosk_2")
    assert settings.prefetch_of_a_lane == settings.prefetch // 4
    monkeypatch.setenv("BATCH_SIZE", "1")
    assert load(Settings).prefetch_of_a_lane == 1


@pytest.mark.parametrize(
    ("lanes", "why"),
    [
        ("shop,", "no name of a broker user"),
        ("a.b", "no name of a broker user"),
        ("shop,shop", "named twice"),
        (",".join(f"c{number}" for number in range(17)), "at most 16"),
    ],
)
def test_lanes_that_cannot_be_are_refused(lanes: str, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lane is part of the names of queues and the name of a user."""
    monkeypatch.setenv("LANES", lanes)
    with pytest.raises(SystemExit, match=f"LANES.*{why}"):
        load(Settings)


def test_retry_levels_of_the_same_length_do_not_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two names for one delay are two queues, and a step back-off that is none."""
    monkeypatch.setenv("RETRY_DELAYS", "1m,60s")
    assert "RETRY_DELAYS" in refused(Settings)


@pytest.mark.parametrize("delays", ["1s,999999h", "2000h"])
def test_a_retry_level_longer_than_the_broker_can_count_is_refused(
    delays: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RabbitMQ takes at most 2^32-1 milliseconds, about 49 days, as a queue's time to live."""
    monkeypatch.setenv("RETRY_DELAYS", delays)
    assert "RETRY_DELAYS" in refused(Settings)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (Settings, "UNKNOWN_TYPE_HOURS"),
        (Settings, "SWEEP_SECONDS"),
        (PaymentSettings, "PAYMENT_DEADLINE_SECONDS"),
        (ReservationSettings, "HOLD_SECONDS"),
    ],
)
@pytest.mark.parametrize("value", ["inf", "1e300"])
def test_a_length_of_time_that_no_calendar_holds_is_refused(
    kind: type[Settings], name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would end in an overflow at the first message that needs it, or in a traceback at start."""
    monkeypatch.setenv(name, value)
    assert name in refused(kind)


@pytest.mark.parametrize(
    ("text", "milliseconds"), [("500ms", 500), ("1s", 1_000), ("5m", 300_000), ("1h", 3_600_000), (" 2s ", 2_000)]
)
def test_a_delay_is_read_and_written_the_same(text: str, milliseconds: int) -> None:
    """Its text is part of a queue's name, so it must come out as it went in."""
    delay = Delay.parse(text)
    assert delay.milliseconds == milliseconds
    assert str(delay) == text.strip()
    assert Delay.parse(str(delay)) == delay


@pytest.mark.parametrize("text", ["", "s", "1", "01s", "1S", "1 s", "1s1s", "\u0661s", "1s\n2s", "9999999s"])
def test_what_is_no_delay_is_refused(text: str) -> None:
    """A typing error must not become a queue that no other service has."""
    with pytest.raises(ValueError, match="delay"):
        Delay.parse(text)


def test_levels_may_be_written_with_blanks(monkeypatch: pytest.MonkeyPatch) -> None:
    """As people write lists; the names of the queues do not get them."""
    monkeypatch.setenv("RETRY_DELAYS", "100ms, 2s ,1m")
    assert [str(delay) for delay in load(Settings).retry_delays] == ["100ms", "2s", "1m"]


@QUIET_APPRISE
def test_notices_go_to_several_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    """URLs contain commas, so blanks separate them."""
    monkeypatch.setenv("NOTIFY_URLS", " json://127.0.0.1/a,b   json://127.0.0.1/c\n")
    settings = load(NotifySettings)
    assert settings.notify_urls == ("json://127.0.0.1/a,b", "json://127.0.0.1/c")
    assert notify_service(settings).background


@QUIET_APPRISE
def test_a_channel_that_makes_no_sense_stops_the_service_without_telling_its_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A URL of a channel usually holds a password."""
    monkeypatch.setenv("NOTIFY_URLS", "json://127.0.0.1 nonsense-with-secret")
    with pytest.raises(SystemExit, match=r"^wrong setting: NOTIFY_URLS: .*number 2$"):
        notify_service(load(NotifySettings))


def test_every_service_can_be_made_from_its_settings_and_knows_its_own_tables() -> None:
    """Names of modules are put together from the name of the service; a wrong one would show only at start."""
    services = [
        payment_service(PaymentSettings()),
        reservation_service(ReservationSettings()),
        notify_service(NotifySettings()),
    ]
    for service in services:
        assert service.name in saga.SERVICES
        for module in (*service.modules, service.migrations):
            import_module(module)
