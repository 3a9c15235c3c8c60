"""A rolling change, as a pure decision: which instances of a group are replaced next, and when it is over.

A rollout leads each of its members from a former spec to the one of the newest configuration, or back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from blackhole_cg.core.spec import ServiceSpec, SupervisorSpec


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
    """

    group: str
    former: Mapping[str, ServiceSpec]
    target: Mapping[str, str]
    released: frozenset[str] = frozenset()
    phase: Phase = Phase.FORWARD
    reason: str = ""

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
        }


@dataclass(frozen=True, slots=True)
class Member:
    """What is seen of one instance of the group, whether it is to be replaced or not."""

    name: str
    is_wanted: bool  # up
    is_up: bool  # and does its work
    is_stale: bool = False  # it is to be replaced
    is_busy: bool = False  # it is being replaced


def next_to_replace(members: Iterable[Member], max_unavailable: int) -> list[str]:
    """Whom to replace now: never so many that more than `max_unavailable` of the wanted ones are down.

    Those that are down are first, as that takes nothing away; those wanted down need no run at all.
    """
    members = list(members)
    stale = [member for member in members if member.is_stale and not member.is_busy]
    free = [member.name for member in stale if not (member.is_wanted and member.is_up)]
    down = sum(member.is_wanted and (member.is_busy or not member.is_up) for member in members)
    room = max(0, max_unavailable - down)
    return free + [member.name for member in stale if member.is_wanted and member.is_up][:room]


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
    )


def carry_on(rollout: Rollout, services: Mapping[str, ServiceSpec]) -> Rollout | None:
    """What the next supervisor does of a rollout that it finds: the same, by the same configuration.

    Where its own is another one, what runs is brought to that one by the same steps.
    """
    kept = keep(rollout, services)
    present = {name: services[name] for name in rollout.former if name in services and services[name].enabled}
    if kept is not None and len(kept.former) == len(present):
        return kept
    if not present:
        return None
    targets = {name: spec.config_hash for name, spec in present.items()}
    return Rollout(rollout.group, present, targets, frozenset(present))


def stage(new: SupervisorSpec, rollouts: Iterable[Rollout]) -> SupervisorSpec:
    """The configuration as it holds for now: those not replaced yet go by what they went by before."""
    held_back = {
        name: replace(spec, depends_on=new.services[name].depends_on, enabled=new.services[name].enabled)
        for rollout in rollouts
        for name, spec in rollout.former.items()
        if name not in rollout.released
    }
    return replace(new, services={name: held_back.get(name, spec) for name, spec in new.services.items()})
