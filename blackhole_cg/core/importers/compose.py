"""Compose files: the services that containers are made of.

A container's image has no counterpart: a service runs a program of this host.
Source: the Compose Specification.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from blackhole_cg.core.config.tree import Mapping, Node, Scalar
from blackhole_cg.core.config.yaml_text import parse_yaml
from blackhole_cg.core.importers.compose_keys import CARRIED, WHYS, Entry, Notes
from blackhole_cg.core.importers.draft import Draft, Source, refuse, valid_name
from blackhole_cg.errors import ConfigError

_CONDITIONS: Final = {
    "service_started": "started",
    "service_healthy": "healthy",
    "service_completed_successfully": "completed",
}
_QUIET: Final = frozenset({"version", "services"})
_NO_COMMAND: Final = "what the image runs is not in this file: set `command`, then remove `enabled: false`"


def import_compose(sources: Sequence[Source]) -> Draft:
    """The services, those without a command disabled. Raises ConfigError."""
    draft = Draft()
    for source in sources:
        root, diagnostics = parse_yaml(source.text.encode(), source.path)
        if diagnostics:
            raise ConfigError(diagnostics)
        services = root.entries.get("services")
        if not isinstance(services, Mapping):
            raise refuse(source, 1, 1, "has no `services:` (expected a Compose file)")
        for key in root.entries.keys() - _QUIET:
            if not key.startswith("x-"):
                draft.note(source, root.keys[key].line, key, WHYS.get(key, "has no counterpart here"))
        for name, node in services.entries.items():
            line = services.keys[name].line
            if not isinstance(node, Mapping):
                raise refuse(source, line, 1, f"services.{name} is not a mapping")
            _import_service(draft, source, name, line, node)
    _forget_missing(draft, sources[0])
    _share_ports(draft, sources[0])
    return draft


def _import_service(draft: Draft, source: Source, name: str, line: int, node: Mapping) -> None:
    service: dict[str, Any] = {"command": []}
    for key, value in node.entries.items():
        place = node.keys[key]
        entry = Entry(key, value, place.line)
        try:
            if key == "depends_on":
                service["depends_on"], notes = _dependencies(entry)
            elif key in CARRIED:
                notes = CARRIED[key](service, entry)
            else:
                notes = [] if key.startswith("x-") else [(key, WHYS.get(key, "has no counterpart here"))]
        except ValueError as error:
            if not entry.variables():
                raise refuse(source, place.line, place.column, f"services.{name}.{key} {error}") from None
            notes = [(key, f"{error}: write its value")]
        else:
            notes += _without_empty(entry) if key in CARRIED else []
        for setting, why in notes:
            draft.note(source, place.line, f"{name}.{setting}", why)
    _join_command(draft, source, name, line, service)
    service.setdefault("restart", {"policy": "never"})
    draft.add(source, line, name, service)


def _without_empty(entry: Entry) -> Notes:
    """Defaults of variables that are unset, where here they are for empty ones too."""
    found = [re.match(r"\$\{(\w+)-", variable) for variable in entry.variables()]
    names = dict.fromkeys(match[1] for match in found if match)
    return [(f"{entry.key} ${{{name}-}}", "its default is taken for an empty value too") for name in names]


def _join_command(draft: Draft, source: Source, name: str, line: int, service: dict[str, Any]) -> None:
    """Entrypoint and command make up the command line."""
    words = [*service.pop("entrypoint", []), *service.pop("command")]
    if words and not words[0].startswith("-"):
        service["command"] = words
        return
    if words:
        service["args"] = words
    service["enabled"] = False
    draft.note(source, line, name, _NO_COMMAND)


def _dependencies(entry: Entry) -> tuple[Any, Notes]:
    node: Node = entry.node
    if not isinstance(node, Mapping):
        return [valid_name(name) for name in entry.texts()], []
    found: dict[str, Any] = {}
    notes: Notes = []
    for name, value in node.entries.items():
        condition = value.entries.get("condition") if isinstance(value, Mapping) else None
        word = condition.text if isinstance(condition, Scalar) else "service_started"
        if word not in _CONDITIONS:
            raise ValueError(f"has the unknown condition '{word}' (accepted: {', '.join(_CONDITIONS)})")
        found[valid_name(name)] = {"condition": _CONDITIONS[word]}
        others = value.entries.keys() - {"condition"} if isinstance(value, Mapping) else set()
        notes += [(f"depends_on.{name}.{key}", "has no counterpart here") for key in sorted(others)]
    return found, notes


def _forget_missing(draft: Draft, source: Source) -> None:
    """Change dependencies that could never be met: on what is not there, on health that nobody asks for."""
    for name, service in draft.services.items():
        needed: Any = service.get("depends_on", [])
        for other in list(needed):
            wants = needed[other]["condition"] if isinstance(needed, dict) else "started"
            there = draft.services.get(other)
            if there is None or "enabled" in there:
                why = "there is no such service" if there is None else "it is disabled here"
                draft.note(source, 0, f"{name}.depends_on.{other}", why)
                service["depends_on"] = needed = _without(needed, other)
            elif wants == "healthy" and "health_check" not in there:
                draft.note(source, 0, f"{name}.depends_on.{other}", "it has no health check: started will do")
                needed[other] = {"condition": "started"}
            elif wants == "completed":
                there["type"] = "oneshot"


def _without(needed: Any, name: str) -> Any:
    if isinstance(needed, dict):
        return {other: value for other, value in needed.items() if other != name}
    return [other for other in needed if other != name]


def _share_ports(draft: Draft, source: Source) -> None:
    """On one host a port is one service's; containers may all listen on the same."""
    owners: dict[Any, str] = {}
    for name, service in draft.services.items():
        port = service.get("tcp_port")
        if port is not None and owners.setdefault(port, name) != name:
            draft.note(source, 0, f"{name}.ports", f"{owners[port]} has port {port} on this host already")
            del service["tcp_port"]
