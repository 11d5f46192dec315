"""Settings, read once at start from the environment. A wrong one stops the service with one clear line.

Each service adds its own in its `__main__`. docs/settings.md is generated from these classes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from common import tls
from common.setting_files import FileError, content_of
from common.setting_source import Files

_UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000}
#: Each is a queue more for every service.
MOST_LANES = 16


@dataclass(frozen=True, slots=True)
class Delay:
    """A retry level. Its text is part of a queue's name, because a queue's arguments cannot change."""

    milliseconds: int
    text: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `500ms`, `1s`, `5m` or `1h`; ValueError for anything else."""
        match = re.fullmatch(r"([1-9][0-9]{0,5})(ms|s|m|h)", text.strip())
        if not match:
            raise ValueError(f"{text!r} is not a delay like 500ms, 1s, 5m or 1h")
        delay = cls(int(match[1]) * _UNITS[match[2]], match[0])
        if delay.milliseconds > _UNITS["h"] * 24:
            raise ValueError(f"{text!r} is longer than 24h")
        return delay

    def __str__(self) -> str:
        return self.text


def _read_delays(value: str | tuple[Delay, ...]) -> tuple[Delay, ...]:
    if not isinstance(value, str):
        return value
    delays = tuple(Delay.parse(part) for part in value.split(","))
    lengths = [delay.milliseconds for delay in delays]
    if lengths != sorted(set(lengths)):
        raise ValueError("the delays must grow from one level to the next")
    return delays


def _read_lanes(value: str | tuple[str, ...]) -> tuple[str, ...]:
    if not isinstance(value, str):
        return value
    lanes = tuple(part.strip() for part in value.split(","))
    for lane in lanes:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", lane):
            raise ValueError(f"{lane!r} is no name of a broker user: letters, digits, - and _")
    if len(set(lanes)) < len(lanes):
        raise ValueError("a client is named twice")
    return lanes


def addresses(url: str) -> list[str]:
    """The addresses in a `RABBITMQ_URL`: one, or those of several nodes of one cluster, separated by commas."""
    return re.split(r"\s*,\s*(?=amqps?://|$)", url)


def _starting_with(*schemes: str, several: bool = False) -> AfterValidator:
    def check(url: str) -> str:
        for one in addresses(url) if several else [url]:
            if url and not one.startswith(schemes):
                # The URL itself stays unsaid: it may hold a password.
                raise ValueError(f"must start with {' or '.join(schemes)}")
            try:
                urlsplit(one).port  # noqa: B018 - reading it is what checks it
            except ValueError:
                raise ValueError("its port must be a number from 0 to 65535") from None
        return url

    return AfterValidator(check)


def _broker_with_checked_certificates(url: str) -> str:
    for one in addresses(url):
        tls.look_at_broker(one)
    return url


def _database_with_checked_certificates(url: str) -> str:
    tls.of_database(url)
    return url


