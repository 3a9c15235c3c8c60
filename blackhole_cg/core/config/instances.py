"""From templates and instances to services: each instance becomes an entry of `services`, early.

So whatever is checked of services is checked of instances too. Works on the tree, where every value still
knows the place it was written at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from collections.abc import Mapping as MappingABC
from dataclasses import dataclass, field
from typing import Final

from blackhole_cg.core.config.kinds import suggest
from blackhole_cg.core.config.template_text import KEY_PATTERN, LATER, fill_node, weigh, words_of
from blackhole_cg.core.config.tree import (
    KeyPath,
    Mapping,
    Node,
    Position,
    Scalar,
    Sequence,
    descend,
    is_null,
    kind_of,
    render_key,
)
from blackhole_cg.core.names import SERVICE_NAME_FORMS, SERVICE_NAME_PATTERN
from blackhole_cg.core.units import shorten
from blackhole_cg.errors import Diagnostic

MAX_NODES: Final = 500_000
"""How many values all instances together may come to."""

SECTIONS: Final = ("templates", "instances")
_OWN_KEYS: Final = ("id", "template")
_NAME: Final = re.compile(SERVICE_NAME_PATTERN)
_KEY: Final = re.compile(KEY_PATTERN)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a service that is an instance comes from."""

    template: str
    place: Position
    places: frozenset[Position]  # of everything the instance itself says
    section: str = "templates"  # which has what it was made from
    is_surge: bool = False  # it is there only while others are replaced


@dataclass(slots=True)
class Expansion:
    """The tree with its instances among the services, and what is wrong with them."""

    root: Mapping
    origins: dict[str, Origin] = field(default_factory=dict)
    unused: dict[str, Mapping] = field(default_factory=dict)  # templates without a sound instance
    diagnostics: list[Diagnostic] = field(default_factory=list)

    def report(self, place: Position, path: KeyPath, message: str) -> None:
        """Note something wrong."""
        key = render_key(path)
        self.diagnostics.append(Diagnostic(place.source, place.line, place.column, key, message))


def expand(root: Mapping, provided: Sequence | None = None, made: Expansion | None = None) -> Expansion:
    """The services of a tree with its instances, and with those that somebody else provided.

    `made` is what has been made of the tree before.
    """
    written = root.entries.get("services")
    expanded = Mapping(root.position, dict(root.entries), dict(root.keys))
    before = made or Expansion(root)
    made = Expansion(expanded, dict(before.origins), diagnostics=list(before.diagnostics))
    templates = dict(_templates(root, made))
    joined = Mapping(root.position)
    if isinstance(written, Mapping):
        joined = Mapping(written.position, dict(written.entries), dict(written.keys))
    _Expander(templates, joined, made).take_all(root, provided)
    is_wrong = written is not None and not isinstance(written, Mapping) and not is_null(written)
    if made.origins and not is_wrong:
        expanded.add("services", root.keys.get("services", joined.position), joined)
    used = {origin.template for origin in made.origins.values() if origin.section == "templates"}
    made.unused = {name: template for name, template in templates.items() if name not in used}
    return made


def _templates(root: Mapping, made: Expansion) -> Iterator[tuple[str, Mapping]]:
    node = root.entries.get("templates")
    if node is None or is_null(node):
        return
    if not isinstance(node, Mapping):
        made.report(node.position, ("templates",), f"{_said(node)} is not a mapping (accepted: a mapping)")
        return
    for name, template in node.entries.items():
        path = ("templates", name)
        if not _NAME.fullmatch(name):
            message = f"'{shorten(name)}' is not the name of a template (accepted: {SERVICE_NAME_FORMS})"
            made.report(node.keys[name], path, message)
        elif isinstance(template, Mapping):
            yield name, template
        elif is_null(template):
            yield name, Mapping(template.position)
        else:
            message = f"{_said(template)} is not a mapping (accepted: the keys of a service)"
            made.report(template.position, path, message)


