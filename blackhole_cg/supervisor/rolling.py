"""Rolling changes: instances of one group get their new runs a few at a time, and their old ones back.

A rollout is a row of small configurations given to the reconciler, each of which differs from the one before
in one instance. What is not replaced yet goes by its former spec, whatever happens to it meanwhile;
additional instances are services like others for as long as they are needed. Each step is recorded before it
is acted on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Set
from dataclasses import replace
from typing import Any

from blackhole_cg.core.plan import ChangeKind, compare
from blackhole_cg.core.ports import displaced
from blackhole_cg.core.rollout import Phase, Rollout, carry_on, keep, places, rolls, stage
from blackhole_cg.core.spec import ServiceSpec, SupervisorSpec
from blackhole_cg.core.topology import is_up
from blackhole_cg.errors import BlackholeError, StoreError
from blackhole_cg.observe.rollout_file import RolloutFile
from blackhole_cg.runner.service import ServiceRunner
from blackhole_cg.supervisor.reconcile import Applied, Reconciler, is_down
from blackhole_cg.supervisor.rolling_drive import Drive
from blackhole_cg.supervisor.services import Services

_log = logging.getLogger(__name__)

Note = Callable[[str, str, bool], None]
"""Stores an event: the service, what is said, whether something failed."""


def begin_with_rollouts(spec: SupervisorSpec, file: RolloutFile) -> tuple[SupervisorSpec, list[Rollout]]:
    """What a supervisor begins with: its configuration, and the rollouts an earlier one left in it."""
    try:
        found = [carry_on(rollout, spec.services) for rollout in file.load()]
    except StoreError as error:
        _log.error("%s: rolling changes that were under way are not gone on with", error)
        return spec, []
    rollouts = [rollout for rollout in found if rollout is not None]
    return stage(spec, rollouts), rollouts


class Rolling:
    """Stands before the reconciler: turns the changes of groups into rollouts.

    Args:
        reconciler: what does the steps.
        services: what is looked at.
        file: where rollouts are recorded.
        note: stores what happens.
    """

    def __init__(self, reconciler: Reconciler, services: Services, file: RolloutFile, note: Note) -> None:
        self._reconciler = reconciler
        self._services = services
        self._file = file
        self._note = note
        self._drives: list[Drive] = []

    @property
    def rollouts(self) -> list[Rollout]:
        """Those under way, and those that have failed."""
        return [drive.rollout for drive in self._drives]

    @property
    def spec(self) -> SupervisorSpec:
        """The newest configuration, as far as it is rolled out; without what is there for that alone."""
        now = self._reconciler.spec
        additional = {name for rollout in self.rollouts for name in rollout.surge}
        return replace(now, services=_without(now.services, additional)) if additional else now

    @property
    def leaving(self) -> Mapping[str, ServiceSpec]:
        """Services that are configured no more and not down yet."""
        return self._reconciler.leaving

    @property
    def is_busy(self) -> bool:
        """Whether anything is under way."""
        return self._reconciler.is_busy or any(drive.is_under_way for drive in self._drives)

    def to_json(self) -> list[dict[str, Any]]:
        """The rollouts as the API shows them."""
        return [rollout.to_json() for rollout in self.rollouts]

    def holds_back(self, name: str) -> bool:
        """Whether a service goes by a former spec."""
        return any(name in each.former and name not in each.released for each in self.rollouts)

    def begin(self, goal: SupervisorSpec, rollouts: list[Rollout]) -> None:
        """Go on with what an earlier supervisor left."""
        self._drives = [self._make_drive(rollout, goal, force=False) for rollout in rollouts]
        self.record()
        for drive in self._drives:
            drive.begin()

    def take(self, new: SupervisorSpec, *, force: bool = False, again: bool = True) -> Applied:
        """Go by another configuration, as `Reconciler.take`; changes of groups are rollouts.

        Args:
            new: the configuration.
            force: see `Reconciler.take`.
            again: whether somebody asks for all of it. Otherwise what has failed is not tried again, and
                what differs beside the rollouts there are is brought there at once.
        """
        given = self._services.given_ports
        plan = compare(self.spec, new, given)
        before = self._drives
        rollouts = self._arrange(new, given) if again else self._kept(new)
        self._drives = [self._go_on(rollout, new, force, again) for rollout in rollouts]
        self.record()
        try:
            applied = self._reconciler.take(stage(new, rollouts), force=force)
        except BlackholeError:
            self._drives = before
            self.record()
            raise
        for drive in before:
            if drive not in self._drives:
                drive.overtake()
        begun = [drive for drive in self._drives if drive not in before]
        return Applied(plan, (*applied.work, *(drive.begin() for drive in begun)))

    def note(self, runner: ServiceRunner) -> None:
        """Take in a service's new status."""
        for drive in self._drives:
            if runner.name in drive.rollout.former or runner.name in drive.rollout.surge:
                drive.look_again()

    def close(self) -> None:
        """Work no more towards anything; what is recorded stays for the next supervisor."""
        for drive in self._drives:
            drive.overtake()
        self._reconciler.close()

    def forget(self) -> None:
        """All services have been ended: nothing is to be gone on with."""
        self._drives = []
        self.record()

    def record(self) -> None:
        """Keep the rollouts as they are. Where that fails it is told, and all goes on."""
        try:
            self._file.save(self.rollouts)
        except StoreError as error:
            _log.error("%s: after a crash the rolling change would not be gone on with", error)

    def move(self, name: str, spec: ServiceSpec, force: bool) -> Applied:
        """Let one service go by another spec. Raises BlackholeError."""
        now = self._reconciler.spec
        if now.services[name] == spec:
            return self._reconciler.run_again(name)
        return self._reconciler.take(replace(now, services={**now.services, name: spec}), force=force)

    def add(self, spec: ServiceSpec) -> Applied:
        """See to it that there is an additional instance, and that it is up. Raises BlackholeError."""
        now = self._reconciler.spec
        if spec.name in now.services:  # an earlier supervisor, or an overtaken rollout, has left it
            return self._reconciler.bring_up(spec.name)
        return self._reconciler.take(replace(now, services={**now.services, spec.name: spec}))

    async def until_gone(self, name: str) -> None:
        """Wait for the end of one that has the name and is configured no more."""
        runner = self._services.runners.get(name)
        if runner is not None and name in self._reconciler.leaving:
            await runner.settle(lambda status: is_down(runner) or None)

    def remove(self, name: str) -> Applied:
        """Stop it, and forget it. Raises BlackholeError."""
        now = self._reconciler.spec
        return self._reconciler.take(replace(now, services=_without(now.services, {name})))

    def finish(self, drive: Drive) -> None:
        """It has got where it leads."""
        if drive.rollout.phase is Phase.FORWARD:
            self._drives = [each for each in self._drives if each is not drive]
        self.record()

    def say(self, service: str, detail: str, failed: bool = False) -> None:
        """Tell what happened to one of the services."""
        (_log.error if failed else _log.info)("%s: %s", service, detail, extra={"service": service})
        self._note(service, detail, failed)

    def _arrange(self, new: SupervisorSpec, given: Mapping[str, int]) -> list[Rollout]:
        """The rollouts that lead to the newest configuration, all of them forward."""
        known = {name: each for each in self._kept(new) for name in each.former}
        groups: dict[str, dict[str, ServiceSpec]] = {}
        for name in new.services:
            if name in known:
                groups.setdefault(known[name].group, {})[name] = known[name].former[name]
        old, taken, moved = self._reconciler.spec.services, places(new), displaced(new.services, given)
        for name in compare(self._reconciler.spec, new, given).names(ChangeKind.RESTART):
            is_free = name not in known and name not in moved
            if is_free and rolls(old[name], new.services[name], taken):
                groups.setdefault(str(new.services[name].instance_of), {})[name] = old[name]
        released = frozenset(name for name in known if name in known[name].released)
        return [
            Rollout(
                group,
                former,
                {name: new.services[name].config_hash for name in former},
                released & former.keys(),
                surge=self._inherit_surge(group, new),
            )
            for group, former in groups.items()
        ]

    def _inherit_surge(self, group: str, new: SupervisorSpec) -> dict[str, ServiceSpec]:
        """The additional ones of the group go on; those that are not up by the newest configuration."""
        runners = self._services.runners
        return {
            name: spec if _is_up(runners.get(name)) else new.surge.get(name, spec)
            for rollout in self.rollouts
            if rollout.group == group
            for name, spec in rollout.surge.items()
            if name not in new.services
        }

    def _kept(self, new: SupervisorSpec) -> list[Rollout]:
        kept = [keep(rollout, new.services) for rollout in self.rollouts]
        return [rollout for rollout in kept if rollout is not None]

    def _go_on(self, rollout: Rollout, goal: SupervisorSpec, force: bool, again: bool) -> Drive:
        for drive in self._drives:
            if drive.rollout == rollout and not again:
                drive.goal = goal
                return drive
        return self._make_drive(rollout, goal, force)

    def _make_drive(self, rollout: Rollout, goal: SupervisorSpec, force: bool) -> Drive:
        return Drive(rollout, goal, self._services, self, force)


def _without(services: Mapping[str, ServiceSpec], names: Set[str]) -> dict[str, ServiceSpec]:
    return {name: spec for name, spec in services.items() if name not in names}


def _is_up(runner: ServiceRunner | None) -> bool:
    return runner is not None and is_up(runner.spec, runner.status)
