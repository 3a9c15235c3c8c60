"""The placeholders of templates: an instance's own keys and `{name}`, in every value of a template."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from collections.abc import Mapping as MappingABC
from typing import Final

from blackhole_cg.core.config.placeholders import WORDS
from blackhole_cg.core.config.tree import KeyPath, Mapping, Node, Scalar, Sequence, descend

KEY_PATTERN: Final = "[A-Za-z_][A-Za-z0-9_]*"

LATER: Final = frozenset(WORDS) - {"name"}
"""Replaced when a service is resolved, as in every service; an instance has its own only of the rest."""

# After a `$` it is a variable of the environment or of a shell.
_PLACEHOLDER: Final = re.compile(r"(?<!\$)\{(" + KEY_PATTERN + r")\}")


def words_of(template: Node) -> dict[str, KeyPath]:
    """The placeholders that an instance has to fill, each with the first place it is used at."""
    found: dict[str, KeyPath] = {}
    for path, text in texts(template, ()):
        for word in _PLACEHOLDER.findall(text):
            if word not in LATER:
                found.setdefault(word, path)
    return found


def texts(node: Node, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    """Every value below a node."""
    if isinstance(node, Scalar):
        yield path, node.text
    elif isinstance(node, Sequence):
        for index, item in enumerate(node.items):
            yield from texts(item, (*path, index))
    else:
        for name, child in node.entries.items():
            yield from texts(child, (*path, name))


def has_placeholder(root: Node, path: KeyPath) -> bool:
    """Whether a placeholder is in what is at `path`, so that nobody knows the value yet."""
    found = texts(descend(root, path), path)
    return any(word not in LATER for _, text in found for word in _PLACEHOLDER.findall(text))


def weigh(node: Node) -> int:
    """How many nodes there are."""
    if isinstance(node, Scalar):
        return 1
    children = node.items if isinstance(node, Sequence) else node.entries.values()
    return 1 + sum(map(weigh, children))


def fill_node(node: Node, values: MappingABC[str, Scalar], key: str = "") -> Node:
    """The node with its placeholders replaced, once; `key` is the name it has in its mapping.

    A value that is nothing but a placeholder becomes the instance's own value, position included.
    """
    if isinstance(node, Sequence):
        return Sequence(node.position, [fill_node(item, values) for item in node.items])
    if isinstance(node, Mapping):
        filled = {name: fill_node(child, values, name) for name, child in node.entries.items()}
        return Mapping(node.position, filled, dict(node.keys))
    if key == "command" and _PLACEHOLDER.search(node.text):
        return _fill_command(node, values)
    return _fill_scalar(node, values)


def _fill_command(node: Scalar, values: MappingABC[str, Scalar]) -> Node:
    """A command that is one text is split first, so that a value never becomes more than one argument."""
    try:
        words = shlex.split(node.text)
    except ValueError:
        return _fill_scalar(node, values)  # the models will say what is wrong with it
    return Sequence(
        node.position, [_fill_scalar(Scalar(node.position, word, False), values) for word in words]
    )


def _fill_scalar(node: Scalar, values: MappingABC[str, Scalar]) -> Scalar:
    whole = _PLACEHOLDER.fullmatch(node.text)
    if whole and whole[1] in values:
        return values[whole[1]]

    def value_of(match: re.Match[str]) -> str:
        value = values.get(match[1])
        if value is None:
            return match[0]
        return "" if value.is_null else value.text

    text = _PLACEHOLDER.sub(value_of, node.text)
    return node if text == node.text else Scalar(node.position, text, node.plain)
