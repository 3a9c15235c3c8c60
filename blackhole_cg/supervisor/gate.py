"""Decides when a waiting service may start: its dependencies, and room for one more.

Releases one service in each turn of the loop, so that a start of hundreds leaves the loop free for exits,
output and questions. Level-triggered: whatever let a dependency reach its condition, its dependents are
looked at again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Set

from blackhole_cg.core.admission import find_shortage, promised_bytes
from blackhole_cg.core.events import DependenciesMet, StartRefused
from blackhole_cg.core.ports import written_ports
from blackhole_cg.core.spec import RuntimeSpec, ServiceSpec
from blackhole_cg.core.topology import Topology, is_met
from blackhole_cg.core.words import AUTO, LIVE_STATES, Overcommit, State
from blackhole_cg.runner.service import ServiceRunner


class Gate:
    """Stands between "waiting" and "starting".

    Args:
        runners: every service, by name.
        topology: who needs whom.
        runtime: how many services may be live at once, and what their memory limits may add up to.
        memory_bytes: the memory there is; None when it is not known.
        warn: told (service, text) of a start that is allowed all the same.
    """

    def __init__(
        self,
        runners: Mapping[str, ServiceRunner],
        topology: Topology,
        runtime: RuntimeSpec,
        memory_bytes: int | None,
        warn: Callable[[str, str], None],
    ) -> None:
        self._memory_bytes = memory_bytes
        self._warn = warn
        self._live: dict[str, int] = {}  # name -> the bytes its limit promises it
        self._promised_bytes = 0
        self._held: set[str] = set()
        self._listening: dict[str, frozenset[int | str]] = {}  # name -> where its run listens
        self._given: dict[str, int] = {}  # name -> the port that was found for its run
        self._leaving: Set[str] = frozenset()
        self._moving: Set[str] = frozenset()
        self._queue: deque[str] = deque()
        self._scheduled = False
        self.reconfigure(runners, topology, runtime)

    def reconfigure(
        self, runners: Mapping[str, ServiceRunner], topology: Topology, runtime: RuntimeSpec
    ) -> None:
        """Go by another configuration from now on; what waits is looked at again by it."""
        self._runners = runners
        self._topology = topology
        self._runtime = runtime
        for name in self._live:
            if name in runners:  # its limit may be another now
                self._promised_bytes -= self._live[name]
                self._live[name] = promised_bytes(runners[name].spec)
                self._promised_bytes += self._live[name]
        self._ask_all()

    def _ask_all(self) -> None:
        for name, runner in self._runners.items():
            if runner.status.state is State.WAITING:
                self.ask(name)

    def ask(self, name: str) -> None:
        """Look at a waiting service soon."""
        self._queue.append(name)
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._look)

    def note(self, runner: ServiceRunner) -> None:
        """Take in a service's new status, and look at those it may have set free."""
        state = runner.status.state
        if state in LIVE_STATES:
            self._admit(runner)
        else:
            self._promised_bytes -= self._live.pop(runner.name, 0)
            self._given.pop(runner.name, None)
            if self._listening.pop(runner.name, None) is not None:
                self._ask_all()
        if state in (State.RUNNING, State.COMPLETED):
            for dependent in self._topology.required_by.get(runner.name, ()):
                if self._runners[dependent].status.state is State.WAITING:
                    self.ask(dependent)

    def expect(self, leaving: Set[str]) -> None:
        """These are about to end and stay down: until then whoever needs their place is not refused."""
        self._leaving = leaving

    def expect_moves(self, names: Set[str]) -> None:
        """The runs of these are about to end, and the next ones get other ports: who needs theirs waits."""
        self._moving = names
        self._ask_all()

    def hold(self, names: Iterable[str]) -> None:
        """Let these wait, whatever their dependencies, until they are released."""
        self._held.update(names)

    def release(self, names: Iterable[str]) -> None:
        """End a hold."""
        names = list(names)
        self._held.difference_update(names)
        for name in self._topology.sort(names):
            self.ask(name)

    def unmet(self, name: str) -> list[str]:
        """The dependencies that have not reached their condition, in file order."""
        return [
            dependency
            for dependency, condition in self._runners[name].spec.depends_on.items()
            if not is_met(condition, self._runners[dependency].spec, self._runners[dependency].status)
        ]

    def _look(self) -> None:
        name = self._queue.popleft()
        self._scheduled = bool(self._queue)
        if self._scheduled:
            asyncio.get_running_loop().call_soon(self._look)
        runner = self._runners.get(name)
        if runner is None or runner.status.state is not State.WAITING:
            return  # another configuration or a newer wish came first
        if name in self._held or self.unmet(name):
            return
        if self._is_taken(runner):
            return
        refusal = self._refusal(runner)
        if refusal is not None and not self._leaving.isdisjoint(self._live):
            return
        runner.post(
            DependenciesMet() if refusal is None else StartRefused(f"cannot start '{name}': {refusal}")
        )

    def _is_taken(self, runner: ServiceRunner) -> bool:
        """Whether another service, which is to give it up, still listens where this one is to."""
        wanted, ports = _endpoints(runner.spec), written_ports(runner.spec)
        return any(
            self._gives_up(name, wanted & held)
            for name, held in self._listening.items()
            if name != runner.name
        ) or any(
            port in ports and (name in self._moving or name in self._leaving)
            for name, port in self._given.items()
        )

    def _gives_up(self, name: str, places: frozenset[int | str]) -> bool:
        """Whether one of these places is not that of the service any more once its run has ended."""
        kept = frozenset() if name in self._leaving else _endpoints(self._runners[name].spec)
        return not places <= kept

    def _admit(self, runner: ServiceRunner) -> None:
        if runner.name not in self._live:
            self._listening[runner.name] = _endpoints(runner.spec)
            if runner.spec.tcp_port == AUTO and runner.tcp_port is not None:
                self._given[runner.name] = runner.tcp_port
            self._live[runner.name] = promised_bytes(runner.spec)
            self._promised_bytes += self._live[runner.name]

    def _refusal(self, runner: ServiceRunner) -> str | None:
        """Why there is no room for one more."""
        most = self._runtime.max_processes
        if len(self._live) >= most:
            return f"{len(self._live)} services are running and runtime.orchestrator.max_processes is {most}"
        policy = self._runtime.memory_overcommit
        if policy is Overcommit.ALLOW:
            return None
        shortage = find_shortage(self._promised_bytes, runner.spec, self._memory_bytes)
        if shortage is None or policy is Overcommit.REFUSE:
            return shortage
        self._warn(runner.name, shortage)
        return None


def _endpoints(spec: ServiceSpec) -> frozenset[int | str]:
    """Where a service listens: its port and its socket, as far as they are configured.

    A port that is found for each run is kept apart where it is found.
    """
    return frozenset(each for each in (spec.tcp_port, spec.unix_socket) if each is not None and each != AUTO)
