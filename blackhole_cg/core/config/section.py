"""What every section of the configuration has in common."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.config import JsonDict


class Section(BaseModel):
    """A mapping with fixed keys; frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _empty_is_default(cls, value: Any) -> Any:
        """A section whose keys are all commented out reads as null and means its defaults."""
        return {} if value is None else value


def key(default: Any, description: str, *, inherits: str = "", alias: str | None = None) -> Any:
    """A key of a section.

    Args:
        default: the value when the key is absent.
        description: one sentence for the documentation.
        inherits: what stands in when the key is absent and the default depends on something else.
        alias: the key's name where it cannot be an attribute's.
    """
    extra: JsonDict = {"x-default": inherits} if inherits else {}
    return Field(default, description=description, json_schema_extra=extra, alias=alias)


def optional_section(description: str) -> Any:
    """A key that holds a section, or nothing."""
    return Field(None, description=description)


def section(model: type[Section], description: str) -> Any:
    """A key that holds a section."""
    return Field(default_factory=model, description=description)
