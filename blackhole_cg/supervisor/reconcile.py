"""The reconciler: brings what runs to the newest configuration, and keeps trying.

Level-triggered: a configuration is taken in at once, whatever is still under way for earlier ones, and each
service is brought from where it is to where the newest one wants it. A service that is gone from the
configuration and not down yet is *leaving*: it stays known until it is down, and holds up nobody but those
who need its port, its socket or its place.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Set
from dataclasses import dataclass, replace
from typing import Any, Protocol

from blackhole_cg.core.plan import DEFERRED, ChangeKind, Plan, compare
from blackhole_cg.core.ports import displaced
from blackhole_cg.core.restart import backoff_delay_seconds
from blackhole_cg.core.spec import ServiceSpec, SupervisorSpec
from blackhole_cg.core.status import ServiceStatus
from blackhole_cg.core.words import LIVE_STATES, Desired, Reason, RestartWhen, State
from blackhole_cg.errors import OperationError
from blackhole_cg.runner.service import ServiceRunner
from blackhole_cg.supervisor.services import Services

_log = logging.getLogger(__name__)

_GONE = "the configuration was reloaded without it"


class Installer(Protocol):
    """Makes everything around services go by another configuration; starts and stops none."""

    def install(self, effective: SupervisorSpec, new: SupervisorSpec, plan: Plan) -> None:
        """Go by `effective`, which is `new` and what leaves.

        Raises:
            BlackholeError: a new service's FIFOs cannot be made; nothing has changed.
        """

    def limits_changed(self, runner: ServiceRunner) -> None:
        """The limits of its run are others."""

    def drop(self, effective: SupervisorSpec) -> None:
        """Go by `effective`, without some services that have left."""


@dataclass(frozen=True, slots=True)
class Applied:
    """A configuration that holds, and what is under way because of it."""

    plan: Plan
    work: tuple[asyncio.Task[list[str]], ...]

    async def settled(self) -> Plan:
        """Wait until every service that the plan touches is where it should be, and return the plan.

        Raises:
            OperationError: some are not; the configuration holds all the same.
        """
        problems = [problem for task in self.work for problem in await asyncio.shield(task)]
        if problems:
            raise OperationError("\n".join(problems))
        return self.plan


class Reconciler:
    """Holds the newest configuration and works towards it; `jitter` draws from -1.0 to 1.0."""

    def __init__(
        self, spec: SupervisorSpec, services: Services, installer: Installer, jitter: Callable[[], float]
    ) -> None:
        self.spec = spec
        self._services = services
        self._installer = installer
        self._jitter = jitter
        self._leaving: dict[str, ServiceSpec] = {}
        self._disabled: set[str] = set()  # by a newer configuration, and not stopped yet
        self._unlimited: set[str] = set()  # the limits of their runs are not those configured yet
        self._moving: set[str] = set()  # they were given a port that is written for another service
        self._tasks: set[asyncio.Task[list[str]]] = set()
        self._retries: dict[str, asyncio.TimerHandle] = {}
        self._attempts: dict[str, int] = {}
        self._closed = False

    @property
    def leaving(self) -> Mapping[str, ServiceSpec]:
        """Services that are configured no more and not down yet."""
        return self._leaving

    @property
    def is_busy(self) -> bool:
        """Whether any work is under way."""
        return bool(self._tasks)

    def take(self, new: SupervisorSpec, *, force: bool = False) -> Applied:
        """Go by another configuration from now on; the work that follows has begun, and is not waited for.

        Without `force` limits of live runs are not lowered below what is in use.

        Raises:
            BlackholeError: it cannot be gone by; nothing has changed.
        """
        old, before = self.spec, self._services.runners
        operations = self._services.operations  # these know what goes
        plan = compare(old, new, self._services.given_ports)
        kept = {name: getattr(old.runtime, name) for name in DEFERRED}
        new = replace(new, runtime=replace(new.runtime, **kept))
        gone = {name: old.services[name] for name in plan.names(ChangeKind.REMOVED)}
        returning = self._leaving.keys() & new.services.keys()
        leaving = {
            name: spec
            for name, spec in {**self._leaving, **gone}.items()
            if name not in new.services and not is_down(before[name])
        }
        self._services.expect(leaving.keys())
        self._installer.install(effective(new, leaving), new, plan)
        self.spec, self._leaving = new, leaving
        operations.cancel(gone, _GONE)
        for change in plan.changes:
            if change.kind is not ChangeKind.LIVE:  # it is tried now, or not any more
                self._forget_retry(change.service)
        return Applied(plan, tuple(self._begin(old, plan, returning, force)))

    def catch_up(self, names: Iterable[str]) -> None:
        """Runs that were taken over may have the limits of an earlier configuration: change these.

        They may also have a port that is written for another service by now.
        """
        self._unlimited.update(names)
        if self._unlimited:
            self._work(self._change_limits(force=False))
        if moving := self._expect_moves():
            self._work(self._restart(moving, set(), ()))

    def run_again(self, name: str) -> Applied:
        """Give a service another run, if it is wanted up."""
        return Applied(compare(self.spec, self.spec), (self._work(self._restart([name], set(), ())),))

    def bring_up(self, name: str) -> Applied:
        """Start a service, if it is not up."""
        return Applied(compare(self.spec, self.spec), (self._work(self._start([name])),))

    def note(self, runner: ServiceRunner) -> None:
        """Take in a service's new status."""
        name = runner.name
        if name in self._leaving and is_down(runner):
            asyncio.get_running_loop().call_soon(self._sweep)
        elif name in self._leaving and runner.status.state not in LIVE_STATES:
            self._services.operations.cancel([name], _GONE)  # it ended before its stop, and is not to return
        if name in self._attempts and runner.status.state in (State.RUNNING, State.COMPLETED):
            self._attempts.pop(name)

    def close(self) -> None:
        """Work no more towards anything."""
        self._closed = True
        for name in list(self._retries):
            self._forget_retry(name)
        for task in self._tasks:
            task.cancel()

    # ---- the work ----

    def _begin(
        self, old: SupervisorSpec, plan: Plan, returning: Set[str], force: bool
    ) -> Iterable[asyncio.Task[list[str]]]:
        services = self.spec.services
        self._disabled = {
            name
            for name, spec in services.items()
            if not spec.enabled and (name in self._disabled or name in returning or _is_enabled(old, name))
        }
        if self._leaving or self._disabled:
            yield self._work(self._take_down())
        coming = {name for name in self._services.enabled() if not _is_enabled(old, name)}
        changed = [name for name in plan.names(ChangeKind.RESTART) if name not in self._disabled]
        again = [name for name in changed if self._is_wanted(name)]
        again += [name for name in coming if name not in again and self._runs_by_another(name)]
        fresh = [name for name in self._services.enabled() if name in coming and name not in again]
        self._unlimited |= {change.service for change in plan.changes if change.changes_limits}
        self._unlimited &= services.keys()
        if self._unlimited:
            yield self._work(self._change_limits(force))
        self._expect_moves()
        topology = self._services.topology
        for group in topology.groups(again):
            after = [name for name in fresh if not group.isdisjoint(topology.with_requirements([name]))]
            fresh = [name for name in fresh if name not in after]
            yield self._work(self._restart(group, coming, after))
        if fresh:
            yield self._work(self._start(fresh))

    def _expect_moves(self) -> list[str]:
        """Let who has a written port wait until the service that was given it has another; who these are."""
        names = displaced(self.spec.services, self._services.given_ports)
        self._moving = set(names)
        self._services.expect_moves(self._moving)
        return list(names)

    def _move_the_rest(self) -> None:
        """Restart those again that were to move and did not, because a newer wish overtook their restart."""
        runners = self._services.runners
        staying = self._moving & displaced(self.spec.services, self._services.given_ports).keys()
        ending = {name for name in staying if runners[name].status.state is State.STOPPING}
        again = {name for name in staying - ending if self._is_wanted(name)} if not self._closed else set()
        if again | ending != self._moving:  # nobody is to wait for ever
            self._moving = again | ending
            self._services.expect_moves(self._moving)
        if again:
            self._work(self._restart(again, set(), ()))

    def _runs_by_another(self, name: str) -> bool:
        """Whether a service that comes back before its stop began has a run that is not by its new spec."""
        runner, spec = self._services.runners[name], self.spec.services[name]
        differs = runner.run is not None and runner.run_hash != spec.config_hash
        return spec.enabled and self._is_wanted(name) and differs

    async def _take_down(self) -> list[str]:
        """Stop all that leaves or is disabled by now, dependents first."""
        names = {*self._leaving, *self._disabled}
        problems = await _problems_of(self._services.operations.stop(names, Reason.OPERATOR, _GONE))
        self._disabled -= names  # down, or a newer wish came for it
        self._sweep()
        return problems

    async def _change_limits(self, force: bool) -> list[str]:
        problems: list[str] = []
        for name in list(self._unlimited):
            if name not in self.spec.services:
                continue
            runner = self._services.runners[name]
            before = runner.last_limits
            found = await runner.change_limits(force)
            problems += found
            for problem in found:
                _log.error("%s", problem, extra={"service": name})
            if not found:
                self._unlimited.discard(name)
            if runner.last_limits != before:
                self._installer.limits_changed(runner)
        return problems

    async def _restart(self, names: Collection[str], coming: Set[str], after: Iterable[str]) -> list[str]:
        """Restart those that are still wanted up, as those are that come (back), and then start others."""
        services = self.spec.services
        wanted = [
            name
            for name in self._present(names)
            if (name in coming and services[name].enabled)
            or (self._is_wanted(name) and name not in self._disabled)
        ]
        problems = await _problems_of(self._services.operations.restart(wanted)) if wanted else []
        if self._moving.intersection(names):
            self._move_the_rest()
        self._look_again(wanted)
        return problems + await self._start(after)

    def _is_wanted(self, name: str) -> bool:
        return self._services.runners[name].status.desired is Desired.UP

    async def _start(self, names: Iterable[str]) -> list[str]:
        wanted = [name for name in self._present(names) if self.spec.services[name].enabled]
        problems = []
        if wanted:
            problems = await _problems_of(self._services.operations.start(wanted, undo=False))
        self._look_again(wanted)
        return problems

    def _present(self, names: Iterable[str]) -> list[str]:
        """Those of them that the newest configuration has."""
        return [name for name in names if name in self.spec.services]

    def _sweep(self) -> None:
        """Let go of what has left."""
        runners = self._services.runners
        left = [name for name in self._leaving if is_down(runners[name])]
        if left and not self._closed:
            self._leaving = {name: spec for name, spec in self._leaving.items() if name not in left}
            self._services.expect(self._leaving.keys())
            self._installer.drop(effective(self.spec, self._leaving))

    def _work(self, work: Coroutine[Any, Any, list[str]]) -> asyncio.Task[list[str]]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # ---- trying again ----

    def _look_again(self, names: Iterable[str]) -> None:
        """Have those that could not even be started tried again, with the delays of their restart policies.

        A run that ends is the restart policy's own business, which may also give up.
        """
        for name in self._present(names):
            policy = self.spec.services[name].restart
            if self._closed or not self._failed_to_start(name) or policy.when is RestartWhen.NEVER:
                continue
            attempt = self._attempts.get(name, 0)
            self._attempts[name] = attempt + 1
            self._forget_retry(name, keep_count=True)
            delay_seconds = backoff_delay_seconds(policy, attempt, self._jitter())
            loop = asyncio.get_running_loop()
            self._retries[name] = loop.call_later(delay_seconds, self._retry, name)
            _log.info("%s: it could not start; trying again in %.2fs", name, delay_seconds)

    def _retry(self, name: str) -> None:
        self._retries.pop(name, None)
        if name in self.spec.services and self._failed_to_start(name):
            self._work(self._start([name]))

    def _failed_to_start(self, name: str) -> bool:
        return could_not_start(self._services.runners[name].status)

    def _forget_retry(self, name: str, keep_count: bool = False) -> None:
        if handle := self._retries.pop(name, None):
            handle.cancel()
        if not keep_count:
            self._attempts.pop(name, None)


