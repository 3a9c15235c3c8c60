"""Going by another configuration: what a reload does around the services, and in which order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from blackhole_cg.core.difference import describe
from blackhole_cg.core.facts import LimitProblem
from blackhole_cg.core.plan import ChangeKind, Plan, compare
from blackhole_cg.core.rollout import foresee_surge
from blackhole_cg.core.spec import ServiceSpec, SupervisorSpec
from blackhole_cg.core.status import ServiceStatus
from blackhole_cg.core.tally import Tally
from blackhole_cg.core.words import Isolation
from blackhole_cg.errors import BlackholeError, IsolationError, OperationError, StoreError
from blackhole_cg.observe.config_history import Entry
from blackhole_cg.observe.event_store import EventStore
from blackhole_cg.observe.state_store import StateStore
from blackhole_cg.runner.service import ServiceRunner
from blackhole_cg.supervisor.applied import AppliedConfigurations, Source, Sources
from blackhole_cg.supervisor.config_watch import ConfigWatch
from blackhole_cg.supervisor.notes import Notes
from blackhole_cg.supervisor.outputs import Outputs
from blackhole_cg.supervisor.reconcile import Applied
from blackhole_cg.supervisor.rolling import Rolling
from blackhole_cg.supervisor.services import Services
from blackhole_cg.supervisor.watching import Watching

_SAID = {
    ChangeKind.ADDED: "added by a reload",
    ChangeKind.RESTART: "changed by a reload: needs a new run",
    ChangeKind.LIVE: "changed by a reload: holds at once",
}


class Limits(Protocol):
    """What the machine says of limits."""

    def problems(self, spec: ServiceSpec) -> list[LimitProblem]:
        """Each limit of `spec` that cannot be enforced here."""


def check_isolation(
    limits: Limits, services: Iterable[ServiceSpec], isolation: Isolation
) -> list[LimitProblem]:
    """The limits that cannot be enforced. Raises IsolationError where that is refused."""
    problems = [each for service in services for each in limits.problems(service)]
    if problems and isolation is Isolation.REQUIRED:
        raise IsolationError([str(problem) for problem in problems])
    return problems


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything of a supervisor that depends on its configuration."""

    services: Services
    outputs: Outputs
    events: EventStore
    notes: Notes
    states: StateStore
    watching: Watching
    tally: Tally

    def install(self, effective: SupervisorSpec, new: SupervisorSpec, plan: Plan) -> None:
        """See `Installer`."""
        before = self.services.runners
        fresh = [name for name in plan.names(ChangeKind.ADDED) if name not in before]
        try:
            gone = self.services.reconfigure(effective)
        except BlackholeError:
            self.outputs.discard(fresh)
            raise
        with suppress(StoreError):  # told already; the numbers begin anew
            newest = self.events.newest_run_ids() if fresh else {}
            for name in fresh:
                self.services.runners[name].continue_from(ServiceStatus(run_id=newest.get(name, 0)))
        for change in plan.changes:
            if change.kind is not ChangeKind.REMOVED:
                self.outputs.pumps[change.service].log_file.set_policy(new.services[change.service].logs)
                keys = f" ({', '.join(change.keys)})" if change.keys else ""
                self.notes.config(change.service, f"{_SAID[change.kind]}{keys}")
        self._forget(gone)
        self.watching.reconfigure(
            self.services.runners[change.service]
            for change in plan.changes
            if change.kind is ChangeKind.LIVE and "monitor" in change.keys
        )
        if "log_level" in plan.runtime:
            logging.getLogger("blackhole_cg").setLevel(new.runtime.log_level.upper())

    def limits_changed(self, runner: ServiceRunner) -> None:
        """See `Installer`: what is compared with limits goes by the new ones."""
        self.watching.reconfigure([runner])

    def drop(self, effective: SupervisorSpec) -> None:
        """See `Installer`."""
        self._forget(self.services.reconfigure(effective))

    def _forget(self, gone: Iterable[ServiceRunner]) -> None:
        names = [runner.name for runner in gone]
        self.outputs.discard(names)
        for name in names:
            self.states.forget(name)
            self.watching.forget(name)
            self.tally.forget(name)


