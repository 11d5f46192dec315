"""What everybody needs to know of a broker: where it is and who may enter."""

from dataclasses import dataclass
from typing import Literal


class BrokerError(Exception):
    """There is no broker, with a sentence for the person at the terminal."""


@dataclass(frozen=True, slots=True)
class Broker:
    """Where a broker is, who may enter, and how we came by it."""

    amqp_url: str
    management_url: str
    user: str
    password: str
    how: Literal["environment", "docker", "private"]
    pid: int | None = None
    container: str | None = None

    @property
    def ours(self) -> bool:
        """Whether we started it, and so have to stop it."""
        return self.how != "environment"
