"""The JSON Schema of the configuration, for editors."""

from __future__ import annotations

from typing import Any, get_args

from pydantic.fields import FieldInfo

from blackhole_cg.core.config.kinds import Kind
from blackhole_cg.core.config.models import Config
from blackhole_cg.core.config.section import Section
from blackhole_cg.core.words import MAX


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a main file; every key has its title, description, unit and default."""
    schema = Config.model_json_schema()
    definitions = {model.__name__: model for model in sections()}
    for name, made in [*schema["$defs"].items(), (Config.__name__, schema)]:
        _render_defaults(made["properties"], definitions[name])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "blackhole.yaml",
    }


def sections() -> list[type[Section]]:
    """Every section, each after the one that holds it."""
    found: list[type[Section]] = [Config]
    for model in found:
        for field in model.model_fields.values():
            inner = section_of(field.annotation)
            if inner is not None and inner not in found:
                found.append(inner)
    return found


def section_of(annotation: Any) -> type[Section] | None:
    """The section a type holds: itself, optionally, as the values of a mapping or the items of a list."""
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, Section):
            return candidate
    return None


def kind_of_field(field: FieldInfo) -> Kind | None:
    """The kind of value of a key that holds a single value."""
    return next((item for item in field.metadata if isinstance(item, Kind)), None)


def shown_default(field: FieldInfo) -> Any:
    """The default as configuration text; None when there is none."""
    default = field.get_default(call_default_factory=True)
    kind = kind_of_field(field)
    if default is None or default == MAX or kind is None:
        return default
    return kind.show(default)


def _render_defaults(properties: dict[str, Any], model: type[Section]) -> None:
    for name, field in model.model_fields.items():
        made = properties[field.alias or name]
        if "default" in made and kind_of_field(field) is not None:
            made["default"] = shown_default(field)
