"""Who needs whom among a fixed set of services, indexed in both directions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from blackhole_cg.core.graph import closure, invert, start_order
from blackhole_cg.core.spec import ServiceSpec
from blackhole_cg.core.status import ServiceStatus
from blackhole_cg.core.words import Condition, Health, ServiceType, State


@dataclass(frozen=True, slots=True)
class Topology:
    """`requires` and `required_by` hold direct neighbours, both in start order."""

    order: tuple[str, ...]
    requires: Mapping[str, Sequence[str]]
    required_by: Mapping[str, Sequence[str]]

    def with_requirements(self, names: Iterable[str]) -> list[str]:
        """The named services and all they need, in start order."""
        return closure(self.requires, names)

    def dependents(self, name: str) -> set[str]:
        """Every service that needs `name`, directly or not."""
        return set(closure(self.required_by, [name])) - {name}

    def groups(self, names: Iterable[str]) -> list[set[str]]:
        """The named services in sets of which none needs a member of another, directly or not."""
        groups: list[set[str]] = []
        for name in names:
            near = {name, *self.with_requirements([name]), *self.dependents(name)}
            touched = [group for group in groups if not near.isdisjoint(group)]
            groups = [group for group in groups if group not in touched]
            groups.append({name}.union(*touched))
        return groups

    def sort(self, names: Iterable[str]) -> list[str]:
        """The named services, in start order."""
        wanted = set(names)
        return [name for name in self.order if name in wanted]


def build_topology(services: Mapping[str, ServiceSpec]) -> Topology:
    """Index the dependencies of services that are known to have no cycle and no unknown names."""
    order = start_order({name: tuple(spec.depends_on) for name, spec in services.items()})
    requires = {name: tuple(services[name].depends_on) for name in order}
    return Topology(tuple(order), requires, invert(requires))


def is_met(condition: Condition, spec: ServiceSpec, status: ServiceStatus) -> bool:
    """Whether a dependency satisfies `condition` now."""
    match condition:
        case Condition.COMPLETED:
            return status.state is State.COMPLETED
        case Condition.HEALTHY:
            return is_up(spec, status)
        case Condition.STARTED:
            return status.state in (State.RUNNING, State.COMPLETED)


def is_up(spec: ServiceSpec, status: ServiceStatus) -> bool:
    """Whether a service that goes on running does its work, as far as there is a way to tell."""
    if status.state is not State.RUNNING or spec.type is ServiceType.ONESHOT:
        return False
    return status.health is Health.HEALTHY or not spec.probes