def effective(new: SupervisorSpec, leaving: Mapping[str, ServiceSpec]) -> SupervisorSpec:
    """The configuration with what leaves, which nobody needs, and which needs what is still there."""
    known = {*new.services, *leaving}
    fading = {
        name: replace(
            spec,
            enabled=False,
            depends_on={other: condition for other, condition in spec.depends_on.items() if other in known},
        )
        for name, spec in leaving.items()
    }
    return replace(new, services={**new.services, **fading})


def is_down(runner: ServiceRunner) -> bool:
    """Whether nothing is left of a service, and nothing of it is to come."""
    status = runner.status
    if status.state in LIVE_STATES:
        return False
    return status.state in (State.STOPPED, State.FAILED, State.COMPLETED)


def could_not_start(status: ServiceStatus) -> bool:
    """Whether a service is down because a start that was asked for did not succeed."""
    wanted = status.desired is Desired.UP and status.state is State.FAILED
    return wanted and status.cause is Reason.START_FAILED and status.history.attempt == 0


def _is_enabled(config: SupervisorSpec, name: str) -> bool:
    return name in config.services and config.services[name].enabled


async def _problems_of(operation: Coroutine[Any, Any, None]) -> list[str]:
    try:
        await operation
    except OperationError as error:
        return [str(error)]
    return []
