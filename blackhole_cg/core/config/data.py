"""The tree as plain data for the models, with variables replaced and secrets remembered."""

from __future__ import annotations

from collections.abc import Mapping as MappingABC
from dataclasses import dataclass, field
from typing import Any, Final

from blackhole_cg.core.config.kinds import Text
from blackhole_cg.core.config.tree import KeyPath, Mapping, Node, Scalar, Sequence, render_key
from blackhole_cg.core.config.variables import MAX_TEXT, expand
from blackhole_cg.errors import Diagnostic

MAX_EXPANDED: Final = 16 * MAX_TEXT
"""Characters that all variables of a configuration together may come to."""

_ENVIRONMENT_DEPTH: Final = 4


@dataclass(slots=True)
class Reading:
    """What a tree says: data, the text as written of every value a variable went into, and what is wrong."""

    data: Any = None
    secrets: dict[KeyPath, str] = field(default_factory=dict)
    diagnostics: list[Diagnostic] = field(default_factory=list)
    broken: set[KeyPath] = field(default_factory=set)


def read_data(root: Node, environ: MappingABC[str, str]) -> Reading:
    """Lists, dicts, Text and None; a value whose variables cannot be replaced is left out and is broken."""
    reading = Reading()
    reading.data = _Reader(environ, reading).read(root, ())
    return reading


_LEFT_OUT: Final = object()


class _Reader:
    def __init__(self, environ: MappingABC[str, str], reading: Reading) -> None:
        self._environ = environ
        self._reading = reading
        self._budget = MAX_EXPANDED

    def read(self, node: Node, path: KeyPath) -> Any:
        if isinstance(node, Mapping):
            items = ((name, self.read(child, (*path, name))) for name, child in node.entries.items())
            return {name: value for name, value in items if value is not _LEFT_OUT}
        if isinstance(node, Sequence):
            values = (self.read(child, (*path, index)) for index, child in enumerate(node.items))
            return [value for value in values if value is not _LEFT_OUT]
        if node.is_null and not _is_environment_value(path):
            return None
        return self._text(node, path)

    def _text(self, node: Scalar, path: KeyPath) -> Any:
        try:
            expanded = expand(node.text, self._environ, min(self._budget, MAX_TEXT))
        except ValueError as error:
            self._refuse(node, path, str(error))
            return _LEFT_OUT
        if expanded.has_variable:
            self._budget -= len(expanded.text)
            self._reading.secrets[path] = node.text
        shown = node.text if expanded.has_variable else expanded.text
        return Text.of(expanded.text, plain=node.plain, shown=shown)

    def _refuse(self, node: Scalar, path: KeyPath, message: str) -> None:
        place, key = node.position, render_key(path)
        self._reading.diagnostics.append(Diagnostic(place.source, place.line, place.column, key, message))
        self._reading.broken.add(path)


def _is_environment_value(path: KeyPath) -> bool:
    """Whether this is services.NAME.environment.KEY, where even null words count as written."""
    return len(path) == _ENVIRONMENT_DEPTH and path[0] == "services" and path[2] == "environment"
