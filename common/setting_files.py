"""Settings from files: `DATABASE_URL_FILE` names the file that holds `DATABASE_URL`, and so for every setting.

A secret in the environment is read by whoever may look at the program, and is handed on to every program that it
starts; one in a file is read by its owner alone. What a file holds is in no message of an error.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

_LONGEST = 64 * 1024


class FileError(Exception):
    """A setting cannot be read from the file that is named for it; says which, and never what is in it."""


def content_of(name: str, environment: Mapping[str, str] = os.environ) -> str | None:
    """What the file holds that the environment names for a setting, as it is now; None if it names none.

    Raises FileError.
    """
    variable = f"{name}_FILE".upper()
    named = environment.get(variable)
    if not named:
        return None
    if environment.get(name.upper()):
        raise FileError(f"{name.upper()} and {variable} are both set; only one can be meant")
    try:
        with Path(named).open("rb") as file:
            content = file.read(_LONGEST + 1)
    except OSError as error:
        raise FileError(f"{variable}: {named}: {error.strerror}") from None
    try:
        text = content.decode().strip()
    except UnicodeDecodeError:
        raise FileError(f"{variable}: {named} is no text") from None
    if not text or len(content) > _LONGEST:
        raise FileError(f"{variable}: {named} is {'too long' if text else 'empty'}")
    return text
