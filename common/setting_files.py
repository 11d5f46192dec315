"""Settings from files: `DATABASE_URL_FILE` names the file that holds `DATABASE_URL`, and so for every setting.

A secret in the environment is read by whoever may look at the program, and is handed on to every program that it
starts; one in a file is read by its owner alone. What a file holds is in no message of an error.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import PydanticBaseSettingsSource

_LONGEST = 64 * 1024


class FileError(Exception):
    """A setting cannot be read from the file that is named for it; says which, and never what is in it."""


class Files(PydanticBaseSettingsSource):
    """The settings for which the environment names a file."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """What the file says, if one is named."""
        del field
        return content_of(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        """All that is said by files."""
        told = {name: content_of(name) for name in self.settings_cls.model_fields}
        return {name: value for name, value in told.items() if value is not None}


def content_of(name: str) -> str | None:
    """What the file holds that the environment names for a setting, as it is now; None if it names none.

    Raises FileError.
    """
    variable = f"{name}_FILE".upper()
    named = os.environ.get(variable)
    if not named:
        return None
    if os.environ.get(name.upper()):
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
