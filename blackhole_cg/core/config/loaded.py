"""A configuration that was read: the models, and where every key of them was written."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from collections.abc import Mapping as MappingABC
from dataclasses import dataclass, field
from typing import Final

from blackhole_cg.core.config import tree
from blackhole_cg.core.config.instances import Origin
from blackhole_cg.core.config.messages import Finding
from blackhole_cg.core.config.models import Config
from blackhole_cg.core.config.tree import KeyPath, Position
from blackhole_cg.errors import Diagnostic

INSTANCE_MARK: Final = " (instance '"
"""Begins the part of a message that says which instance of a template it is about."""


@dataclass(frozen=True, slots=True)
class Broken:
    """The paths whose values were refused and left out, and every path above one of them."""

    paths: frozenset[KeyPath] = frozenset()
    above: frozenset[KeyPath] = frozenset()

    @classmethod
    def of(cls, paths: Iterable[KeyPath]) -> Broken:
        """From the refused paths."""
        kept = frozenset(paths)
        return cls(kept, frozenset(path[:length] for path in kept for length in range(len(path))))

    def touches(self, path: KeyPath) -> bool:
        """Whether a refused path is at, above or below `path`."""
        return path in self.above or any(path[:length] in self.paths for length in range(len(path) + 1))


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """The models with their positions.

    `secrets` has the text as written of each value that a variable went into; `env_files` the variables of
    each service's env_file; `broken` is always empty in what `load_config` returns. `origins` tells which
    services are instances, `discovered` which are in no file; `notes` is what was seen on the way, `globs`
    the patterns by which included files were looked for.
    """

    config: Config
    root: tree.Mapping
    sources: tuple[str, ...]
    secrets: MappingABC[KeyPath, str] = field(default_factory=dict)
    env_files: MappingABC[str, MappingABC[str, str]] = field(default_factory=dict)
    broken: Broken = field(default_factory=Broken)
    origins: MappingABC[str, Origin] = field(default_factory=dict)
    discovered: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    globs: tuple[str, ...] = ()

    @property
    def surge(self) -> frozenset[str]:
        """Of the services those that are there only while others are replaced."""
        return frozenset(name for name, origin in self.origins.items() if origin.is_surge)

    def position(self, path: KeyPath, *, key: bool = False) -> Position:
        """Where the value at `path` was written, or its key; the nearest key above it when it is absent."""
        return tree.locate(self.root, path, key=key)

    def diagnostic(self, path: KeyPath, message: str, *, key: bool = False) -> Diagnostic:
        """Something wrong with the value at `path` (with its key when `key`), at its place in the files."""
        place = self.position(path, key=key)
        origin = self._origin(path)
        if origin is not None and place not in origin.places:
            message += f"{INSTANCE_MARK}{path[1]}' at {origin.place})"
            path = (origin.section, origin.template, *path[2:])
        return Diagnostic(place.source, place.line, place.column, tree.render_key(path), message)

    def diagnostic_of(self, finding: Finding) -> Diagnostic:
        """The diagnostic of a finding."""
        return self.diagnostic(finding.path, finding.message, key=finding.at_key)

    def has_written(self, path: KeyPath) -> bool:
        """Whether the files give a value at `path`."""
        node: tree.Node | None = self.root
        for step in path:
            node = node.entries.get(str(step)) if isinstance(node, tree.Mapping) else None
        return node is not None

    def directory_of(self, service: str) -> str:
        """The directory of the file that has the service, or its template; relative paths begin there."""
        path: KeyPath = ("services", service)
        origin = self.origins.get(service)
        if origin is not None and origin.section == "templates":
            path = ("templates", origin.template)
        return posixpath.dirname(self.position(path, key=True).source)

    def _origin(self, path: KeyPath) -> Origin | None:
        return self.origins.get(str(path[1])) if len(path) > 1 and path[0] == "services" else None

    def is_itself_sound(self, path: KeyPath) -> bool:
        """Whether nothing at or above `path` was refused."""
        return not any(path[:length] in self.broken.paths for length in range(len(path) + 1))

    def is_sound(self, path: KeyPath) -> bool:
        """Whether nothing at, above or below `path` was refused."""
        return not self.broken.touches(path)
