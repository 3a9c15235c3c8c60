"""Programs that were found in the services directory, as services with defaults."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

from blackhole_cg.core.config.loaded import LoadedConfig
from blackhole_cg.core.config.service_models import Service
from blackhole_cg.core.config.tree import KeyPath, Mapping
from blackhole_cg.core.discovery import Discovery

Scan = Callable[[str, Iterable[str]], Discovery]
"""Looks into a directory; leaves out names that are configured."""

_ORCHESTRATOR: Final[KeyPath] = ("runtime", "orchestrator")


def discover(loaded: LoadedConfig, scan: Scan | None) -> LoadedConfig:
    """The configuration with a service for each program that was found and is not configured."""
    orchestrator = loaded.config.runtime.orchestrator
    sources = ((*_ORCHESTRATOR, "discover"), (*_ORCHESTRATOR, "services_dir"), ("services",))
    written = loaded.root.entries.get("services")
    is_known = all(loaded.is_itself_sound(path) for path in sources)
    if scan is None or not orchestrator.discover or not is_known or not isinstance(written, Mapping):
        return loaded
    directory = posixpath.join(posixpath.dirname(loaded.sources[0]), orchestrator.services_dir)
    discovery = scan(directory, written.entries)
    joined = Mapping(written.position, dict(written.entries), dict(written.keys))
    place = loaded.position((*_ORCHESTRATOR, "services_dir"), key=True)
    services = dict(loaded.config.services)
    for name in discovery.names:
        joined.add(name, place, Mapping(place))
        services[name] = Service(data_dir=posixpath.join(orchestrator.services_dir, name, "data"))
    root = Mapping(loaded.root.position, dict(loaded.root.entries), dict(loaded.root.keys))
    root.add("services", root.keys.get("services", written.position), joined)
    return replace(
        loaded,
        config=loaded.config.model_copy(update={"services": services}),
        root=root,
        discovered=frozenset(discovery.names),
        notes=discovery.sentences(directory),
    )
