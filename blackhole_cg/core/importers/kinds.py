"""What can be imported."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from blackhole_cg.core.importers.compose import import_compose
from blackhole_cg.core.importers.draft import Draft, Source
from blackhole_cg.core.importers.procfile import import_procfile
from blackhole_cg.core.importers.supervisord import import_supervisord
from blackhole_cg.core.importers.systemd import import_systemd

IMPORTERS: Final[Mapping[str, Callable[[Sequence[Source]], Draft]]] = {
    "supervisord": import_supervisord,
    "procfile": import_procfile,
    "compose": import_compose,
    "systemd": import_systemd,
}
"""The kind of a file -> what reads some of that kind. Each raises ConfigError for what it cannot read."""
