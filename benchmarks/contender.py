"""What the benchmark asks of every contender: the floor, this system in its variants, and each peer.

A contender is made from a `Ground` by its factory and is then called in this order, by one thread:

    create  start  prepare(orders)  feed(orders) -> timed  settle  audit(orders)  stop  remove

Between `prepare` and `settle` it may be stopped and started again. During its turn it has the machine for itself.
It never times anything; the driver does. Programs it starts are children, started with `tools.processes.spawn`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit, urlunsplit


@dataclass(frozen=True, slots=True)
class Ground:
    """What stands while contenders take turns: an empty broker, a PostgreSQL, and a folder for logs and files.

    The PostgreSQL user may create databases; the broker user may do anything in its virtual host. A contender
    uses names of its own (databases, exchanges, queues) and removes them in `remove`.
    """

    amqp_url: str
    management_url: str
    """`http://host:port`; it takes the user and password of `amqp_url`."""
    postgres_url: str
    """Of the database `postgres`."""
    folder: Path
    """The contender's own, empty at the beginning; logs go here as `<program>.log`."""
    prefetch: int = 400
    """How many messages a consumer may hold unanswered, where a contender leaves that open: what ours uses."""

    def database(self, name: str) -> str:
        """The URL of a database of that name on this PostgreSQL: `postgres://user:password@host:port/name`."""
        return urlunsplit(urlsplit(self.postgres_url)._replace(path=f"/{name}"))


@dataclass(frozen=True, slots=True)
class Order:
    """One saga to be run. All ids end in the same number, which no other order of the run has."""

    number: int
    payment_id: str
    user_id: str
    reservation_id: str
    seat: str
    token: str
    amount: int
    ending: str = "completed"
    """`completed`, or the reason code with which it is to be refused; peers are only given what completes."""


@dataclass(frozen=True, slots=True)
class Letter:
    """A command as it is published: persistent and confirmed by the driver, whatever the contender is.

    `properties` are those of AMQP by aiormq's names (`content_type`, `headers`, `correlation_id`, `message_id`,
    `reply_to`, `message_type` ...). `answer_id` is the correlation id by which the driver knows the order's
    answers again; ours is the payment's id.
    """

    exchange: str
    routing_key: str
    body: bytes
    answer_id: str
    properties: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Mark:
    """A message by which the driver learns that a saga has come so far.

    Bound to the driver's own queue by exchange and routing key, or read from an existing `queue` (then the other
    two stay empty). Its `correlation_id` must be the order's `answer_id`.
    """

    exchange: str = ""
    routing_key: str = ""
    queue: str = ""


@dataclass(frozen=True, slots=True)
class AmqpFeed:
    """Commands go in by AMQP and marks come out by AMQP; the benchmark's own driver does both.

    `letters` has one letter per order, in the same order. `last` is the mark that ends a saga; `pivot`, where
    there is one, the mark from which it can only go forward. Only marks that an experiment needs are listened to.
    """

    letters: Sequence[Letter]
    last: Mark
    pivot: Mark | None = None


@dataclass(frozen=True, slots=True)
class ProgramFeed:
    """For contenders that do not take commands by AMQP: a driver of their own, a program.

    It is run as `command`, with the path of a JSON file added that holds
    `{"orders": [fields of Order ...], "in_flight": 500, "seconds": 120}`. It must keep at most `in_flight` sagas
    under way, leave when all are done or the seconds are over, and print as its last line
    `{"began": t, "ended": t, "done": n, "done_at": [t ...]}`: when the first command went in, when the last saga
    was seen done, how many were, and when each was. Times are from `time.monotonic()`.
    """

    command: Sequence[str]


Feed = AmqpFeed | ProgramFeed


@dataclass(frozen=True, slots=True)
class Guarantees:
    """What a contender promises, said beside its figure: each a few words, `-` for nothing."""

    delivery: str
    """When a program or the broker dies in between: for example `at least once`."""
    effect: str
    """When a message comes twice: for example `once` or `twice`."""
    undo: str
    """When a later step fails."""
    event: str
    """Whether an event can be lost though its change is committed, or the other way round."""


class Contender(Protocol):
    """One system under test. Every method may raise; the turn is then void, with the error beside it."""

    @property
    def name(self) -> str:
        """A word: `floor`, `postgres`, `faststream`. It chooses the contender on the command line."""
        ...

    @property
    def title(self) -> str:
        """What the report calls it."""
        ...

    @property
    def guarantees(self) -> Guarantees:
        """What is promised."""
        ...

    @property
    def versions(self) -> Mapping[str, str]:
        """Packages that matter to the figure, beside Python, RabbitMQ and PostgreSQL."""
        ...

    @property
    def share(self) -> float:
        """Which part of the run's orders it is given: a slow one gets fewer, so that a turn stays short."""
        ...

    def create(self) -> None:
        """From nothing, also after a run that was cut off: databases, tables, queues. No program runs yet."""
        ...

    def start(self) -> None:
        """Start the programs, and return when all of them take work."""
        ...

    def pids(self) -> Mapping[str, int]:
        """The programs that run, by name."""
        ...

    def prepare(self, orders: Sequence[Order]) -> None:
        """Give the services what these orders need: seats held, wallets filled, tokens issued. Called once."""
        ...

    def feed(self, orders: Sequence[Order]) -> Feed:
        """How these orders are put in: all of the prepared ones, or a part of them (first a few to warm up)."""
        ...

    def settle(self, seconds: float) -> None:
        """Return when nothing is under way any more, what nobody listens to included; TimeoutError if too late.

        It belongs to the timed part, so it must look often and cheaply, or return at once if the last mark is all.
        With 0 seconds it looks once.
        """
        ...

    def audit(self, orders: Sequence[Order]) -> list[str]:
        """What is wrong after all these orders were put in; empty if their figure counts."""
        ...

    def stop(self) -> None:
        """Stop the programs; databases and queues stay."""
        ...

    def remove(self) -> None:
        """Remove databases and queues. Called also when something went wrong before."""
        ...


#: `benchmarks.peers` offers its contenders as `CONTENDERS: Mapping[str, Factory]`, by their names.
Factory = Callable[[Ground], Contender]
