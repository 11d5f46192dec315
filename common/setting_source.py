"""Settings from files, as pydantic asks for them; a module of its own, since pydantic takes its time to load."""

from __future__ import annotations

from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import PydanticBaseSettingsSource

from common.setting_files import content_of


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
