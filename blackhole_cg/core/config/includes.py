"""The main file and everything it includes, joined into one tree."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from collections.abc import Mapping as MappingABC
from typing import Final, Protocol

from blackhole_cg.core.config.kinds import suggest
from blackhole_cg.core.config.tree import (
    Mapping,
    Node,
    Position,
    Scalar,
    Sequence,
    is_null,
    kind_of,
    render_key,
)
from blackhole_cg.core.config.variables import expand
from blackhole_cg.core.config.yaml_text import parse_yaml
from blackhole_cg.core.units import shorten
from blackhole_cg.errors import ConfigError, Diagnostic

MAX_INCLUDE_DEPTH: Final = 16
MAX_FILES: Final = 1000

_INCLUDED_KEYS: Final = ("include", "services", "templates", "instances")
_NAMED: Final = ("services", "templates")


class Reader(Protocol):
    """Where the text of files comes from."""

    def read_bytes(self, path: str) -> bytes:
        """The content of a regular file. Raises OSError, whose strerror a user is shown."""

    def glob(self, pattern: str) -> list[str]:
        """The paths a pattern matches, sorted."""


class Files:
    """Reads the files of one configuration; `diagnostics` collects what is wrong with them.

    `sources` are the files that were read, `globs` the patterns that files were looked for by.
    """

    def __init__(self, reader: Reader, environ: MappingABC[str, str]) -> None:
        self.diagnostics: list[Diagnostic] = []
        self.sources: list[str] = []
        self.globs: list[str] = []
        self._reader = reader
        self._environ = environ
        self._seen: set[str] = set()

    def read(self, path: str) -> Mapping | None:
        """The joined tree of a main file: its own keys, and what included files add; None if unreadable."""
        root = self._parse(path, None)
        if root is None:
            return None
        joined = Mapping(root.position, dict(root.entries), dict(root.keys))
        for name in _NAMED:
            own = self._mapping_of(root, name)
            if own is not None:
                joined.add(name, root.keys[name], own)
        self._include(root, (path,), joined)
        if "services" not in joined.entries:
            joined.add("services", root.position, Mapping(root.position))
        return joined

    def _parse(self, path: str, asked_at: Diagnostic | None) -> Mapping | None:
        """The tree of one file; `asked_at` is the diagnostic to give when it cannot be read."""
        self._seen.add(posixpath.normpath(path))
        self.sources.append(path)
        try:
            data = self._reader.read_bytes(path)
        except (OSError, ValueError) as error:
            cause = getattr(error, "strerror", None) or str(error)
            place = asked_at or Diagnostic(path, 0, 0, "", "")
            what = f"cannot read {shorten(path, 200)}: {cause}" if asked_at else f"cannot read: {cause}"
            self.diagnostics.append(Diagnostic(place.source, place.line, place.column, place.key, what))
            return None
        try:
            root, diagnostics = parse_yaml(data, path)
        except ConfigError as error:
            self.diagnostics.extend(error.diagnostics)
            return None
        self.diagnostics.extend(diagnostics)
        return root

    def _include(self, root: Mapping, chain: tuple[str, ...], joined: Mapping) -> None:
        for path, asked_at in self._included_paths(root, chain[-1]):
            if posixpath.normpath(path) in map(posixpath.normpath, chain):
                self._report(asked_at, f"the files include each other: {' -> '.join((*chain, path))}")
            elif len(chain) > MAX_INCLUDE_DEPTH or len(self.sources) >= MAX_FILES:
                bound = f"{MAX_INCLUDE_DEPTH} levels, {MAX_FILES} files"
                self._report(asked_at, f"too many files include each other (accepted: {bound})")
            elif posixpath.normpath(path) not in self._seen:
                included = self._parse(path, asked_at)
                if included is not None:
                    self._join(included, chain[0], joined)
                    self._include(included, (*chain, path), joined)

    def _included_paths(self, root: Mapping, source: str) -> Iterator[tuple[str, Diagnostic]]:
        """The paths of an `include:` key, each with a diagnostic that lacks only its message."""
        node = root.entries.get("include")
        if node is None or is_null(node):
            return
        for index, item in enumerate(node.items if isinstance(node, Sequence) else [node]):
            key = f"include[{index}]" if isinstance(node, Sequence) else "include"
            place = Diagnostic(source, item.position.line, item.position.column, key, "")
            if not isinstance(item, Scalar) or item.is_null:
                self._report(place, f"{kind_of(item)} is not a path (accepted: a path or a glob)")
                continue
            try:
                pattern = posixpath.join(posixpath.dirname(source), expand(item.text, self._environ).text)
                paths = self._look_for(pattern)
            except ValueError as error:
                self._report(place, str(error))
            else:
                yield from ((path, place) for path in paths)

    def _look_for(self, pattern: str) -> list[str]:
        if not any(character in pattern for character in "*?["):
            return [pattern]
        self.globs.append(pattern)
        return self._reader.glob(pattern)

    def _join(self, included: Mapping, main: str, joined: Mapping) -> None:
        """Add the services, templates and instances of an included file; nothing else may be in it."""
        for name in included.entries:
            if name not in _INCLUDED_KEYS:
                hint = suggest(name, _INCLUDED_KEYS).strip()
                why = f"belongs in {main}, not in an included file" if name in ("runtime", "control") else ""
                accepted = hint or f"accepted in an included file: {', '.join(_INCLUDED_KEYS)}"
                self._report_key(included, name, why or f"unknown key ({accepted})")
        for section in _NAMED:
            own = self._mapping_of(included, section)
            if own is not None:
                self._join_named(section, included.keys[section], own, joined)
        self._join_instances(included, joined)

    def _join_named(self, section: str, place: Position, own: Mapping, joined: Mapping) -> None:
        present = joined.entries.get(section)
        if not isinstance(present, Mapping):
            if present is not None and not is_null(present):
                return  # the main file's is refused as a whole
            present = Mapping(own.position)
            joined.add(section, joined.keys.get(section, place), present)
        for name, item in own.entries.items():
            if name in present.entries:
                path = (section, name)
                key, first = own.keys[name], present.keys[name]
                message = f"is defined twice (first at {first})"
                self.diagnostics.append(
                    Diagnostic(key.source, key.line, key.column, render_key(path), message)
                )
            else:
                present.add(name, own.keys[name], item)

    def _join_instances(self, included: Mapping, joined: Mapping) -> None:
        own = included.entries.get("instances")
        if own is None or is_null(own):
            return
        if not isinstance(own, Sequence):
            self._report_key(included, "instances", f"{kind_of(own)} is not a list (accepted: a list)")
            return
        present = joined.entries.get("instances")
        if isinstance(present, Sequence):
            own = Sequence(present.position, [*present.items, *own.items])
        if present is None or isinstance(present, Sequence) or is_null(present):
            place = joined.keys.get("instances", included.keys["instances"])
            joined.add("instances", place, own)

    def _mapping_of(self, root: Mapping, section: str) -> Mapping | None:
        """A copy of a section that maps names; None when it is absent or something else."""
        node: Node | None = root.entries.get(section)
        if isinstance(node, Mapping):
            return Mapping(node.position, dict(node.entries), dict(node.keys))
        is_included = len(self.sources) > 1  # in the main file it is refused later on
        if is_included and node is not None and not is_null(node):
            self._report_key(root, section, f"{kind_of(node)} is not a mapping (accepted: a mapping)")
        return None

    def _report(self, place: Diagnostic, message: str) -> None:
        self.diagnostics.append(Diagnostic(place.source, place.line, place.column, place.key, message))

    def _report_key(self, root: Mapping, name: str, message: str) -> None:
        place = root.keys[name]
        key = render_key((name,))
        self.diagnostics.append(Diagnostic(place.source, place.line, place.column, key, message))
