"""The configuration text as a tree in which every key and value knows where it was written."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field
from typing import Final

from blackhole_cg.core.units import shorten

KeyPath = tuple[str | int, ...]
"""Where a value is: ("services", "web", "command", 2)."""

NULL_WORDS: Final = frozenset({"", "~", "null", "Null", "NULL"})


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a file; `line` and `column` count from 1, and are 0 where there are no lines."""

    source: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value as text. `plain` is false for quoted and block text, which is never null, number or bool."""

    position: Position
    text: str
    plain: bool = True

    @property
    def is_null(self) -> bool:
        """Whether this says "nothing": an empty value, ~ or null."""
        return self.plain and self.text in NULL_WORDS


@dataclass(slots=True)
class Sequence:
    """A list."""

    position: Position
    items: list[Node] = field(default_factory=list)


@dataclass(slots=True)
class Mapping:
    """Keys and values in file order; `keys` has the position of each key."""

    position: Position
    entries: dict[str, Node] = field(default_factory=dict)
    keys: dict[str, Position] = field(default_factory=dict)

    def add(self, key: str, position: Position, value: Node) -> None:
        """Set an entry."""
        self.keys[key] = position
        self.entries[key] = value


Node = Scalar | Sequence | Mapping


def is_null(node: Node) -> bool:
    """Whether a node says "nothing"."""
    return isinstance(node, Scalar) and node.is_null


def without(mapping: Mapping, names: Container[str]) -> Mapping:
    """The mapping without these keys."""
    kept = {name: node for name, node in mapping.entries.items() if name not in names}
    return Mapping(mapping.position, kept, {name: mapping.keys[name] for name in kept})


def descend(node: Node, path: KeyPath) -> Node:
    """The node at `path`, or the last one on the way to it."""
    for step in path:
        if isinstance(node, Sequence) and isinstance(step, int) and step < len(node.items):
            node = node.items[step]
        elif isinstance(node, Mapping) and step in node.entries:
            node = node.entries[str(step)]
    return node


def kind_of(node: Node) -> str:
    """What a node is, in words for a message."""
    if isinstance(node, Mapping):
        return "a mapping"
    if isinstance(node, Sequence):
        return "a list"
    return "empty" if node.is_null else f"'{shorten(node.text)}'"


def locate(root: Node, path: KeyPath, *, key: bool = False) -> Position:
    """Where the value at `path` was written, or its key; where there is none, the nearest key above it."""
    node, place = root, root.position
    for step, name in enumerate(path):
        child, key_place = _child(node, name)
        if child is None:
            return place
        is_last = step == len(path) - 1
        # An inner node is reported by its key: the value of a block mapping begins a line further down.
        place = child.position if is_last and not key else key_place
        node = child
    return place


def _child(node: Node, name: str | int) -> tuple[Node | None, Position]:
    if isinstance(node, Mapping) and name in node.entries:
        key = str(name)
        return node.entries[key], node.keys[key]
    if isinstance(node, Sequence):
        for index, item in enumerate(node.items):
            # A list of names stands for a mapping of names (depends_on), so its items are found by name too.
            if index == name or (isinstance(item, Scalar) and item.text == name):
                return item, item.position
    return None, node.position


def render_key(path: KeyPath) -> str:
    """The path as text: services.web.command[2]."""
    parts: list[str] = []
    for step in path:
        if isinstance(step, int):
            parts.append(f"[{step}]")
        else:
            is_simple = step.isascii() and step.replace("_", "").replace("-", "").isalnum()
            word = shorten(step) if is_simple else f'"{shorten(step)}"'
            parts.append(f".{word}" if parts else word)
    return "".join(parts)
