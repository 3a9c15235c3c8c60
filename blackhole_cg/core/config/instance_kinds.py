"""Kinds of `templates` and `instances`. What they hold is checked on the tree, by `instances.expand`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from blackhole_cg.core.config.kinds import JsonSchema, Kind, describe
from blackhole_cg.core.names import SERVICE_NAME_PATTERN

_NAME_SCHEMA: Final[JsonSchema] = {"type": "string", "pattern": f"^(?:{SERVICE_NAME_PATTERN})$"}
_SCALAR_SCHEMA: Final[JsonSchema] = {"type": ["string", "number", "boolean", "null"]}


@dataclass(frozen=True)
class TemplateMap(Kind):
    """Templates by name."""

    def read(self, value: Any) -> dict[str, Any]:
        if isinstance(value, dict) or value is None:
            return dict(value or {})
        raise ValueError(f"{describe(value)} is not a mapping")

    def accepted(self) -> str:
        return "mapping of names to the keys of a service"

    def schema(self) -> JsonSchema:
        return {"type": "object", "additionalProperties": {"type": "object"}}


@dataclass(frozen=True)
class InstanceList(Kind):
    """A list of instances."""

    def read(self, value: Any) -> tuple[Any, ...]:
        if isinstance(value, list | tuple) or value is None:
            return tuple(value or ())
        raise ValueError(f"{describe(value)} is not a list")

    def accepted(self) -> str:
        return "list of mappings: `id`, `template`, and a key for each of its placeholders"

    def schema(self) -> JsonSchema:
        properties: JsonSchema = {
            "id": {**_NAME_SCHEMA, "description": "Name of the service."},
            "template": {**_NAME_SCHEMA, "description": "Template it is made from."},
        }
        item: JsonSchema = {
            "type": "object",
            "required": ["id", "template"],
            "properties": properties,
            "additionalProperties": _SCALAR_SCHEMA,
        }
        return {"type": "array", "items": item}

    def show(self, value: Any) -> Any:
        return list(value)
