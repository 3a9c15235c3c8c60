"""What a wish for several services means: start in order with rollback, stop in reverse, restart.

Each operation posts wishes to runners and waits until the services have settled. The newest wish wins,
service by service: an operation claims the services it is about when it begins, and leaves alone those that a
newer one has claimed meanwhile, however late its own turn comes.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeAlias, TypeVar

from blackhole_cg.core.events import KillRequested, RestartRequested, StartRequested, StopRequested
from blackhole_cg.core.status import ServiceStatus
from blackhole_cg.core.topology import Topology, is_up
from blackhole_cg.core.words import LIVE_STATES, Condition, Desired, Reason, ServiceType, State
from blackhole_cg.errors import OperationError
from blackhole_cg.runner.service import ServiceRunner
from blackhole_cg.supervisor.gate import Gate

T = TypeVar("T")
P = ParamSpec("P")

_Operation: TypeAlias = "Callable[Concatenate[Operations, P], Coroutine[Any, Any, None]]"

_ON_THE_WAY = frozenset({State.WAITING, State.STARTING, State.RESTARTING})
_UP_OR_ON_THE_WAY = _ON_THE_WAY | {State.RUNNING}
_DOWN = frozenset({State.STOPPED, State.FAILED, State.COMPLETED})


@dataclass(frozen=True, slots=True)
class _Outcome:
    """How one service fared in a start; `problem` is None where it got there."""

    name: str
    problem: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Claim:
    """What one operation wants of the services it claimed; it is its identity that counts."""

    desired: Desired


@dataclass(slots=True)
class _Start:
    """One start under way: who is still awaited, what this start began, what went wrong."""

    claim: _Claim
    pending: set[str]
    begun: list[str]
    problems: list[str] = field(default_factory=list)
    rolled_back: bool = False
    replaces: bool = False  # runs that were ended for it: a first attempt that fails is told, and made up for
    outcomes: asyncio.Queue[_Outcome] = field(default_factory=asyncio.Queue)


def _counted(operation: _Operation[P]) -> _Operation[P]:
    """The same, and known to be under way as long as it is."""

    @wraps(operation)
    async def counted(self: Operations, /, *arguments: P.args, **options: P.kwargs) -> None:
        self.under_way[operation.__name__] += 1
        try:
            await operation(self, *arguments, **options)
        finally:
            self.under_way[operation.__name__] -= 1

    return counted


class Operations:
    """Start, stop and restart of sets of services of one configuration.

    `is_alone_to_fail` says of a service that did not start that nothing is undone for it, required or not.
    """

    def __init__(
        self,
        runners: Mapping[str, ServiceRunner],
        topology: Topology,
        gate: Gate,
        is_alone_to_fail: Callable[[str], bool] = lambda name: False,
    ) -> None:
        self._runners = runners
        self._topology = topology
        self._gate = gate
        self._is_alone_to_fail = is_alone_to_fail
        self._claims: dict[str, _Claim] = {}
        self.under_way: Counter[str] = Counter()  # how many of each kind

    def succeeded_by(self, runners: Mapping[str, ServiceRunner], topology: Topology) -> Operations:
        """The operations of the next configuration; a claim made there overtakes those under way here."""
        successor = Operations(runners, topology, self._gate, self._is_alone_to_fail)
        successor._claims = self._claims
        successor.under_way = self.under_way
        return successor

    @_counted
    async def start(self, names: Iterable[str], *, again: bool = True, undo: bool = True) -> None:
        """Start services and what they need; return when all have got there.

        Args:
            names: the services asked for.
            again: whether to run once more what has completed already.
            undo: whether to stop again what this start began, when a required service cannot start.

        Raises:
            OperationError: a required service could not start; what this start began is stopped again.
        """
        asked = set(names)
        members = self._topology.with_requirements(asked)
        begin = [name for name in members if self._must_begin(name, name in asked, again)]
        waits_for = [
            name for name in members if name in asked or name in begin or self._underway(name, members)
        ]
        fresh = [name for name in begin if self._runners[name].status.state is not State.RESTARTING]
        claim = self._claim(Desired.UP, {*begin, *asked})
        for name in begin:
            self._runners[name].post(StartRequested())
        await self._await_started(_Start(claim, set(waits_for), fresh if undo else []))

    def dependents_of(self, names: Iterable[str]) -> dict[str, list[str]]:
        """Of these services each that is up, with the others that are up and need it, in start order."""
        names = set(names)
        found: dict[str, list[str]] = {}
        for name in self._topology.sort(names):
            needed_by = self._topology.dependents(name) - names
            up = [each for each in self._topology.sort(needed_by) if self._is_up_or_coming(each)]
            if up and self._is_up_or_coming(name):
                found[name] = up
        return found

    @_counted
    async def stop(
        self, names: Iterable[str], reason: Reason = Reason.OPERATOR, detail: str = "stop requested"
    ) -> None:
        """Stop services, dependents before what they need, side by side where the graph allows.

        Raises:
            OperationError: a newer wish wants one of them up.
        """
        names = list(names)
        problems = await self._stop(names, self._claim(Desired.DOWN, names), StopRequested(reason, detail))
        if problems:
            raise OperationError("\n".join(problems))

    @_counted
    async def restart(self, names: Sequence[str]) -> None:
        """Stop services in reverse order and start them again in order, staying wanted all the time.

        Raises:
            OperationError: one of them could not start again, or a newer wish wants it down.
        """
        asked = self._topology.sort(names)
        members = self._topology.with_requirements(asked)
        begin = [name for name in members if name not in asked and self._must_begin(name, False, False)]
        claim = self._claim(Desired.UP, {*asked, *begin})
        self._gate.hold(asked)
        try:
            overtaken = await self._restart_to_waiting(asked, claim)
        finally:
            self._gate.release(asked)
        if overtaken:
            raise OperationError(
                "\n".join(f"cannot restart '{name}': a newer wish came" for name in overtaken)
            )
        for name in begin:
            if self._owns(claim, name):
                self._runners[name].post(StartRequested())
        await self._await_started(_Start(claim, {*begin, *asked}, [], replaces=True))

    def cancel(self, names: Iterable[str], detail: str) -> None:
        """Want these down, and end at once what is no run yet: there is no order to keep."""
        names = list(names)
        self._claim(Desired.DOWN, names)
        for name in names:
            if self._runners[name].status.state not in LIVE_STATES:
                self._runners[name].post(StopRequested(Reason.OPERATOR, detail))

    def kill(self, names: Iterable[str]) -> None:
        """End services at once, in no order: there is no more time."""
        names = list(names)
        self._claim(Desired.DOWN, names)
        for name in names:
            runner = self._runners[name]
            runner.post(StopRequested(Reason.SHUTDOWN, "the supervisor ends, without waiting"))
            runner.post(KillRequested())

    async def until_down(self, names: Iterable[str]) -> None:
        """Wait until none of these has a live run."""
        for name in names:
            await self._runners[name].settle(lambda status: status.state not in LIVE_STATES or None)

    def _claim(self, desired: Desired, names: Iterable[str]) -> _Claim:
        claim = _Claim(desired)
        self._claims.update(dict.fromkeys(names, claim))
        return claim

    def _owns(self, claim: _Claim, name: str) -> bool:
        return self._claims.get(name) is claim

    # ---- stop ----

    async def _stop(self, names: Sequence[str], claim: _Claim, wish: StopRequested) -> list[str]:
        """Stop what `claim` still owns, dependents first, and wait for all; what stood in the way."""

        async def stop_one(name: str) -> str:
            if self._owns(claim, name):
                self._runners[name].post(wish)
            return await self._runners[name].settle(lambda status: self._stop_outcome(name, status))

        outcomes = await self._dependents_first(names, stop_one)
        return [outcome for outcome in outcomes if outcome]

    def _stop_outcome(self, name: str, status: ServiceStatus) -> str | None:
        """Empty text for "is down"; a problem otherwise; None while neither is known."""
        if status.desired is Desired.UP and self._claims[name].desired is Desired.UP:
            return f"cannot stop '{name}': a newer wish started it"
        return "" if status.state in _DOWN else None

    async def _dependents_first(
        self, names: Sequence[str], act: Callable[[str], Coroutine[Any, Any, T]]
    ) -> list[T]:
        """Act on each, once `act` has returned for those of the others that depend on it."""
        done = {name: asyncio.Event() for name in names}

        async def act_in_turn(name: str) -> T:
            for dependent in self._topology.dependents(name):
                if dependent in done:
                    await done[dependent].wait()
            try:
                return await act(name)
            finally:
                done[name].set()

        return await asyncio.gather(*(act_in_turn(name) for name in names))

    # ---- start ----

    def _is_up_or_coming(self, name: str) -> bool:
        return self._runners[name].status.state in _UP_OR_ON_THE_WAY

    def _must_begin(self, name: str, asked: bool, again: bool) -> bool:
        """Whether this start has to start a service; one that is only needed may finish its backoff."""
        state = self._runners[name].status.state
        if state is State.RESTARTING:
            return asked
        if state is State.COMPLETED:
            return asked and again
        return state not in _UP_OR_ON_THE_WAY

    def _underway(self, name: str, members: Iterable[str]) -> bool:
        """Whether one of the members waits for a service that is not there yet."""
        runner = self._runners[name]
        if runner.status.state in _ON_THE_WAY:
            return True
        conditions = {self._runners[member].spec.depends_on.get(name) for member in members}
        return Condition.HEALTHY in conditions and not is_up(runner.spec, runner.status)

    async def _await_started(self, start: _Start) -> None:
        watch = [self._watch_start(start, name) for name in self._topology.sort(start.pending)]
        tasks = [asyncio.create_task(each) for each in watch]
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
        problem = await problem_of_start(self._runners[name], start.replaces)
        start.outcomes.put_nowait(_Outcome(name, problem))

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
        if self._is_alone_to_fail(outcome.name):
            return
        if any(self._runners[each.name].spec.required for each in failed) and start.begun:
            start.pending.clear()
            start.rolled_back = True
            start.problems.append(await self._roll_back(start, outcome))

    async def _roll_back(self, start: _Start, culprit: _Outcome) -> str:
        """Undo what one start began, in reverse; what ran before it or is wanted anew is not touched."""
        mine = [name for name in start.begun if self._owns(start.claim, name)]
        wanted = [name for name in mine if self._runners[name].status.desired is Desired.UP]
        detail = f"rolled back: '{culprit.name}' did not start"
        await self._stop(wanted, start.claim, StopRequested(Reason.START_FAILED, detail))
        others = [name for name in reversed(wanted) if name != culprit.name]
        return f"rolled back: {', '.join(others) or 'nothing else had begun'}"

    # ---- restart ----

    async def _restart_to_waiting(self, names: Sequence[str], claim: _Claim) -> list[str]:
        """Bring services down to waiting, dependents first; those that a newer wish took meanwhile."""

        async def restart_one(name: str) -> str | None:
            if not self._owns(claim, name):
                return name
            self._runners[name].post(RestartRequested())
            await self._runners[name].settle(lambda status: status.state not in LIVE_STATES or None)
            return None

        overtaken = await self._dependents_first(names, restart_one)
        return [name for name in overtaken if name]


async def problem_of_start(runner: ServiceRunner, replaces: bool = False) -> str | None:
    """Wait until a service is where a start is to bring it; what has kept it from there.

    With `replaces` that is told of the first attempt, which the restart policy makes up for.
    """
    await runner.settle(lambda status: status.state is not State.WAITING or None)
    bound_seconds = runner.spec.start_timeout_seconds if _tells_when_it_is_up(runner) else None
    try:
        return (await _settle_start(runner, bound_seconds, replaces)).problem
    except TimeoutError:
        return f"cannot start '{runner.name}': {_lateness(runner)}"


def _start_outcome(runner: ServiceRunner, status: ServiceStatus, replaces: bool) -> _Outcome | None:
    name = runner.name
    if status.state is State.COMPLETED:
        return _Outcome(name)
    if is_up(runner.spec, status):
        return _Outcome(name)
    is_put_off = replaces and status.replaces and status.state is State.RESTARTING
    if status.state is State.FAILED or is_put_off:
        error = status.last_error or status.detail
        prefix = f"cannot start '{name}': "
        return _Outcome(name, error if error.startswith(prefix) else prefix + error)
    if status.desired is Desired.DOWN:
        return _Outcome(name, f"cannot start '{name}': a newer wish stopped it ({status.detail})")
    return None


async def _settle_start(
    runner: ServiceRunner, bound_seconds: float | None, replaces: bool = False
) -> _Outcome:
    """How the start of one service came out. Raises TimeoutError when it takes longer than it may.

    The bound is moved for as long as the service asks for more time.
    """
    loop = asyncio.get_running_loop()
    deadline = None if bound_seconds is None else loop.time() + bound_seconds
    while True:
        try:
            async with asyncio.timeout_at(deadline):
                return await runner.settle(lambda status: _start_outcome(runner, status, replaces))
        except TimeoutError:
            if runner.extended_until <= loop.time():
                raise
            deadline = runner.extended_until


def _tells_when_it_is_up(runner: ServiceRunner) -> bool:
    return bool(runner.spec.probes) or runner.spec.type is ServiceType.NOTIFY


def _lateness(runner: ServiceRunner) -> str:
    goal = "healthy" if runner.status.state is State.RUNNING else "up"
    said = runner.health_watch.last_failure or runner.notify_watch.status_text
    return f"not {goal} within {runner.spec.start_timeout_seconds:g}s" + (f" ({said})" if said else "")