class Settings(BaseSettings):
    """What every service can be told."""

    model_config = SettingsConfigDict(env_ignore_empty=True, frozen=True, allow_inf_nan=False)

    rabbitmq_url: Annotated[
        str,
        _starting_with("amqp://", "amqps://", several=True),
        AfterValidator(_broker_with_checked_certificates),
    ] = Field(
        "amqp://guest:guest@127.0.0.1:5672/",
        repr=False,
        description="The broker; `amqps://` for an encrypted connection, with `?cafile=&certfile=&keyfile=` for "
        "an authority and a certificate of one's own. Of a cluster several nodes, separated by commas: any one "
        "will do, and when it is lost the next is tried.",
    )
    database_url: Annotated[
        str,
        _starting_with("postgres://", "mariadb://", "sqlite:///"),
        AfterValidator(_database_with_checked_certificates),
    ] = Field(
        "",
        repr=False,
        description="`postgres://user:password@host/name`, `mariadb://user:password@host/name` or "
        "`sqlite:///absolute/path`. Default: `var/data/<service>.sqlite3` below the working directory. "
        "Encrypted, and the server's certificate checked, with `?tls=true`, or with `?cafile=&certfile=&keyfile=` "
        "as for the broker.",
    )
    publishers: Literal["owners", "anybody"] | None = Field(
        None,
        description="`owners`: an event counts only if the broker user of the service that owns it published it; "
        "`anybody`: nobody asks. Default: `owners` where the service logs in under its own name.",
    )
    batch_size: int = Field(
        200, ge=1, le=1000, description="Messages done in one transaction; 1 turns group commit off."
    )
    retry_delays: Annotated[tuple[Delay, ...], NoDecode, BeforeValidator(_read_delays)] = Field(
        _read_delays("1s,5s,30s,5m"),
        min_length=1,
        description="Retry levels. They are names of queues: the same in every service.",
    )
    lanes: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_read_lanes)] = Field(
        (),
        max_length=MOST_LANES,
        description="Clients that have a queue of their own for commands in each service, so that no other client "
        "can keep them waiting: names, separated by commas, the same in every service.",
    )
    unknown_type_hours: float = Field(
        1, gt=0, le=8760, description="How long a message of an unknown type is retried before it is parked."
    )
    outbox_limit: int = Field(
        20_000, ge=100, description="Unpublished events before the service takes no more messages."
    )
    sweep_seconds: float = Field(
        5, gt=0, le=3600, description="How often the sweeper looks for events that a crash left in the outbox."
    )
    janitor_seconds: float = Field(
        1200,
        gt=0,
        le=31_536_000,
        description="How long a saga may stay open here before its event is said again: twice the deadline.",
    )
    offer_again_since: AwareDatetime | None = Field(
        None,
        description="After the next service's database was restored from a backup: when this service starts, it "
        "says the events of all sagas again that were settled since this time (RFC 3339).",
    )
    retention_hours: float = Field(
        720,
        gt=0,
        le=876_000,
        description="How long the row of a saga that is over is kept; the same in every service. "
        "Forward messages of payments nine tenths as old are parked as too old.",
    )
    declare_topology: bool = Field(
        default=True,
        description="`false`: only check that the broker's objects exist; a deployer declares them.",
    )
    history: bool = Field(
        default=True,
        description="`false`: tell the history nothing, so that `saga show` and the board know nothing.",
    )
    health_host: str = Field("127.0.0.1", description="Where the health endpoint listens.")
    health_port: int = Field(0, ge=0, le=65535, description="Port of `/live`, `/ready`, `/metrics`; 0: none.")
    health_token: str = Field(
        "",
        repr=False,
        pattern=r"^(\S{16,512})?\z",
        description="Whoever asks for `/metrics` must bring it: `Authorization: Bearer ...`. `/live` and `/ready` "
        "tell everybody else only whether. At least 16 characters. Default: nobody is asked for one.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least level logged.")
    log_format: Literal["console", "json"] = Field("console", description="For people or for programs.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Where settings come from: the environment, or files that it names."""
        del dotenv_settings, file_secret_settings
        return init_settings, env_settings, Files(settings_cls)

    def broker(self) -> str:
        """The broker's address as it is now: the password in a file may change while the service works."""
        return content_of("rabbitmq_url") or self.rabbitmq_url

    def bearer(self) -> str:
        """The token of the health endpoint as it is now; raises FileError."""
        return content_of("health_token") or self.health_token

    @property
    def prefetch(self) -> int:
        """Deliveries in flight per queue: one batch being done, one waiting."""
        return 2 * self.batch_size

    @property
    def prefetch_of_a_lane(self) -> int:
        """Deliveries in flight per queue of commands: all of them together hold no more than one queue."""
        return max(1, self.prefetch // (1 + len(self.lanes)))


S = TypeVar("S", bound="Settings")


def load(kind: type[S]) -> S:
    """Read the environment into `kind`, or leave with one line per wrong setting."""
    try:
        return kind()
    except FileError as error:
        raise SystemExit(f"wrong setting: {error}") from None
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(str(part) for part in finding['loc']).upper()}: {finding['msg']}"
            for finding in error.errors(include_url=False, include_input=False)
        )
        raise SystemExit(f"wrong setting: {wrong}") from None
