"""A whole configuration, resolved, as JSON text and back: to be kept, and read by later versions.

What a later version has and the text has not gets its default; what the text has and this version has not is
left out.
"""

from __future__ import annotations

import json
import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from blackhole_cg.core.spec import SupervisorSpec

_ATOMS = frozenset({str, int, float, bool, type(None)})
_KIND = "~"  # which of several types a value is of


def render_spec(spec: SupervisorSpec) -> str:
    """The configuration as JSON text, secrets included."""
    return json.dumps(_encode(spec))


def parse_spec(text: str) -> SupervisorSpec:
    """The configuration in such a text. Raises ValueError, KeyError or TypeError where it is none."""
    spec = _decode(SupervisorSpec, json.loads(text))
    if not isinstance(spec, SupervisorSpec):
        raise TypeError("not a configuration")
    return spec


def _encode(value: Any) -> Any:
    if type(value) in _ATOMS:  # most are, and need no call
        return value
    if is_dataclass(value) and not isinstance(value, type):
        encoded = {
            name: each if type(each := getattr(value, name)) in _ATOMS else _encode(each)
            for name in value.__dataclass_fields__
        }
        return {_KIND: type(value).__name__, **encoded}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(name): each if type(each) in _ATOMS else _encode(each) for name, each in value.items()}
    if isinstance(value, tuple | list | frozenset):
        return [_encode(each) for each in value]
    return value


def _decode(hint: Any, data: Any) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _decode_one_of(arguments, data)
    if origin is Literal or data is None:
        return data
    if origin is not None:
        return _decode_many(origin, arguments, data)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return hint(data)
    return _decode_fields(hint, data) if is_dataclass(hint) else data


def _decode_many(origin: Any, arguments: tuple[Any, ...], data: Any) -> Any:
    if issubclass(origin, Mapping):
        return {name: _decode(arguments[1], each) for name, each in data.items()}
    if origin is tuple and arguments[-1] is not Ellipsis:
        return tuple(_decode(kind, each) for kind, each in zip(arguments, data, strict=True))
    return origin(_decode(arguments[0], each) for each in data)


def _decode_fields(kind: Any, data: Any) -> Any:
    hints = _hints(kind)
    return kind(**{name: _decode(hints[name], each) for name, each in data.items() if name in hints})


def _decode_one_of(kinds: tuple[Any, ...], data: Any) -> Any:
    if isinstance(data, dict) and _KIND in data:
        for kind in kinds:
            if getattr(kind, "__name__", None) == data[_KIND]:
                return _decode(kind, data)
    if data is None or isinstance(data, bool | int | float | str):
        enums = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Enum)]
        return enums[0](data) if enums and data is not None else data
    rest = [kind for kind in kinds if kind is not type(None) and get_origin(kind) is not Literal]
    return _decode(rest[0], data)


@cache
def _hints(kind: Any) -> dict[str, Any]:
    """The fields of a type that its constructor takes, with their types."""
    hints = get_type_hints(kind)
    return {each.name: hints[each.name] for each in fields(kind) if each.init}
