"""A rolling change, as a pure decision: which instances of a group are replaced next, and when it is over.

A rollout leads each of its members from a former spec to the one of the newest configuration, or back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from blackhole_cg.core.plan import ChangeKind, Plan
from blackhole_cg.core.spec import RolloutSpec, ServiceSpec, SupervisorSpec
from blackhole_cg.core.words import ServiceType


class Phase(StrEnum):
    """Where a rollout leads."""

    FORWARD = "forward"
    BACK = "back"
    FAILED = "failed"  # it has gone back, and stays there until somebody wants the newest again


@dataclass(frozen=True, slots=True)
class Rollout:
    """One change of one group.

    Args:
        group: what its members are instances of.
        former: what each member ran by when all was well.
        target: the hash of what each is to run by.
        released: those that go by the newest configuration, or are about to; the others go by `former`.
        phase: where it leads.
        reason: why it goes back.
        surge: the additional instances that are out, and what each goes by.
    """

    group: str
    former: Mapping[str, ServiceSpec]
    target: Mapping[str, str]
    released: frozenset[str] = frozenset()
    phase: Phase = Phase.FORWARD
    reason: str = ""
    surge: Mapping[str, ServiceSpec] = field(default_factory=dict)

    def is_placed(self, name: str) -> bool:
        """Whether a member goes by what this leads it to."""
        return (name in self.released) is (self.phase is Phase.FORWARD)

    def to_json(self) -> dict[str, Any]:
        """The rollout as the API shows it."""
        return {
            "group": self.group,
            "phase": str(self.phase),
            "replaced": len(self.released),
            "total": len(self.former),
            "members": sorted(self.former),
            "reason": self.reason or None,
            "surge": list(self.surge),
        }


def scale(share: int | str, count: int, *, up: bool) -> int:
    """So many of `count`; a percentage such as "25%" is rounded up or down. Source: Kubernetes, intstr."""
    if isinstance(share, int):
        return share
    hundredths = count * int(share.removesuffix("%"))
    return -(-hundredths // 100) if up else hundredths // 100


def most_surge(share: int | str, count: int) -> int:
    """How many more than `count` there may be: each stands in for one of them."""
    return min(scale(share, count, up=True), count)


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many may be down of those wanted up, and how many there may be in addition; never both 0."""

    unavailable: int = 1
    surge: int = 0


def bounds_of(specs: Iterable[RolloutSpec], count: int) -> Bounds:
    """The bounds of a group of `count`, which are the narrowest of its members' own."""
    specs = list(specs)
    unavailable = min(scale(spec.max_unavailable, count, up=False) for spec in specs)
    surge = min(most_surge(spec.max_surge, count) for spec in specs)
    # Rounding may leave none of either. Source: Kubernetes, deployment util, ResolveFenceposts.
    return Bounds(1 if unavailable == surge == 0 else unavailable, surge)


@dataclass(frozen=True, slots=True)
class Member:
    """What is seen of one instance of the group, whether it is to be replaced or not."""

    name: str
    is_wanted: bool  # up
    is_up: bool  # and does its work
    is_stale: bool = False  # it is to be replaced
    is_busy: bool = False  # it is being replaced


@dataclass(frozen=True, slots=True)
class Turn:
    """What to do now: whom to replace, and how many additional ones to start."""

    replace: list[str]
    add: int = 0


def next_turn(members: Iterable[Member], surge: Iterable[Member], bounds: Bounds, phase: Phase) -> Turn:
    """Whom to replace now: never so many that too few are up, those in addition among them.

    Those that are down are first, as that takes nothing away; those wanted down need no run at all. Whoever
    is up waits until the additional ones are, which prove the new configuration before anything is taken.

    Args:
        members: those that are to be replaced, or have been.
        surge: the additional ones, until nothing of them runs any more.
        bounds: how many may be down, and how many there may be in addition.
        phase: where the rollout leads; going back adds none, and takes one at a time where nothing else may.
    """
    members, surge = list(members), list(surge)
    stale = [member for member in members if member.is_stale and not member.is_busy]
    free = [member.name for member in stale if not (member.is_wanted and member.is_up)]
    rest = [member.name for member in stale if member.is_wanted and member.is_up]
    missing = max(0, min(bounds.surge, len(rest)) - len(surge)) if phase is Phase.FORWARD else 0
    if missing or any(each.is_busy or (each.is_wanted and not each.is_up) for each in surge):
        return Turn(free, missing)
    may_be_down = bounds.unavailable + sum(each.is_wanted for each in surge)
    if phase is not Phase.FORWARD:
        may_be_down = max(1, may_be_down)
    down = sum(member.is_wanted and (member.is_busy or not member.is_up) for member in members)
    return Turn(free + rest[: max(0, may_be_down - down)])


