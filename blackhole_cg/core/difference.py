"""The difference between two configurations in full: from which value to which, and who notices.

Values that may be secret are not told: those that a variable went into, environments, what is handed over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, Final

from blackhole_cg.core.plan import Change, ChangeKind, Plan, key_of, service_fields
from blackhole_cg.core.spec import ServiceSpec, SupervisorSpec
from blackhole_cg.core.topology import build_topology

HIDDEN: Final = "***"

_ALWAYS_HIDDEN: Final = frozenset({"environment", "handed_config"})


def describe(old: SupervisorSpec, new: SupervisorSpec, plan: Plan) -> dict[str, Any]:
    """The plan as the API shows it, with `fields` and `dependents` of each change.

    `dependents` are the services that need one that is to be restarted, removed or disabled, directly or not,
    and stay as they are themselves.
    """
    described = plan.to_json()
    topology = dict.fromkeys(old.services, build_topology(old.services))
    topology |= dict.fromkeys(new.services, build_topology(new.services))
    ending = {change.service for change in plan.changes if _ends(change, new)}
    for change, shown in zip(plan.changes, described["changes"], strict=True):
        name = change.service
        shown["fields"] = []
        if name in old.services and name in new.services:
            shown["fields"] = list(_differences(old.services[name], new.services[name]))
        needing = topology[name].dependents(name) - ending if name in ending else set()
        shown["dependents"] = [each for each in topology[name].order if each in needing]
    return described


def _ends(change: Change, new: SupervisorSpec) -> bool:
    if change.kind is ChangeKind.ADDED:
        return False
    disabled = change.kind is not ChangeKind.REMOVED and not new.services[change.service].enabled
    return disabled or change.kind in (ChangeKind.RESTART, ChangeKind.REMOVED)


def _differences(before: ServiceSpec, after: ServiceSpec) -> Iterator[dict[str, Any]]:
    hidden = _ALWAYS_HIDDEN | {*before.hidden, *after.hidden}
    for name in service_fields(before, after):
        pairs = _pairs(key_of(name), getattr(before, name), getattr(after, name))
        for key, old, new in pairs:
            shown = (old, new)
            if name in hidden:
                shown = (None if old is None else HIDDEN, None if new is None else HIDDEN)
            yield {"key": key, "old": shown[0], "new": shown[1]}


def _pairs(key: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    """Down to the single values that differ."""
    if is_dataclass(old) and type(old) is type(new):
        for each in fields(old):
            name = each.name.removesuffix("_bytes").removesuffix("_seconds")
            inner = key if name == "rlimits" else f"{key}.{name}"
            yield from _pairs(inner, getattr(old, each.name), getattr(new, each.name))
    elif isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in {**old, **new}:
            yield from _pairs(f"{key}.{name}", old.get(name), new.get(name))
    elif old != new:
        yield key, _plain(old), _plain(new)


def _plain(value: Any) -> Any:
    """As JSON has it."""
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value) and not isinstance(value, type):
        shown = {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
        return {name: each for name, each in shown.items() if each not in (None, [], {})}
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, tuple | list | frozenset):
        return [_plain(each) for each in value]
    return value
