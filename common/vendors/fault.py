"""What an error of a database means, whatever the vendor's own word for it."""

from __future__ import annotations

from enum import Enum, auto


class Fault(Enum):
    """What an error of the database means for the message that met it."""

    AWAY = auto()
    """The database cannot be reached or written to: no attempt, wait for it."""
    RACE = auto()
    """Another transaction was first: at once, again."""
    DATA = auto()
    """This content cannot be stored, now or ever."""
    OTHER = auto()
    """Anything else, a bug included: may well pass."""
