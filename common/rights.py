"""Who may say what on the broker, derived from the saga table: pure, for generator, consumers and doctor alike.

The broker knows a user for each service, named like it. Its permissions are the first wall: nobody may publish
what they do not own. That each message carries the user who published it is the second: a consumer asks `may_say`.
Where the first has a hole, the second holds alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from common import saga, topology
from common.history import OPERATOR

#: The reason of a message that somebody published to whom it does not belong; nothing is done about it.
NOT_ITS_OWNER = "not_its_owner"

#: Matches nothing, not even the empty routing key, which the broker's own empty pattern does.
NEVER = "(?!)"
#: Queues that the broker names; whoever declares one alone knows its name.
_PRIVATE = r"amq\.gen-[A-Za-z0-9_-]+"
_DELAY = "[0-9]+(ms|s|m|h)"
_EXCHANGES = (topology.EVENTS, topology.RECOVERY)

#: Queues in the virtual host: far more than ours, and few enough for a broker to carry.
MAX_QUEUES = 1000
#: How long, in milliseconds, a queue that the broker names keeps an answer, and itself when nobody uses it; and
#: how many bytes of answers. Whoever reads too slowly loses answers, the oldest first, and may ask again.
PRIVATE_QUEUE = MappingProxyType(
    {"message-ttl": 600_000, "expires": 600_000, "max-length-bytes": 64 * 1024 * 1024}
)
#: The operator policy that says so; unlike an argument, no client can leave it out.
PRIVATE_POLICY = "saga-private"
PRIVATE_PATTERN = rf"^{_PRIVATE}$"


class Role(StrEnum):
    """What a broker user is there for."""

    SERVICE = "service"
    CLIENT = "client"
    """Publishes commands and hears the answers, on a private queue."""
    LOOKS = "looks"
    """An operator who reads the history and the management API, and can change nothing."""
    ACTS = "acts"
    """An operator who besides sends commands, replays and discards letters, and aborts sagas."""
    DEPLOYER = "deployer"
    """Declares exchanges, queues and bindings, and publishes nothing."""


@dataclass(frozen=True, slots=True)
class Most:
    """How much of the broker a user may take up at once: connections, and channels in all of them."""

    connections: int
    channels: int


#: For whoever is no service. A service, which needs two connections for each replica, is never refused one.
_MOST = Most(connections=64, channels=256)


@dataclass(frozen=True, slots=True)
class User:
    """A broker user; one of a service has its service's name."""

    name: str
    role: Role


@dataclass(frozen=True, slots=True)
class Topic:
    """Which routing keys of an exchange a user may publish and bind."""

    exchange: str
    write: str = NEVER
    read: str = NEVER


@dataclass(frozen=True, slots=True)
class Grant:
    """All that a user may do in the virtual host: patterns over the names of objects, and over routing keys.

    There is a topic for each exchange that they may use: to the broker, one that is missing means every key.
    """

    user: User
    configure: str
    write: str
    read: str
    topics: tuple[Topic, ...]
    tags: tuple[str, ...] = ()

    @property
    def most(self) -> Most | None:
        """How much this user may take up; None: as much as there is."""
        return None if self.user.role is Role.SERVICE else _MOST


SERVICES = tuple(User(service, Role.SERVICE) for service in saga.SERVICES)
DEPLOYER = User("deployer", Role.DEPLOYER)
#: Who else there is unless told otherwise.
OTHERS = (DEPLOYER, User("client", Role.CLIENT), User("observer", Role.LOOKS), User("operator", Role.ACTS))

_OWNERS = MappingProxyType({key: service for service in saga.SERVICES for key in saga.emitted_keys(service)})
_COMMANDS = frozenset(key for service in saga.SERVICES for key in saga.command_keys(service))
#: The keys of the recovery exchange: ways, and no types. What comes under one, unbelieved, was sent by no service.
_WAYS = re.compile(
    rf"({'|'.join([*saga.SERVICES, OPERATOR])})\.(return|replay|abort|dead|parked|history|retry\..*)"
)


def owner_of(key: str) -> str | None:
    """The service that alone may say this; None for a command, and for what the table does not know.

    >>> owner_of("point.restored")
    'point'
    """
    return _OWNERS.get(key)


def may_say(user: str | None, key: str) -> bool:
    """Whether a message of this type counts if this user published it; None: nobody signed it.

    Commands are anybody's whom the broker lets publish them. A type that the table does not know is not judged:
    nothing is done about it, and a newer version that knows it asks again.
    """
    if key in _COMMANDS:
        return True
    owner = owner_of(key)
    if owner is None:
        return not (key.endswith(".failed") or _WAYS.fullmatch(key))
    return user == owner


def may_abort(user: str | None) -> bool:
    """Whether a dead letter that this user gave to a service ends a saga: an operator's does, no service's."""
    return user is not None and user not in saga.SERVICES


