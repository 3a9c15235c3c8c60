"""Instances that a program provides, as a part of the tree."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping as MappingABC
from typing import Final

from blackhole_cg.core.config.tree import Mapping, Position, Scalar, Sequence
from blackhole_cg.core.instance_list import Value

SOURCE: Final = "provider"
_PLACE: Final = Position(SOURCE, 0, 0)


def provided_instances(items: Iterable[MappingABC[str, Value]]) -> Sequence:
    """The list; no text of it is taken for a variable."""
    return Sequence(_PLACE, [_instance(item) for item in items])


def _instance(item: MappingABC[str, Value]) -> Mapping:
    entries = {key: _scalar(value) for key, value in item.items()}
    return Mapping(_PLACE, dict(entries), dict.fromkeys(entries, _PLACE))


def _scalar(value: Value) -> Scalar:
    if isinstance(value, str):
        return Scalar(_PLACE, value.replace("$", "$$"), plain=False)
    if isinstance(value, bool) or value is None:
        return Scalar(_PLACE, {True: "true", False: "false", None: "null"}[value])
    return Scalar(_PLACE, str(value))
