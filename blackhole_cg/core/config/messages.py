"""What the models refuse, in words for a person: a key path and one sentence, nothing of pydantic's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, get_args, get_origin

from pydantic import ValidationError

from blackhole_cg.core.config.kinds import describe, suggest
from blackhole_cg.core.config.models import Config
from blackhole_cg.core.config.section import Section
from blackhole_cg.core.config.tree import KeyPath

_KEY_MARK: Final = "[key]"  # how pydantic ends the path of a refused key of a mapping
_WANTED: Final = {
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing wrong: at the value of `path`, or at its key when `at_key`."""

    path: KeyPath
    message: str
    at_key: bool = False
    looks_at: tuple[KeyPath, ...] = ()  # what it was concluded from, besides `path`


def findings_of(error: ValidationError, limit: int) -> list[Finding]:
    """Every refusal of the models in words, up to `limit`."""
    return [_finding(detail) for detail in error.errors(include_url=False)[:limit]]


def _finding(detail: Mapping[str, Any]) -> Finding:
    path: KeyPath = detail["loc"]
    kind = detail["type"]
    if kind == "extra_forbidden":
        return Finding(path, _unknown_key(path), at_key=True)
    is_key = bool(path) and path[-1] == _KEY_MARK
    if is_key:
        path = path[:-1]
    if kind == "value_error":
        return Finding(path, str(detail["ctx"]["error"]), at_key=is_key)
    if kind in _WANTED:
        message = f"{describe(detail['input'])} is not {_WANTED[kind]} (accepted: {_WANTED[kind]})"
        return Finding(path, message)
    return Finding(path, f"{describe(detail['input'])} is not accepted here", at_key=is_key)


def _unknown_key(path: KeyPath) -> str:
    model = model_at(path[:-1])
    if model is None:
        return "unknown key"
    names = key_names(model)
    hint = suggest(path[-1], names)
    return f"unknown key ({hint.strip()})" if hint else f"unknown key (accepted: {', '.join(names)})"


def key_names(model: type[Section]) -> list[str]:
    """The keys of a section as they are written."""
    return [field.alias or name for name, field in model.model_fields.items()]


def _held(annotation: Any) -> Any:
    """The type itself where it is optional."""
    arguments = get_args(annotation)
    return arguments[0] if type(None) in arguments else annotation


def model_at(path: KeyPath) -> type[Section] | None:
    """The section at a key path; None where there is no section."""
    here: Any = Config
    for step in path:
        if isinstance(here, type) and issubclass(here, Section):
            fields = here.model_fields
            here = _held(fields[step].annotation) if isinstance(step, str) and step in fields else None
        elif get_origin(here) is dict:
            here = get_args(here)[1]
        elif get_origin(here) is tuple:
            here = get_args(here)[0]
        else:
            return None
    return here if isinstance(here, type) and issubclass(here, Section) else None