def are_checked(service: str, user: str, wanted: str | None) -> bool:
    """Whether a service that logs in as `user` asks who published an event.

    `wanted` is the setting PUBLISHERS. Without it: where the service has a user of its own name, all have.
    """
    return wanted == "owners" or (wanted is None and user == service)


def users(others: Iterable[User] = OTHERS) -> tuple[User, ...]:
    """The services and these; ValueError for a name that is taken, or that no pattern can hold."""
    found = (*SERVICES, *others)
    names = [user.name for user in found]
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name):
            raise ValueError(f"{name!r} is no name of a broker user: letters, digits, - and _")
        if names.count(name) > 1:
            raise ValueError(f"{name} is named twice")
    return found


def grant(user: User, objects: topology.Topology) -> Grant:
    """What a user may do with these objects."""
    match user.role:
        case Role.SERVICE:
            return _service(user, objects)
        case Role.CLIENT:
            return _client(user, objects)
        case Role.LOOKS:
            return Grant(user, NEVER, NEVER, _any_of([topology.HISTORY]), _topics(), ("monitoring",))
        case Role.ACTS:
            return _acting(user)
        case Role.DEPLOYER:
            return _deployer(user, objects)


def grants(objects: topology.Topology, others: Iterable[User] = OTHERS) -> tuple[Grant, ...]:
    """What each user may do."""
    return tuple(grant(user, objects) for user in users(others))


def answers() -> tuple[str, ...]:
    """The routing keys under which clients are told how their commands end; no step waits for any but failures."""
    told = (key for service in saga.SERVICES for key in saga.emitted_keys(service))
    return (*(key for key in told if key.endswith(".failed") or not saga.is_awaited(key)), saga.ANY_FAILED)


def _service(user: User, objects: topology.Topology) -> Grant:
    name = user.name
    recovery = (topology.dead_queue(name), topology.parked_queue(name), topology.history_key(name))
    reads = [topology.events_queue(name), topology.dead_queue(name)]
    reads += [queue.name for queue in objects.queues if topology.holds_commands(queue.name, name)]
    return Grant(
        user,
        configure=NEVER,
        write=_any_of(_EXCHANGES),
        read=_any_of(reads),
        topics=_topics(
            events=_any_of(saga.emitted_keys(name)),
            # The levels are a setting; a delay that has no queue is returned to its publisher.
            recovery=_any_of(recovery, rf"{re.escape(name)}\.retry\.{_DELAY}"),
        ),
    )


def _client(user: User, objects: topology.Topology) -> Grant:
    # What is nobody's lane but theirs is in no pattern of anybody else's.
    own = topology.lane_exchange(user.name)
    lane = [own] if own in objects.exchanges else []
    return Grant(
        user,
        configure=_any_of([], _PRIVATE),
        write=_any_of([topology.EVENTS, *lane], _PRIVATE),
        read=_any_of([topology.EVENTS], _PRIVATE),
        topics=(
            *_topics(events=_commands(), hears=_any_of(answers())),
            *(Topic(exchange, _commands()) for exchange in lane),
        ),
    )


def _acting(user: User) -> Grant:
    letters = [queue(name) for name in saga.SERVICES for queue in (topology.dead_queue, topology.parked_queue)]
    aborts = [topology.abort_key(step.service) for step in saga.SAGA if step.refusals]
    return Grant(
        user,
        configure=_any_of([], _PRIVATE),
        write=_any_of(_EXCHANGES, _PRIVATE),
        read=_any_of([topology.EVENTS, topology.HISTORY, *letters], _PRIVATE),
        topics=_topics(
            events=_commands(),
            hears=_any_of(answers()),
            recovery=_any_of([topology.history_key(OPERATOR), *aborts]),
        ),
        tags=("monitoring",),
    )


def _deployer(user: User, objects: topology.Topology) -> Grant:
    queues = [queue.name for queue in objects.queues]
    return Grant(
        user,
        configure=_any_of([*objects.exchanges, *queues]),
        # To bind a queue is to write to it and to read the exchange; to name the exchange of its dead letters is
        # to read the queue and to write to that exchange.
        write=_any_of([topology.RECOVERY, *queues]),
        read=_any_of([*objects.exchanges, *queues]),
        topics=tuple(Topic(exchange, NEVER, ".*") for exchange in objects.exchanges),
    )


def _commands() -> str:
    return _any_of(sorted(_COMMANDS))


def _topics(*, events: str = NEVER, hears: str = NEVER, recovery: str = NEVER) -> tuple[Topic, ...]:
    return (Topic(topology.EVENTS, events, hears), Topic(topology.RECOVERY, recovery))


def _any_of(names: Sequence[str], *patterns: str) -> str:
    """A pattern that matches these names and nothing else; the broker would look for it anywhere in a name."""
    return f"^({'|'.join([*map(re.escape, names), *patterns])})$"