def is_over(members: Iterable[Member]) -> bool:
    """Whether all of the rollout is where it leads."""
    return not any(member.is_busy or member.is_stale for member in members)


def keep(rollout: Rollout, services: Mapping[str, ServiceSpec]) -> Rollout | None:
    """What is left of a rollout in a configuration: those whose targets are still what they were."""
    names = {
        name
        for name, target in rollout.target.items()
        if name in services and services[name].enabled and services[name].config_hash == target
    }
    if not names:
        return None
    return replace(
        rollout,
        former={name: spec for name, spec in rollout.former.items() if name in names},
        target={name: target for name, target in rollout.target.items() if name in names},
        released=rollout.released & names,
        surge={name: spec for name, spec in rollout.surge.items() if name not in services},
    )


def carry_on(rollout: Rollout, services: Mapping[str, ServiceSpec]) -> Rollout | None:
    """What the next supervisor does of a rollout that it finds: the same, by the same configuration.

    Where its own is another one, what runs is brought to that one by the same steps.
    """
    kept = keep(rollout, services)
    names = (*rollout.former, *rollout.surge)  # an additional one may be one of the group by now
    present = {name: services[name] for name in names if name in services and services[name].enabled}
    if kept is not None and len(kept.former) == len(present):
        return kept
    if not present:
        return None
    targets = {name: spec.config_hash for name, spec in present.items()}
    surge = {name: spec for name, spec in rollout.surge.items() if name not in services}
    return Rollout(rollout.group, present, targets, frozenset(present), surge=surge)


def stage(new: SupervisorSpec, rollouts: Iterable[Rollout]) -> SupervisorSpec:
    """The configuration as it holds for now: with the additional instances, and those not replaced yet.

    These go by what they went by before, but need what the newest configuration says.
    """
    services = dict(new.services)
    for rollout in rollouts:
        for name in rollout.former.keys() - rollout.released:
            spec = new.services[name]
            former = rollout.former[name]
            services[name] = replace(former, depends_on=spec.depends_on, enabled=spec.enabled)
        member = new.services[next(iter(rollout.former))]
        for name, spec in rollout.surge.items():
            services[name] = replace(spec, depends_on=member.depends_on)
    return replace(new, services=services)


def rolls(old: ServiceSpec, new: ServiceSpec, taken: Mapping[object, Set[str]]) -> bool:
    """Whether a changed service waits for its turn; not where its former place is somebody else's now.

    Args:
        old: what it goes by.
        new: what it is to go by.
        taken: by whom each place of the newest configuration is, see `places`.
    """
    if new.instance_of is None or not (old.enabled and new.enabled) or new.type is ServiceType.ONESHOT:
        return False
    return all(taken.get(place, frozenset()) <= {new.name} for place in _places(old))


def places(spec: SupervisorSpec) -> dict[object, set[str]]:
    """Who is where: ports and sockets, those of additional instances too."""
    found: dict[object, set[str]] = {}
    for name, service in (*spec.services.items(), *spec.surge.items()):
        for place in _places(service):
            found.setdefault(place, set()).add(name)
    return found


def _places(spec: ServiceSpec) -> set[object]:
    found: set[object] = {(each.kind, each.address) for each in spec.sockets}
    if isinstance(spec.tcp_port, int):
        found.add(spec.tcp_port)
    if spec.unix_socket is not None:
        found.add(spec.unix_socket)
    return found


def surge_of(group: str, spec: SupervisorSpec) -> dict[str, ServiceSpec]:
    """The additional instances that a group may have, by the configuration."""
    return {name: each for name, each in spec.surge.items() if each.instance_of == group}


def foresee_surge(old: SupervisorSpec, new: SupervisorSpec, plan: Plan) -> dict[str, list[str]]:
    """By group the additional instances that there will be for a change, as far as they will be needed."""
    taken, changed = places(new), Counter[str]()
    for change in plan.changes:
        name = change.service
        waits = change.kind is ChangeKind.RESTART and not change.detail  # who has to move does so at once
        if waits and rolls(old.services[name], new.services[name], taken):
            changed[str(new.services[name].instance_of)] += 1
    found = {group: list(surge_of(group, new))[:count] for group, count in changed.items()}
    return {group: names for group, names in found.items() if names}
