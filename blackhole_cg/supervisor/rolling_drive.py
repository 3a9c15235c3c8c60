"""Brings one rollout to its end: replaces whom it may, waits until they are up, goes back if not.

Additional instances come before anybody is taken down, and leave when nothing is left to replace. What one is
to be is recorded before it is started, and that it is to go before it is stopped: whoever reads the record
later has none too many.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, Protocol

from blackhole_cg.core.rollout import Member, Phase, Rollout, bounds_of, is_over, next_turn, surge_of
from blackhole_cg.core.spec import ServiceSpec, SupervisorSpec
from blackhole_cg.core.status import ServiceStatus
from blackhole_cg.core.topology import is_up
from blackhole_cg.core.words import Desired, Health, State
from blackhole_cg.errors import BlackholeError, OperationError
from blackhole_cg.runner.service import ServiceRunner
from blackhole_cg.supervisor.operations import problem_of_start
from blackhole_cg.supervisor.reconcile import Applied
from blackhole_cg.supervisor.services import Services


class Steps(Protocol):
    """What a drive does its steps with."""

    def move(self, name: str, spec: ServiceSpec, force: bool) -> Applied:
        """Let one service go by this spec. Raises BlackholeError."""

    def add(self, spec: ServiceSpec) -> Applied:
        """See to it that there is an additional instance, and that it is up. Raises BlackholeError."""

    async def until_gone(self, name: str) -> None:
        """Wait for the end of one that has the name and is configured no more."""

    def remove(self, name: str) -> Applied:
        """Stop it, and forget it. Raises BlackholeError."""

    def record(self) -> None:
        """Keep the rollout as it is."""

    def finish(self, drive: Drive) -> None:
        """It is over."""

    def say(self, service: str, detail: str, failed: bool = False) -> None:
        """Tell what happened to one of the services."""


class Drive:
    """One rollout on its way.

    Args:
        rollout: where it is.
        goal: the newest configuration.
        services: what is looked at.
        steps: what its steps are done with.
        force: whether limits may be lowered below what is in use.
    """

    def __init__(
        self,
        rollout: Rollout,
        goal: SupervisorSpec,
        services: Services,
        steps: Steps,
        force: bool,
    ) -> None:
        self.rollout = rollout
        self.goal = goal
        self.is_under_way = False
        self._services = services
        self._steps = steps
        self._force = force
        self._overtaken = False
        self._wake = asyncio.Event()
        self._tasks: dict[str, asyncio.Task[str | None]] = {}
        self._moving: set[str] = set()  # of the tasks, those that replace or add
        self._leaving: set[str] = set()  # of the tasks, those that remove
        self._tried: set[str] = set()  # they have had their run in this phase
        self._unproven = set(rollout.released)  # whoever replaced them did not see them through
        self._inherited = set(rollout.surge)  # whoever started them did not see them through either
        self._lost: dict[str, str] = {}  # what could not go back, and why

    def begin(self) -> asyncio.Task[list[str]]:
        """Have it driven; what stood in the way in the end."""
        self.is_under_way = True
        self._task = asyncio.get_running_loop().create_task(self._run())
        return self._task

    def look_again(self) -> None:
        """A member has a new status."""
        self._wake.set()

    def overtake(self) -> None:
        """A newer configuration has come: do nothing more."""
        self._overtaken = True
        self._cancel()
        self._wake.set()

    def _cancel(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        self._tasks, self._moving, self._leaving = {}, set(), set()

    async def _run(self) -> list[str]:
        if self.rollout.phase is Phase.FAILED:
            self.is_under_way = False
            return []
        try:
            while not self._overtaken:
                self._begin_due()
                if not self._tasks and not self._begin_end():
                    break
                await self._wake.wait()
                self._wake.clear()
                self._take_outcomes()
        finally:
            self.is_under_way = False
        if self._overtaken:
            return [f"the rollout of '{self.rollout.group}' was overtaken by a newer configuration"]
        return self._end()

    def _begin_end(self) -> bool:
        """Nothing is under way and nothing is due: whether there is something to do all the same."""
        if self.rollout.phase is Phase.FORWARD and not is_over(self._look()):
            stopped = " and ".join(f"'{name}'" for name in self.rollout.surge) or "nobody"
            self._turn_back(f"too few may be down: {stopped} stands in for them, and is not up")
            self._begin_due()
        if not self._tasks:
            for name in list(self.rollout.surge):
                self._remove(name)
        return bool(self._tasks)

    def _end(self) -> list[str]:
        rollout = self.rollout
        if rollout.phase is Phase.FORWARD:
            self._steps.finish(self)
            return []
        self.rollout = replace(rollout, phase=Phase.FAILED)
        self._steps.finish(self)
        went = "is taken back" if not self._lost else "could not be taken back everywhere"
        return [f"the rollout of '{rollout.group}' {went}: {rollout.reason}", *self._lost.values()]

    # ---- looking ----

    def _look(self) -> list[Member]:
        members = []
        for name in self.rollout.former:
            runner = self._services.runners[name]
            is_other = self._runs_by_another(name)
            is_due = is_other or runner.status.state is State.FAILED or not self.rollout.is_placed(name)
            members.append(
                Member(
                    name,
                    is_wanted=runner.status.desired is Desired.UP and name not in self._lost,
                    is_up=is_up(runner.spec, runner.status),
                    is_stale=name not in self._tried and is_due,
                    is_busy=name in self._tasks,
                )
            )
        return members

    def _look_at_surge(self) -> list[Member]:
        members = []
        for name in {**self.rollout.surge, **dict.fromkeys(self._leaving)}:
            runner = self._services.runners.get(name)  # none where it could not even be added
            members.append(
                Member(
                    name,
                    is_wanted=runner is not None and runner.status.desired is Desired.UP,
                    is_up=runner is not None and is_up(runner.spec, runner.status),
                    is_busy=name in self._tasks,
                )
            )
        return members

    def _runs_by_another(self, name: str) -> bool:
        """Whether a member has a run that is not by the spec it goes by."""
        runner = self._services.runners[name]
        return runner.run is not None and runner.run_hash != runner.spec.config_hash

    def _begin_due(self) -> None:
        """Replace whom it is the turn of, and watch those that are to be up and are not."""
        if self.rollout.phase is Phase.FORWARD:
            for member in self._look():
                if member.name in self._unproven and member.is_wanted and not member.is_stale:
                    self._follow(member.name, self._replace(member.name, None))
        self._unproven = set()
        self._begin_surge()
        group = self.rollout.group
        count = sum(spec.instance_of == group for spec in self.goal.services.values())
        bounds = bounds_of((self.goal.services[name].rollout for name in self.rollout.former), count)
        turn = next_turn(self._look(), self._look_at_surge(), bounds, self.rollout.phase)
        for name in turn.replace:
            self._moving.add(name)
            self._follow(name, self._replace(name, self._place(name)))
        additional = surge_of(group, self.goal)
        for name in [name for name in additional if name not in self.rollout.surge][: turn.add]:
            self._moving.add(name)
            self._add(additional[name])
        for member in self._look():
            is_late = member.is_wanted and not (member.is_up or member.is_stale or member.is_busy)
            if is_late:
                self._follow(member.name, self._replace(member.name, None))

    def _begin_surge(self) -> None:
        """Bring those up that are needed and were begun before; watch, or remove, those that are not up."""
        is_needed = any(member.is_stale for member in self._look())
        for member in self._look_at_surge():
            if member.is_busy:
                continue
            if member.name in self._inherited:
                if is_needed:
                    self._add(self.rollout.surge[member.name])
            elif self.rollout.phase is not Phase.FORWARD and not (member.is_wanted and member.is_up):
                self._remove(member.name)
            elif member.is_wanted and not member.is_up:
                self._follow(member.name, self._replace(member.name, None))

    def _follow(self, name: str, work: Coroutine[Any, Any, str | None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(lambda done: self._wake.set())
        self._tasks[name] = task

    # ---- acting ----

    def _place(self, name: str) -> Applied | str:
        """Let it go by its spec from now on; recorded first. Text where that cannot be."""
        rollout = self.rollout
        is_forward = rollout.phase is Phase.FORWARD
        released = rollout.released | {name} if is_forward else rollout.released - {name}
        self.rollout = replace(rollout, released=released)
        self._steps.record()
        spec = self.goal.services[name]
        if not is_forward:
            spec = replace(rollout.former[name], depends_on=spec.depends_on, enabled=spec.enabled)
        try:
            return self._steps.move(name, spec, self._force)
        except BlackholeError as error:
            return str(error)

    def _add(self, spec: ServiceSpec) -> None:
        self.rollout = replace(self.rollout, surge={**self.rollout.surge, spec.name: spec})
        self._steps.record()
        self._follow(spec.name, self._bring_up(spec))

    async def _bring_up(self, spec: ServiceSpec) -> str | None:
        await self._steps.until_gone(spec.name)
        try:
            added = self._steps.add(spec)
        except BlackholeError as error:
            return str(error)
        return await self._replace(spec.name, added)

    def _remove(self, name: str) -> None:
        left = {other: spec for other, spec in self.rollout.surge.items() if other != name}
        self.rollout = replace(self.rollout, surge=left)
        self._inherited.discard(name)
        self._steps.record()
        if name not in self._services.runners:  # it could not even be added
            return
        self._steps.say(name, f"additional instance of '{self.rollout.group}': to be removed")
        self._leaving.add(name)
        try:
            self._follow(name, _until_settled(self._steps.remove(name)))
        except BlackholeError as error:
            self._leaving.discard(name)
            self._steps.say(name, f"cannot be removed: {error}", failed=True)

    async def _replace(self, name: str, placed: Applied | str | None) -> str | None:
        """Wait until it is up, and stays so; what came instead. Nothing where nobody wants it up."""
        runner = self._services.runners[name]
        problem = placed if isinstance(placed, str) else None
        try:
            if isinstance(placed, Applied):
                await placed.settled()
            else:
                problem = problem or await problem_of_start(runner)
        except OperationError as error:
            problem = str(error)
        if runner.status.desired is not Desired.UP:
            return None
        return problem or await _ended_early(runner)

    # ---- outcomes ----

    def _take_outcomes(self) -> None:
        for name, task in list(self._tasks.items()):
            if not task.done() or self._tasks.get(name) is not task:
                continue
            del self._tasks[name]
            problem = task.result()
            moved = name in self._moving
            self._moving.discard(name)
            if name not in self.rollout.former:
                self._take_outcome_of_surge(name, problem, moved)
                continue
            if problem is not None and self._runs_by_another(name):
                continue  # another wish for it came in between, so it has not even been tried
            self._tried.add(name)
            if problem is not None:
                self._take_problem(name, problem)
            elif moved:
                self._say_progress(name)

    def _take_outcome_of_surge(self, name: str, problem: str | None, moved: bool) -> None:
        rollout = self.rollout
        is_inherited = name in self._inherited
        self._inherited.discard(name)
        if name in self._leaving:
            self._leaving.discard(name)
        elif problem is None:
            if moved and self._services.runners[name].status.desired is Desired.UP:
                self._steps.say(name, f"up: additional instance of '{rollout.group}'")
        elif is_inherited or rollout.phase is not Phase.FORWARD or is_over(self._look()):
            self._remove(name)  # another one takes its place where one is needed
        else:
            self._turn_back(problem, name)

    def _take_problem(self, name: str, problem: str) -> None:
        if self.rollout.phase is Phase.FORWARD:
            self._turn_back(problem, name)
        else:
            self._lost[name] = problem
            self._steps.say(name, f"not as it was before the rollout: {problem}", failed=True)

    def _turn_back(self, problem: str, name: str = "") -> None:
        done, total = len(self.rollout.released), len(self.rollout.former)
        self.rollout = replace(self.rollout, phase=Phase.BACK, reason=problem)
        self._steps.record()
        self._cancel()
        self._tried.clear()
        detail = f"the rollout of '{self.rollout.group}' goes back, {done} of {total} begun: {problem}"
        told_of = name if name in self._services.runners else next(iter(self.rollout.former))
        self._steps.say(told_of, detail, failed=True)

    def _say_progress(self, name: str) -> None:
        rollout, total = self.rollout, len(self.rollout.former)
        if rollout.phase is Phase.FORWARD:
            done = len(rollout.released - self._moving)
            self._steps.say(name, f"replaced: {done} of {total} of '{rollout.group}'")
        else:
            left = len(rollout.released | self._moving)
            self._steps.say(name, f"as before the rollout of '{rollout.group}': {left} of {total} to go")


async def _ended_early(runner: ServiceRunner) -> str | None:
    """What a run that is up says for itself when it does not stay so for as long as it has to."""
    run_id = runner.status.run_id

    def is_over(status: ServiceStatus) -> ServiceStatus | None:
        if status.desired is not Desired.UP:
            return status
        stays = is_up(runner.spec, status) and status.run_id == run_id
        return None if stays else status

    try:
        async with asyncio.timeout(runner.spec.rollout.min_ready_seconds):
            status = await runner.settle(is_over)
    except TimeoutError:
        return None
    if status.desired is not Desired.UP:
        return None
    why = runner.health_watch.last_failure if status.health is Health.UNHEALTHY else status.detail
    return f"'{runner.name}' was up for less than {runner.spec.rollout.min_ready_seconds:g}s: {why}"


async def _until_settled(applied: Applied) -> str | None:
    try:
        await applied.settled()
    except OperationError as error:
        return str(error)
    return None
