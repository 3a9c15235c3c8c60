"""Brings one rollout to its end: replaces whom it may, waits until they are up, goes back if not."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from dataclasses import replace
from typing import Any, Protocol

from blackhole_cg.core.rollout import Member, Phase, Rollout, next_to_replace
from blackhole_cg.core.spec import ServiceSpec
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
        goal: the specs of the newest configuration.
        services: what is looked at.
        steps: what its steps are done with.
        force: whether limits may be lowered below what is in use.
    """

    def __init__(
        self,
        rollout: Rollout,
        goal: Mapping[str, ServiceSpec],
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
        self._moving: set[str] = set()  # of the tasks, those that replace
        self._tried: set[str] = set()  # they have had their run in this phase
        self._unproven = set(rollout.released)  # whoever replaced them did not see them through
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
        self._tasks, self._moving = {}, set()

    async def _run(self) -> list[str]:
        if self.rollout.phase is Phase.FAILED:
            self.is_under_way = False
            return []
        try:
            while not self._overtaken:
                self._begin_due()
                if not self._tasks:
                    break
                await self._wake.wait()
                self._wake.clear()
                self._take_outcomes()
        finally:
            self.is_under_way = False
        if self._overtaken:
            return [f"the rollout of '{self.rollout.group}' was overtaken by a newer configuration"]
        return self._end()

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
        bound = min(self.goal[name].rollout.max_unavailable for name in self.rollout.former)
        for name in next_to_replace(self._look(), bound):
            self._moving.add(name)
            self._follow(name, self._replace(name, self._place(name)))
        for member in self._look():
            is_late = member.is_wanted and not (member.is_up or member.is_stale or member.is_busy)
            if is_late:
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
        spec = self.goal[name]
        if not is_forward:
            spec = replace(rollout.former[name], depends_on=spec.depends_on, enabled=spec.enabled)
        try:
            return self._steps.move(name, spec, self._force)
        except BlackholeError as error:
            return str(error)

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
            if problem is not None and self._runs_by_another(name):
                continue  # another wish for it came in between, so it has not even been tried
            self._tried.add(name)
            if problem is not None:
                self._take_problem(name, problem)
            elif moved:
                self._say_progress(name)

    def _take_problem(self, name: str, problem: str) -> None:
        if self.rollout.phase is Phase.FORWARD:
            self._turn_back(name, problem)
        else:
            self._lost[name] = problem
            self._steps.say(name, f"not as it was before the rollout: {problem}", failed=True)

    def _turn_back(self, name: str, problem: str) -> None:
        done, total = len(self.rollout.released), len(self.rollout.former)
        self.rollout = replace(self.rollout, phase=Phase.BACK, reason=problem)
        self._steps.record()
        self._cancel()
        self._tried.clear()
        detail = f"the rollout of '{self.rollout.group}' goes back, {done} of {total} begun: {problem}"
        self._steps.say(name, detail, failed=True)

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