class _Expander:
    """Takes instances one after the other into the services."""

    def __init__(self, templates: MappingABC[str, Mapping], services: Mapping, made: Expansion) -> None:
        self._templates = templates
        self._words = {name: words_of(template) for name, template in templates.items()}
        self._weights = {name: weigh(template) for name, template in templates.items()}
        self._services = services
        self._made = made
        self._budget = MAX_NODES

    def take_all(self, root: Mapping, provided: Sequence | None) -> None:
        node = root.entries.get("instances")
        if isinstance(node, Sequence):
            for index, item in enumerate(node.items):
                self._take(item, ("instances", index))
        elif node is not None and not is_null(node):
            message = f"{_said(node)} is not a list (accepted: a list of mappings with id and template)"
            self._made.report(node.position, ("instances",), message)
        for index, item in enumerate(provided.items if provided else ()):
            self._take(item, ("instances", index))

    def _take(self, item: Node, path: KeyPath) -> None:
        if not isinstance(item, Mapping):
            message = f"{_said(item)} is not an instance (accepted: a mapping with id and template)"
            self._made.report(item.position, path, message)
            return
        before = len(self._made.diagnostics)
        name = self._id(item, path)
        template = self._template(item, path)
        values = self._values(item, path)
        if template is not None:
            self._compare(item, path, template, values)
        if name is not None and template is not None and len(self._made.diagnostics) == before:
            self._add(name, template, item, values)

    def _add(self, name: str, template: str, item: Mapping, values: dict[str, Scalar]) -> None:
        self._budget -= self._weights[template]
        if self._budget < 0:
            bound = f"the instances come to too much (accepted: up to {MAX_NODES} values in all)"
            if self._budget + self._weights[template] >= 0:
                self._made.report(item.position, ("instances",), bound)
            self._budget = -1
            return
        filled = fill_node(self._templates[template], values | {"name": values["id"]})
        assert isinstance(filled, Mapping)
        self._services.add(name, item.position, filled)
        places = {item.position, *item.keys.values(), *(value.position for value in values.values())}
        self._made.origins[name] = Origin(template, item.position, frozenset(places))

    def _id(self, item: Mapping, path: KeyPath) -> str | None:
        """The name of the service, when it is one and nobody has it yet."""
        node = item.entries.get("id")
        if node is None:
            self._made.report(item.position, path, "has no id (accepted: id, template and its placeholders)")
            return None
        if not isinstance(node, Scalar) or not _NAME.fullmatch(node.text):
            message = f"{_said(node)} is not the name of a service (accepted: {SERVICE_NAME_FORMS})"
            self._made.report(node.position, (*path, "id"), message)
            return None
        if node.text in self._services.entries:
            origin = self._made.origins.get(node.text)
            what = "an instance" if origin else "a service"
            first = origin.place if origin else self._services.keys[node.text]
            message = f"there is {what} '{node.text}' already (at {first})"
            self._made.report(node.position, (*path, "id"), message)
            return None
        return node.text

    def _template(self, item: Mapping, path: KeyPath) -> str | None:
        node = item.entries.get("template")
        if node is None:
            accepted = (
                f"accepted: {shorten(', '.join(self._templates), 200) or 'none, there are no templates'}"
            )
            self._made.report(item.position, path, f"has no template ({accepted})")
            return None
        if isinstance(node, Scalar) and node.text in self._templates:
            return node.text
        name = node.text if isinstance(node, Scalar) else ""
        names = sorted(self._templates)
        accepted = f"accepted: {shorten(', '.join(names), 200)}" if names else "there are no templates"
        hint = suggest(name, names).strip() or accepted
        self._made.report(node.position, (*path, "template"), f"there is no template {_named(node)} ({hint})")
        return None

    def _values(self, item: Mapping, path: KeyPath) -> dict[str, Scalar]:
        """What the placeholders stand for."""
        values: dict[str, Scalar] = {}
        for key, node in item.entries.items():
            if not isinstance(node, Scalar):
                message = (
                    f"{_said(node)} cannot stand for a placeholder (accepted: text, a number, true, false)"
                )
                if key not in _OWN_KEYS:
                    self._made.report(node.position, (*path, key), message)
            elif key == "name" or key in LATER:
                message = f"{{{key}}} is a fact of every service (choose another name for this key)"
                self._made.report(item.keys[key], (*path, key), message)
            elif not _KEY.fullmatch(key):
                message = f"'{shorten(key)}' is not a placeholder (accepted: letters, digits and '_')"
                self._made.report(item.keys[key], (*path, key), message)
            else:
                values[key] = node
        return values

    def _compare(self, item: Mapping, path: KeyPath, template: str, values: dict[str, Scalar]) -> None:
        """Report keys that the template does not use, and placeholders that there is no key for."""
        words = self._words[template]
        missing = [word for word in words if word not in item.entries and word not in ("name", *_OWN_KEYS)]
        for key in item.entries:
            if key in words or key in _OWN_KEYS or key not in values:
                continue
            close = suggest(key, missing or words)
            known = shorten(", ".join(f"{{{word}}}" for word in words if word not in ("name", "id")), 200)
            accepted = close.strip() or f"it uses {known or 'none'}"
            message = f"the template '{template}' has no placeholder {{{shorten(key)}}} ({accepted})"
            self._made.report(item.keys[key], (*path, key), message)
        for word in missing:
            used_at = descend(self._templates[template], words[word]).position
            message = f"has no key '{word}', which the template '{template}' uses (at {used_at})"
            self._made.report(item.position, path, message)


def _said(node: Node) -> str:
    text = kind_of(node)
    return "this is empty, which" if text == "empty" else text


def _named(node: Node) -> str:
    return f"'{shorten(node.text)}'" if isinstance(node, Scalar) and not is_null(node) else "without a name"
