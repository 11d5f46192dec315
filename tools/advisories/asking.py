"""Asks a package index what faults of a release are known: its JSON API tells them under `vulnerabilities`.

https://docs.pypi.org/api/json/
"""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tools.advisories.pins import Pin

#: What is known changes by the day, and nobody asks an index more often than need be.
KEPT_SECONDS = 24 * 60 * 60
_SECONDS = 10.0
_AT_ONCE = 6
#: Of so many releases, one is known to an index that tells of faults.
_STRANGERS = 3


class AwayError(Exception):
    """The index cannot be asked: it does not answer, or not as an index does."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A known fault of a release. `ids`: all names it has."""

    pin: Pin
    ids: tuple[str, ...]
    fixed_in: tuple[str, ...]
    summary: str

    def __str__(self) -> str:
        mended = f"mended in {', '.join(self.fixed_in)}" if self.fixed_in else "not mended yet"
        return f"{self.pin}: {', '.join(self.ids)} ({mended}): {self.summary}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What an index knows: faults, and releases that it does not know at all."""

    faults: tuple[Fault, ...] = ()
    unknown: tuple[Pin, ...] = ()


def ask(source: str, pins: Iterable[Pin], kept: Path, *, now: float | None = None) -> Answer:
    """What the index at `source` knows of these releases; raises AwayError. `kept` has the answer of a day."""
    wanted, now = sorted(pins), time.time() if now is None else now
    about = {"source": source, "pins": [str(pin) for pin in wanted]}
    if (told := _kept(kept, about, now)) is not None:
        return told
    if not wanted:
        return Answer()
    # One after the other until one is known: where nobody answers, or a mirror lacks the API, no more is asked.
    answers: list[Answer] = []
    while len(answers) < min(len(wanted), _STRANGERS) and all(one.unknown for one in answers):
        answers.append(_release(source, wanted[len(answers)]))
    if all(one.unknown for one in answers):
        raise AwayError("it knows none of these releases")
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        answers += pool.map(lambda pin: _release(source, pin), wanted[len(answers) :])
    answer = Answer(
        tuple(fault for one in answers for fault in one.faults),
        tuple(pin for one in answers for pin in one.unknown),
    )
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps({"about": about, "at": now, "answer": asdict(answer)}))
    return answer


def _kept(file: Path, about: Mapping[str, Any], now: float) -> Answer | None:
    try:
        told = json.loads(file.read_text())
        if told["about"] != about or not 0 <= now - told["at"] < KEPT_SECONDS:
            return None
        faults = [
            Fault(Pin(**it["pin"]), tuple(it["ids"]), tuple(it["fixed_in"]), it["summary"])
            for it in told["answer"]["faults"]
        ]
        return Answer(tuple(faults), tuple(Pin(**it) for it in told["answer"]["unknown"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _release(source: str, pin: Pin) -> Answer:
    document = _get(f"{source.rstrip('/')}/{pin.name}/{pin.version}/json")
    if document is None:
        return Answer(unknown=(pin,))
    found = document.get("vulnerabilities")
    if not isinstance(found, list):
        raise AwayError("it does not tell of faults")
    return Answer(tuple(_fault(pin, it) for it in found if not it.get("withdrawn")))


def _fault(pin: Pin, told: Mapping[str, Any]) -> Fault:
    summary = str(told.get("summary") or told.get("details") or "").strip().partition("\n")[0]
    ids = (str(told["id"]), *map(str, told.get("aliases") or ()))
    return Fault(pin, tuple(dict.fromkeys(ids)), tuple(map(str, told.get("fixed_in") or ())), summary[:200])


def _get(url: str) -> dict[str, Any] | None:
    """A page of JSON; None where there is none of that name. Raises AwayError."""
    try:
        request = urllib.request.Request(url, headers={"Accept": "application/json"})  # noqa: S310 - an index
        with urllib.request.urlopen(request, timeout=_SECONDS) as answer:  # noqa: S310 - as above
            document = json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == http.client.NOT_FOUND:
                return None
        raise AwayError(f"it answers {error.code}") from None
    except (OSError, http.client.HTTPException) as error:
        raise AwayError(str(getattr(error, "reason", error)) or type(error).__name__) from None
    except ValueError:
        raise AwayError("what it answers is no JSON") from None
    if not isinstance(document, dict):
        raise AwayError("what it answers is no document")
    return document
