"""YAML bytes to a tree with positions, bounded in size, depth and alias growth.

Built on the event stream rather than on the composer, because composing recurses: here nothing recurses,
so nesting ends in an error with a line and not in an exhausted stack.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from blackhole_cg.core.config.tree import KeyPath, Mapping, Node, Position, Scalar, Sequence, render_key
from blackhole_cg.core.reading import MAX_FILE_BYTES
from blackhole_cg.core.units import format_size, shorten
from blackhole_cg.errors import ConfigError, Diagnostic

MAX_DEPTH: Final = 64
MAX_DIAGNOSTICS: Final = 1000
MAX_ALIAS_NODES: Final = 100_000
"""How many nodes all aliases together may stand for."""

_TEXT_PER_NODE: Final = 100  # characters of a scalar that weigh as much as a node
_NOT_TEXT: Final = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_TAG: Final = "tag:yaml.org,2002:"
_SCALAR_TAGS: Final = frozenset(_TAG + kind for kind in ("str", "int", "float", "bool", "null"))
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_HINTS: Final = {
    "mapping values are not allowed in this context": "unexpected ':' (quote a text that contains ': ')",
    "mapping values are not allowed here": "unexpected ':' (quote a text that contains ': ')",
    "found unexpected end of stream": "the quotes or brackets opened here are never closed",
    "did not find expected key": "a key was expected here (check the indentation and the brackets)",
    "did not find expected '-' indicator": "a list item '- ' was expected here (check the indentation)",
    "did not find expected node content": "a value was expected here (check the brackets)",
    "did not find expected ',' or ']'": "the list opened with '[' is not closed with ']' before this",
    "did not find expected ',' or '}'": "the mapping opened with '{' is not closed with '}' before this",
    "could not find expected ':'": "a ':' is missing after this key",
    "found unknown escape character": "unknown escape in double quotes (write \\\\ for a backslash)",
}


def parse_yaml(data: bytes, source: str) -> tuple[Mapping, list[Diagnostic]]:
    """The tree of one document, and what is wrong with it short of being unreadable.

    Raises:
        ConfigError: not text, not YAML, empty, not a mapping, or beyond a bound.
    """
    text = _decode(data, source)
    builder = _Builder(source)
    try:
        for event in yaml.parse(text, Loader=_Loader):
            builder.handle(event)
    except yaml.YAMLError as error:
        raise ConfigError([_translate(error, text, source)]) from error
    if builder.root is None or (isinstance(builder.root, Scalar) and builder.root.is_null):
        raise ConfigError([Diagnostic(source, 0, 0, "", "is empty (expected a `services:` section)")])
    if not isinstance(builder.root, Mapping):
        raise _refusal(builder.root.position, "is not a configuration (expected keys such as `services:`)")
    return builder.root, builder.diagnostics


def _decode(data: bytes, source: str) -> str:
    if len(data) > MAX_FILE_BYTES:
        size, bound = format_size(len(data)), format_size(MAX_FILE_BYTES)
        raise ConfigError([Diagnostic(source, 0, 0, "", f"is too large: {size} (accepted: up to {bound})")])
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8", "replace")
        message = f"is not UTF-8 text: byte 0x{data[error.start]:02x} here is not valid"
        raise _refusal(_position_after(before, source), message) from error
    if match := _NOT_TEXT.search(text):
        message = f"is not text: control character 0x{ord(match[0]):02x} here"
        raise _refusal(_position_after(text[: match.start()], source), message)
    return text


def _position_after(text: str, source: str) -> Position:
    return Position(source, text.count("\n") + 1, len(text) - text.rfind("\n"))


def _refusal(position: Position, message: str) -> ConfigError:
    return ConfigError([Diagnostic(position.source, position.line, position.column, "", message)])


def _translate(error: yaml.YAMLError, text: str, source: str) -> Diagnostic:
    problem = getattr(error, "problem", None) or "cannot be read"
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if mark is None:
        return Diagnostic(source, 0, 0, "", f"is not valid YAML: {problem}")
    if problem == "found unexpected end of stream" and getattr(error, "context_mark", None):
        mark = error.context_mark  # type: ignore[attr-defined]
    hint = _HINTS.get(problem, problem)
    if problem.startswith("found character") and problem.endswith("cannot start any token"):
        lines = text.splitlines()
        rest = lines[mark.line][mark.column :] if mark.line < len(lines) else ""
        hint = (
            "a tab cannot indent (use spaces)"
            if rest.startswith("\t")
            else f"a value cannot begin with {rest[:1]!r} (quote it)"
        )
    return Diagnostic(source, mark.line + 1, mark.column + 1, "", f"is not valid YAML: {hint}")


@dataclass(slots=True)
class _Open:
    """A collection that has begun; `weight` counts its nodes with every alias written out."""

    node: Mapping | Sequence
    anchor: str | None
    weight: int = 1
    height: int = 1
    key: Scalar | None = None  # read, and waiting for its value
    merges: list[Mapping] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Anchored:
    node: Node
    weight: int
    height: int


class _Builder:
    """Turns events into nodes, one open collection per level."""

    def __init__(self, source: str) -> None:
        self.root: Node | None = None
        self.diagnostics: list[Diagnostic] = []
        self._source = source
        self._open: list[_Open] = []
        self._anchors: dict[str, _Anchored | None] = {}  # None: begun and not ended
        self._alias_nodes = 0

    def handle(self, event: Any) -> None:
        """Take the next event of the stream."""
        if isinstance(event, yaml.ScalarEvent):
            self._scalar(event)
        elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            self._begin(event)
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            self._end()
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event)
        elif isinstance(event, yaml.DocumentStartEvent) and self.root is not None:
            raise _refusal(self._at(event), "a second document begins here (accepted: one per file)")

    def _at(self, event: Any) -> Position:
        return Position(self._source, event.start_mark.line + 1, event.start_mark.column + 1)

    def _report(self, position: Position, message: str) -> None:
        if len(self.diagnostics) > MAX_DIAGNOSTICS:
            return
        key = render_key(self._path())
        self.diagnostics.append(Diagnostic(position.source, position.line, position.column, key, message))

    def _path(self) -> KeyPath:
        path: list[str | int] = []
        for level in self._open:
            if isinstance(level.node, Sequence):
                path.append(len(level.node.items))
            elif level.key is not None:
                path.append(level.key.text)
        return tuple(path)

    def _scalar(self, event: Any) -> None:
        position = self._at(event)
        is_plain = bool(event.implicit[0]) or (event.tag in _SCALAR_TAGS and event.tag != _TAG + "str")
        self._check_tag(event, _SCALAR_TAGS, position)
        self._add(Scalar(position, event.value, is_plain), event, 1 + len(event.value) // _TEXT_PER_NODE, 0)

    def _begin(self, event: Any) -> None:
        position = self._at(event)
        if len(self._open) >= MAX_DEPTH:
            raise _refusal(position, f"is nested too deeply (accepted: up to {MAX_DEPTH} levels)")
        is_mapping = isinstance(event, yaml.MappingStartEvent)
        self._check_tag(event, {_TAG + ("map" if is_mapping else "seq")}, position)
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        node = Mapping(position) if is_mapping else Sequence(position)
        self._open.append(_Open(node, event.anchor))

    def _end(self) -> None:
        level = self._open.pop()
        if isinstance(level.node, Mapping):
            for merged in level.merges:
                for key, value in merged.entries.items():
                    if key not in level.node.entries:
                        level.node.add(key, merged.keys[key], value)
        if level.anchor is not None:
            self._anchors[level.anchor] = _Anchored(level.node, level.weight, level.height)
        self._place(level.node, level.weight, level.height)

    def _alias(self, event: Any) -> None:
        position = self._at(event)
        if event.anchor not in self._anchors:
            raise _refusal(position, f"the alias *{event.anchor} has no anchor &{event.anchor} before it")
        anchored = self._anchors[event.anchor]
        if anchored is None:
            raise _refusal(position, f"the alias *{event.anchor} stands inside its own anchor")
        self._alias_nodes += anchored.weight
        if self._alias_nodes > MAX_ALIAS_NODES:
            raise _refusal(
                position, f"the aliases stand for too much (accepted: up to {MAX_ALIAS_NODES} values in all)"
            )
        if len(self._open) + anchored.height > MAX_DEPTH:
            raise _refusal(position, f"is nested too deeply (accepted: up to {MAX_DEPTH} levels)")
        self._place(anchored.node, anchored.weight, anchored.height)

    def _add(self, node: Node, event: Any, weight: int, height: int) -> None:
        if event.anchor is not None:
            self._anchors[event.anchor] = _Anchored(node, weight, height)
        self._place(node, weight, height)

    def _place(self, node: Node, weight: int, height: int) -> None:
        """Put a finished node where it belongs: the root, a list item, a key or a value."""
        if not self._open:
            self.root = node
            return
        level = self._open[-1]
        level.weight += weight
        level.height = max(level.height, height + 1)
        if isinstance(level.node, Sequence):
            level.node.items.append(node)
        elif level.key is None:
            self._take_key(level, node)
        else:
            self._take_value(level, level.node, level.key, node)
            level.key = None

    def _take_key(self, level: _Open, node: Node) -> None:
        if not isinstance(node, Scalar):
            raise _refusal(node.position, "a key must be text, not a list or a mapping (quote '{' and '[')")
        if node.is_null:
            raise _refusal(node.position, "a key is missing before ':'")
        level.key = node

    def _take_value(self, level: _Open, mapping: Mapping, key: Scalar, node: Node) -> None:
        if key.plain and key.text == "<<":
            level.merges.extend(self._merged(node))
        elif key.text in mapping.entries:
            first = mapping.keys[key.text]
            self._report(key.position, f"is given twice (first at line {first.line}); keep one")
        else:
            mapping.add(key.text, key.position, node)

    def _merged(self, node: Node) -> list[Mapping]:
        items = node.items if isinstance(node, Sequence) else [node]
        mappings = [item for item in items if isinstance(item, Mapping)]
        if len(mappings) < len(items):
            self._report(node.position, "can only merge mappings (accepted: *ALIAS or a list of them)")
        return mappings

    def _check_tag(self, event: Any, accepted: frozenset[str] | set[str], position: Position) -> None:
        if event.tag not in (None, "!") and event.tag not in accepted:
            tag = shorten(event.tag.replace(_TAG, "!!"))
            self._report(position, f"the tag {tag} is not accepted here (accepted: plain YAML without tags)")