class Configuration:
    """The configuration of a running supervisor: takes in others, one after the other.

    Args:
        parts: what goes by it.
        rolling: what works towards it.
        limits: tells what can be enforced.
        sources: where others come from.
        history: keeps those that were applied.
    """

    def __init__(
        self,
        parts: Parts,
        rolling: Rolling,
        limits: Limits,
        sources: Sources,
        history: AppliedConfigurations,
    ) -> None:
        self._parts = parts
        self._rolling = rolling
        self._limits = limits
        self._sources = sources
        self._history = history
        self._watch = ConfigWatch(self.reload)
        self._watch.follow(self.spec)
        self._reading = asyncio.Lock()
        self.on_taken: Callable[[SupervisorSpec], None] = lambda new: None  # called after every `take`
        self.closed = False  # no other configuration is taken in any more

    @property
    def spec(self) -> SupervisorSpec:
        """The newest one."""
        return self._rolling.spec

    @property
    def is_under_way(self) -> bool:
        """Whether one is being read, or services are on their way to the newest one."""
        return self._reading.locked() or self._rolling.is_busy

    async def reload(self, config: SupervisorSpec | None = None, *, force: bool = False) -> Plan:
        """Go by another configuration, or by the file as it is now; once all is done, the difference.

        Without `force` limits of live runs are not lowered below what is in use.

        Raises:
            ConfigError: the file is wrong; nothing was changed.
            IsolationError: a limit cannot be enforced, and that is refused; nothing was changed.
            OperationError: a service did not get where the new configuration, which holds, wants it.
        """
        async with self._reading:
            new = config or await self._sources.again()
            applied = self._take_and_keep(new, "reload", None, force)
            if config is None:
                self._watch.follow(new)
        return await self._settle(applied)

    async def apply(self, path: str, *, force: bool = False) -> Plan:
        """Go by the configuration in this file, until the next reload. Raises as `reload` does."""
        async with self._reading:
            new = await self._sources.read(Path(path))
            applied = self._take_and_keep(new, "apply", path, force)
        return await self._settle(applied)

    async def roll_back(self, number: int | None, *, force: bool = False) -> Plan:
        """Return to a configuration from before, until the next reload. Raises as `reload` does."""
        async with self._reading:
            number, former = self._history.before(number)
            applied = self._take_and_keep(former, f"rollback to {number}", None, force)
        return await self._settle(applied)

    async def preview(self, path: str) -> dict[str, Any]:
        """What to apply the configuration in this file would change. Raises ConfigError, IsolationError."""
        new = await self._sources.read(Path(path))
        self._check(new)
        plan = compare(self.spec, new, self._parts.services.given_ports)
        return {**describe(self.spec, new, plan), "surge": foresee_surge(self.spec, new, plan)}

    def applied(self) -> list[Entry]:
        """The configurations that were applied last, oldest first."""
        return self._history.entries()

    async def renew(self, read: Source) -> Applied:
        """Go by what is read, once no other reading is under way; a later reading is a later configuration.

        Raises what reading and `take` raise; nothing was changed then.
        """
        async with self._reading:
            return self.take(await read(), again=False)

    def take(self, new: SupervisorSpec, *, force: bool = False, again: bool = True) -> Applied:
        """Go by another configuration from now on; returns while the work for it is under way.

        `again` tries rolling changes again that have failed.

        Raises:
            IsolationError: a limit cannot be enforced, and that is refused; nothing was changed.
            OperationError: the supervisor ends.
            BlackholeError: it cannot be gone by; nothing was changed.
        """
        self._refuse_when_closed()
        problems = self._check(new)
        applied = self._rolling.take(new, force=force, again=again)
        self._parts.notes.limits(problems)
        self.on_taken(new)
        return applied

    def rollouts(self) -> list[dict[str, Any]]:
        """Rolling changes that are under way or have failed."""
        return self._rolling.to_json()

    def refuse_leaving(self, names: Iterable[str]) -> None:
        """Raise OperationError where one of these is on its way out: nobody can want it up any more."""
        for name in names:
            if name in self._rolling.leaving:
                raise OperationError(
                    f"'{name}' is being removed: the configuration does not have it any more"
                )

    def close(self) -> None:
        """Work no more towards any."""
        self._watch.close()
        self._rolling.close()

    def _check(self, new: SupervisorSpec) -> list[LimitProblem]:
        old = self.spec.services
        changed = [spec for name, spec in new.services.items() if old.get(name) != spec]
        return check_isolation(self._limits, changed, self.spec.runtime.isolation)

    def _take_and_keep(self, new: SupervisorSpec, how: str, source: str | None, force: bool) -> Applied:
        """Kept before it is acted on, but only if it is acted on."""
        self._refuse_when_closed()
        self._check(new)
        self._history.keep(new, how, source)
        return self.take(new, force=force)

    async def _settle(self, applied: Applied) -> Plan:
        try:
            return await applied.settled()
        except OperationError:
            self._refuse_when_closed()
            raise

    def _refuse_when_closed(self) -> None:
        if self.closed:
            raise OperationError("the supervisor is shutting down")
