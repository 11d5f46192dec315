"""Which fields of messages tell of a person, and what stands for them where others may look.

The table is by the fields of `common.messages`; a test wants each of them in it. A field that is in neither half,
as one of a version yet to come, counts as personal. What a service writes about an error names fields, and never
what was in them; whoever looks at a whole message sees masks.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable, Iterable, Mapping

#: Each with the reason.
PERSONAL: Mapping[str, str] = {
    "user_id": "it is the person",
    "token": "it names a person in the waiting room, and whoever has it may take their turn",
    "detail": "a text, in which anybody may be named",
}
#: What an operator has to know: the ids by which a saga is found and talked about, amounts, states and times.
IMPERSONAL = frozenset(
    {
        *("payment_id", "payment_ids", "reservation_id", "top_up_id", "id"),
        *("amount", "price", "balance", "seat", "state", "kind", "service", "reason", "attempts"),
        *("expires_at", "held_until", "paid_at", "confirmed_at", "deducted_at", "expired_at"),
        *("completed_at", "cancelled_at", "reverted_at", "restored_at", "sent_at"),
    }
)
#: Messages that are known by something personal: their key is a token.
KNOWN_BY_A_PERSON = frozenset({"queue.enter", "queue.entered", "queue.rejected"})
#: What such fields are called in a line of the log.
_IN_LOGS = frozenset(PERSONAL) - {"detail"} | {"user"}

#: What impersonal fields hold: ids, codes and times. Anything longer or freer may be about somebody.
_PLAIN = re.compile(r"[A-Za-z0-9._:+-]{0,64}")
#: What fields are called; anything else may be a value in the wrong place.
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,39}")
_LONGEST = 256
#: Levels that are shown of what nobody knows.
_DEEPEST = 16
#: What a value may not stand next to, to be that value and not a part of another word.
_WORD = "[A-Za-z0-9_-]"


class Masks:
    """What stands for personal values in one view: the same for the same value, and in another view another."""

    def __init__(self) -> None:
        # Without a key whoever has a list of users would only have to try them all.
        self._key = secrets.token_bytes(16)

    def of(self, value: object) -> str:
        """The mask of one value."""
        digest = hashlib.blake2b(str(value).encode("utf-8", "replace"), key=self._key, digest_size=4)
        return f"***{digest.hexdigest()}"

    def key(self, type_: str, key: str) -> str:
        """The id by which a message is known, masked if it is personal."""
        return self.of(key) if key and type_ in KNOWN_BY_A_PERSON else key

    def content(self, content: object, type_: str = "") -> object:
        """JSON in which only impersonal fields keep their values, and what is nothing stays nothing."""
        if not isinstance(content, dict):
            return self._hidden(content)
        return {
            self._name(name): value if _is_plain(name, value, type_) else self._hidden(value)
            for name, value in content.items()
        }

    def _hidden(self, value: object, depth: int = 0) -> object:
        """All that is in a personal field, or in one that nobody knows, whatever its parts are called."""
        match value:
            case None:
                return None
            case dict() | list() if depth >= _DEEPEST:
                return "***"
            case dict():
                return {self._name(name): self._hidden(part, depth + 1) for name, part in value.items()}
            case list():
                return [self._hidden(part, depth + 1) for part in value]
        return self.of(value)

    def _name(self, name: str) -> str:
        return name if _NAME.fullmatch(name) else self.of(name)

    def text(self, text: str, content: object) -> str:
        """A text in which the personal values of a message's content are masked."""
        return _replaced(text, dict(_values(content)), lambda value, _: self.of(value))

    def line(self, facts: Mapping[str, object]) -> dict[str, object]:
        """A line of the log without personal values."""
        keyed = str(facts.get("type")) in KNOWN_BY_A_PERSON
        return {
            name: self.of(value) if value and (name in _IN_LOGS or (keyed and name == "saga")) else value
            for name, value in facts.items()
        }


def unnamed(text: str, *contents: object) -> str:
    """A text in which fields stand for the personal values that these contents have in them.

    >>> unnamed("Key (user_id)=(ann) already exists", {"user_id": "ann"})
    'Key (user_id)=(<user_id>) already exists'
    """
    values = {value: name for content in contents for value, name in _values(content)}
    return _replaced(text, values, lambda _, name: f"<{name}>")


def _values(content: object) -> Iterable[tuple[str, str]]:
    """The personal values at the top of a content, and their fields; longer texts are nobody's name."""
    for name, value in content.items() if isinstance(content, Mapping) else ():
        if name not in IMPERSONAL and isinstance(value, str | int) and not isinstance(value, bool):
            told = str(value)
            if 0 < len(told) <= _LONGEST:
                yield told, str(name)


def _replaced(text: str, values: Mapping[str, str], say: Callable[[str, str], str]) -> str:
    """A text in which these values, each with its field, are said otherwise."""
    # Looked for one by one first: a stranger's body has room for thousands.
    found = [value for value in values if value in text]
    if not found:
        return text
    # The longest first: a name may begin with another one.
    either = "|".join(re.escape(value) for value in sorted(found, key=len, reverse=True))
    return re.sub(f"(?<!{_WORD})({either})(?!{_WORD})", lambda it: say(it[1], values[it[1]]), text)


def _is_plain(name: object, value: object, type_: str) -> bool:
    if name not in IMPERSONAL or (name == "id" and type_ in KNOWN_BY_A_PERSON):
        return False
    # A field that holds something else than it ought to is not what its name says.
    match value:
        case str():
            return bool(_PLAIN.fullmatch(value))
        case list():
            return name == "payment_ids" and all(isinstance(it, str) and _PLAIN.fullmatch(it) for it in value)
    return not isinstance(value, dict)
