"""What a wish for several services means: start in order with rollback, stop in reverse, restart.

Each operation posts wishes to runners and waits until the services have settled. It holds no state of its own
beyond the call, so that a newer operation simply overtakes an older one, service by service.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from blackhole_cg.core.events import KillRequested, RestartRequested, StartRequested, StopRequested
from blackhole_cg.core.machine import ServiceStatus
from blackhole_cg.core.topology import Topology
from blackhole_cg.core.words import LIVE_STATES, Desired, Reason, ServiceType, State
from blackhole_cg.errors import OperationError
from blackhole_cg.runner.service import ServiceRunner
from blackhole_cg.supervisor.gate import Gate

_ON_THE_WAY = frozenset({State.WAITING, State.STARTING, State.RESTARTING})
_UP_OR_ON_THE_WAY = _ON_THE_WAY | {State.RUNNING}
_DOWN = frozenset({State.STOPPED, State.FAILED, State.COMPLETED})


@dataclass(frozen=True, slots=True)
class _Outcome:
    """How one service fared in a start; `problem` is None where it got there."""

    name: str
    problem: str | None = None


@dataclass(slots=True)
class _Start:
    """One start under way: who is still awaited, what this start began, what went wrong."""

    pending: set[str]
    begun: list[str]
    problems: list[str] = field(default_factory=list)
    rolled_back: bool = False
    outcomes: asyncio.Queue[_Outcome] = field(default_factory=asyncio.Queue)


class Operations:
    """Start, stop and restart of sets of services."""

    def __init__(self, runners: Mapping[str, ServiceRunner], topology: Topology, gate: Gate) -> None:
        self._runners = runners
        self._topology = topology
        self._gate = gate

    async def start(self, names: Iterable[str], *, again: bool = True) -> None:
        """Start services and what they need; return when all have got there.

        Args:
            names: the services asked for.
            again: whether to run once more what has completed already.

        Raises:
            OperationError: a required service could not start; what this start began is stopped again.
        """
        asked = set(names)
        members = self._topology.with_requirements(asked)
        begin = [name for name in members if self._must_begin(name, name in asked, again)]
        waits_for = [name for name in members if name in asked or name in begin or self._underway(name)]
        undo = [name for name in begin if self._runners[name].status.state is not State.RESTARTING]
        for name in begin:
            self._runners[name].post(StartRequested())
        await self._await_started(waits_for, undo)

    async def stop(
        self, names: Iterable[str], reason: Reason = Reason.OPERATOR, detail: str = "stop requested"
    ) -> None:
        """Stop services, dependents before what they need, side by side where the graph allows.

        Raises:
            OperationError: a newer wish wants one of them up.
        """
        down = {name: asyncio.Event() for name in names}

        async def stop_one(name: str) -> str | None:
            for dependent in self._topology.dependents(name):
                if dependent in down:
                    await down[dependent].wait()
            runner = self._runners[name]
            runner.post(StopRequested(reason, detail))
            try:
                return await runner.settle(lambda status: _stop_outcome(name, status)) or None
            finally:
                down[name].set()

        problems = await asyncio.gather(*(stop_one(name) for name in down))
        if any(problems):
            raise OperationError("\n".join(problem for problem in problems if problem))

    async def restart(self, names: Sequence[str]) -> None:
        """Stop services in reverse order and start them again in order, staying wanted all the time.

        Raises:
            OperationError: one of them could not start again, or a newer wish wants it down.
        """
        asked = self._topology.sort(names)
        self._gate.hold(asked)
        try:
            await self._restart_to_waiting(asked)
        finally:
            self._gate.release(asked)
        members = self._topology.with_requirements(asked)
        begin = [name for name in members if name not in asked and self._must_begin(name, False, False)]
        for name in begin:
            self._runners[name].post(StartRequested())
        await self._await_started([*begin, *asked], [])

    def kill(self, names: Iterable[str]) -> None:
        """End services at once, in no order: there is no more time."""
        for name in names:
            runner = self._runners[name]
            runner.post(StopRequested(Reason.SHUTDOWN, "killed at shutdown"))
            runner.post(KillRequested())

    async def until_down(self, names: Iterable[str]) -> None:
        """Wait until none of these has a live run."""
        for name in names:
            await self._runners[name].settle(lambda status: status.state not in LIVE_STATES or None)

    # ---- start ----

    def _must_begin(self, name: str, asked: bool, again: bool) -> bool:
        """Whether this start has to start a service; one that is only needed may finish its backoff."""
        state = self._runners[name].status.state
        if state is State.RESTARTING:
            return asked
        if state is State.COMPLETED:
            return asked and again
        return state not in _UP_OR_ON_THE_WAY

    def _underway(self, name: str) -> bool:
        return self._runners[name].status.state in _ON_THE_WAY

    async def _await_started(self, names: Sequence[str], begun: list[str]) -> None:
        start = _Start(set(names), begun)
        tasks = [asyncio.create_task(self._watch_start(start, name)) for name in names]
        try:
            while start.pending:
                await self._take_outcome(start, await start.outcomes.get())
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if start.problems:
            raise OperationError("\n".join(start.problems), rolled_back=start.rolled_back)

    async def _watch_start(self, start: _Start, name: str) -> None:
        runner = self._runners[name]
        start.outcomes.put_nowait(await runner.settle(lambda status: _start_outcome(runner, status)))

    async def _take_outcome(self, start: _Start, outcome: _Outcome) -> None:
        if outcome.name not in start.pending:
            return
        start.pending.discard(outcome.name)
        if outcome.problem is None:
            return
        failed = [outcome]
        failed += [
            _Outcome(name, f"cannot start '{name}': it depends on '{outcome.name}', which did not start")
            for name in self._topology.sort(self._topology.dependents(outcome.name) & start.pending)
        ]
        start.pending -= {each.name for each in failed}
        start.problems += [each.problem for each in failed if each.problem]
        if any(self._runners[each.name].spec.required for each in failed) and start.begun:
            start.pending.clear()
            start.rolled_back = True
            start.problems.append(await self._roll_back(start.begun, outcome))

    async def _roll_back(self, begun: list[str], culprit: _Outcome) -> str:
        """Undo what one start began, in reverse; what ran before it is not touched."""
        wanted = [name for name in begun if self._runners[name].status.desired is Desired.UP]
        begun_others = [name for name in wanted if name != culprit.name]
        await self.stop(wanted, Reason.START_FAILED, f"rolled back: '{culprit.name}' did not start")
        return f"rolled back: {', '.join(reversed(begun_others)) or 'nothing else had begun'}"

    # ---- restart ----

    async def _restart_to_waiting(self, names: Sequence[str]) -> None:
        """Bring every service down to waiting, dependents first; those that were down simply wait."""
        down = {name: asyncio.Event() for name in names}

        async def restart_one(name: str) -> None:
            for dependent in self._topology.dependents(name):
                if dependent in down:
                    await down[dependent].wait()
            runner = self._runners[name]
            runner.post(RestartRequested())
            try:
                await runner.settle(lambda status: status.state not in LIVE_STATES or None)
            finally:
                down[name].set()

        await asyncio.gather(*(restart_one(name) for name in names))


def _start_outcome(runner: ServiceRunner, status: ServiceStatus) -> _Outcome | None:
    name = runner.name
    if status.state is State.COMPLETED:
        return _Outcome(name)
    if status.state is State.RUNNING and runner.spec.type is not ServiceType.ONESHOT:
        return _Outcome(name)
    if status.state is State.FAILED:
        error = status.last_error or status.detail
        prefix = f"cannot start '{name}': "
        return _Outcome(name, error if error.startswith(prefix) else prefix + error)
    if status.desired is Desired.DOWN:
        return _Outcome(name, f"cannot start '{name}': a newer wish stopped it ({status.detail})")
    return None


def _stop_outcome(name: str, status: ServiceStatus) -> str | None:
    """Empty text for "is down"; a problem otherwise; None while neither is known."""
    if status.desired is Desired.UP:
        return f"cannot stop '{name}': a newer wish started it"
    return "" if status.state in _DOWN else None
