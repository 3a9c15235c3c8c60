"""The difference between two configurations: what a reload has to do, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, Final

from blackhole_cg.core.ports import displaced
from blackhole_cg.core.spec import ResourceLimits, RuntimeSpec, ServiceSpec, SupervisorSpec


class ChangeKind(StrEnum):
    """What a change of a service asks for."""

    ADDED = "added"
    REMOVED = "removed"
    RESTART = "restart"  # a run is started with it, so it needs a new one
    LIVE = "live"  # the supervisor does it around a run, so it holds at once


@dataclass(frozen=True, slots=True)
class Change:
    """One service that differs. `keys` are the keys of the configuration that do; values may be secret.

    `detail` says why it changes beside that, or without any.
    """

    service: str
    kind: ChangeKind
    keys: tuple[str, ...] = ()
    detail: str = ""

    @property
    def changes_limits(self) -> bool:
        """Whether limits of its live run have to be changed."""
        return self.kind is ChangeKind.LIVE and any(key.startswith("resources.") for key in self.keys)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do, service by service: those that are gone in the old file's order, then the new file's."""

    changes: tuple[Change, ...]
    unchanged: tuple[str, ...]
    runtime: tuple[str, ...]  # keys of `runtime` that hold at once
    deferred: tuple[str, ...]  # keys of `runtime` that hold when the supervisor itself is started again

    def names(self, kind: ChangeKind) -> list[str]:
        """The services with this kind of change."""
        return [change.service for change in self.changes if change.kind is kind]

    def to_json(self) -> dict[str, Any]:
        """The plan as the API shows it."""
        return {
            "changes": [
                {
                    "service": change.service,
                    "change": str(change.kind),
                    "keys": list(change.keys),
                    **({"detail": change.detail} if change.detail else {}),
                }
                for change in self.changes
            ],
            "unchanged": list(self.unchanged),
            "runtime": list(self.runtime),
            "deferred": list(self.deferred),
        }


# Where a field of the neutral form is not called what the file calls it.
_KEYS: Final = {
    "argv": "command",
    "limits": "resources",
    "handed_config": "config",
    "shutdown_timeout_seconds": "shutdown_timeout",
    "control_group": "control.group",
    "metrics_listen": "metrics.listen",
    "port_range": "ports.range",
}
_DERIVED: Final = frozenset({"name", "config_hash", "config_path", "hidden"})

DEFERRED: Final = frozenset({"isolation", "control_group", "metrics_listen"})
"""Fields of the runtime that hold when the supervisor itself is started again."""


def compare(old: SupervisorSpec, new: SupervisorSpec, given: Mapping[str, int] | None = None) -> Plan:
    """What leads from `old` to `new`; `given` are the ports of live runs that were found for them."""
    displacing = displaced(new.services, given or {})
    changes = [Change(name, ChangeKind.REMOVED) for name in old.services if name not in new.services]
    unchanged = []
    for name, spec in new.services.items():
        before = old.services.get(name)
        if before is None:
            changes.append(Change(name, ChangeKind.ADDED))
        elif name in displacing:
            port, owner = displacing[name]
            detail = f"its port {port} is given to '{owner}'"
            changes.append(Change(name, ChangeKind.RESTART, tuple(_service_keys(before, spec)), detail))
        elif keys := tuple(_service_keys(before, spec)):
            changes.append(Change(name, _kind(before, spec), keys))
        else:
            unchanged.append(name)
    runtime = [each.name for each in fields(RuntimeSpec) if _differs(old.runtime, new.runtime, each.name)]
    return Plan(
        tuple(changes),
        tuple(unchanged),
        tuple(_KEYS.get(name, name) for name in runtime if name not in DEFERRED),
        tuple(_KEYS.get(name, name) for name in runtime if name in DEFERRED),
    )


def _kind(before: ServiceSpec, after: ServiceSpec) -> ChangeKind:
    return ChangeKind.LIVE if before.config_hash == after.config_hash else ChangeKind.RESTART


def key_of(name: str) -> str:
    """What the file calls a field of a service."""
    return _KEYS.get(name, name)


def service_fields(before: ServiceSpec, after: ServiceSpec) -> list[str]:
    """The fields that differ and that somebody has written."""
    names = [
        each.name
        for each in fields(ServiceSpec)
        if each.name not in _DERIVED and _differs(before, after, each.name)
    ]
    if before.config_hash == after.config_hash and "limits" in names:
        # It is only what is told to Go of the limits, to the next run.
        return [name for name in names if name != "environment"]
    return names


def _service_keys(before: ServiceSpec, after: ServiceSpec) -> Iterator[str]:
    for name in service_fields(before, after):
        key = key_of(name)
        if name == "limits":
            yield from (f"{key}.{limit}" for limit in _limit_keys(before.limits, after.limits))
        elif name == "environment":
            yield from (f"{key}.{entry}" for entry in _entries(before.environment, after.environment))
        else:
            yield key


def _limit_keys(before: ResourceLimits, after: ResourceLimits) -> Iterator[str]:
    for each in fields(ResourceLimits):
        if not _differs(before, after, each.name):
            continue
        if each.name == "rlimits":
            yield from _entries(before.rlimits, after.rlimits)
        else:
            yield each.name.removesuffix("_bytes")


def _entries(before: Mapping[str, object], after: Mapping[str, object]) -> list[str]:
    return [name for name in {**before, **after} if before.get(name) != after.get(name)]


def _differs(before: object, after: object, name: str) -> bool:
    return bool(getattr(before, name) != getattr(after, name))
