"""Who needs whom among a fixed set of services, indexed in both directions."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from blackhole_cg.core.spec import ServiceSpec
from blackhole_cg.core.words import Condition, State


@dataclass(frozen=True, slots=True)
class Topology:
    """`requires` and `required_by` hold direct neighbours; `order` is a start order."""

    order: tuple[str, ...]
    requires: Mapping[str, tuple[str, ...]]
    required_by: Mapping[str, tuple[str, ...]]

    def with_requirements(self, names: Iterable[str]) -> list[str]:
        """The named services and all they need, in start order."""
        return self._sorted(_reachable(names, self.requires))

    def dependents(self, name: str) -> set[str]:
        """Every service that needs `name`, directly or not."""
        return _reachable([name], self.required_by) - {name}

    def sort(self, names: Iterable[str]) -> list[str]:
        """The named services, in start order."""
        return self._sorted(set(names))

    def _sorted(self, names: set[str]) -> list[str]:
        return [name for name in self.order if name in names]


def build_topology(services: Mapping[str, ServiceSpec]) -> Topology:
    """Index the dependencies of services that are known to have no cycle and no unknown names.

    Among services that are free to start, file order decides.
    """
    requires = {name: tuple(spec.depends_on) for name, spec in services.items()}
    required_by: dict[str, list[str]] = {name: [] for name in services}
    for name, needed in requires.items():
        for dependency in needed:
            required_by[dependency].append(name)
    missing = {name: len(needed) for name, needed in requires.items()}
    ready = deque(name for name, count in missing.items() if count == 0)
    order: list[str] = []
    while ready:
        name = ready.popleft()
        order.append(name)
        for dependent in required_by[name]:
            missing[dependent] -= 1
            if missing[dependent] == 0:
                ready.append(dependent)
    return Topology(tuple(order), requires, {name: tuple(users) for name, users in required_by.items()})


def is_met(condition: Condition, state: State) -> bool:
    """Whether a dependency in `state` satisfies `condition`."""
    if condition is Condition.COMPLETED:
        return state is State.COMPLETED
    return state in (State.RUNNING, State.COMPLETED)


def _reachable(names: Iterable[str], edges: Mapping[str, tuple[str, ...]]) -> set[str]:
    found = set(names)
    pending = list(found)
    while pending:
        for neighbour in edges[pending.pop()]:
            if neighbour not in found:
                found.add(neighbour)
                pending.append(neighbour)
    return found
