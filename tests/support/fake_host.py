"""The one fake of the seam to the kernel: runs that end when the test says so."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from blackhole_cg.core.facts import ExitStatus, HostFacts, LimitProblem, LimitState, Usage
from blackhole_cg.core.monitor_spec import Action
from blackhole_cg.core.ports import PortHolder
from blackhole_cg.core.record import RunRecord
from blackhole_cg.core.spec import ResourceLimits, ServiceSpec
from blackhole_cg.core.words import Stream
from blackhole_cg.errors import SpawnError
from tests.support.fake_commands import FakeCommands

FACTS = HostFacts("boot", "6.1", 4096, "/cg", "/cg/root", None, {"cpu": None, "memory": None, "pids": None})


def _future() -> asyncio.Future[None]:
    return asyncio.get_running_loop().create_future()


@dataclass
class Behaviour:
    """What the runs of a service do. Seconds of None: never by themselves."""

    exec_seconds: float = 0.0
    exit_after_seconds: float | None = None
    exit_status: ExitStatus = ExitStatus(code=0)  # noqa: RUF009  (frozen)
    stop_seconds: float | None = 0.0  # after the stop signal; None ignores it
    leftovers: bool = False  # a grandchild outlives the main process until it is killed
    spawn_error: str | None = None  # fails between fork and exec
    launch_error: str | None = None  # fails before the fork
    limit_problem: str | None = None  # why limits cannot be changed without force


@dataclass(eq=False)
class FakeRun:
    """One fake run."""

    host: FakeHost
    spec: ServiceSpec
    run_id: int
    behaviour: Behaviour
    pid: int
    started_ticks: int = 1
    limits: Mapping[str, LimitState] = field(default_factory=dict)
    signals: list[int] = field(default_factory=list)
    adjusted: list[Action] = field(default_factory=list)
    changed_limits: list[ResourceLimits] = field(default_factory=list)
    thawed: int = 0
    killed: bool = False
    closed: bool = False
    began: bool = False
    members: set[int] = field(default_factory=set)  # its processes beside the main one

    def __post_init__(self) -> None:
        self.cgroup = f"/cg/{self.spec.name}"
        self.exit_status: ExitStatus | None = None
        self._exited, self._emptied = _future(), _future()

    @property
    def live(self) -> bool:
        return self.exit_status is None

    def begin(self) -> None:
        """It goes on, whoever supervises it."""
        self.began = True
        lasts = self.behaviour.exit_after_seconds
        if lasts is not None and not self.behaviour.spawn_error:
            asyncio.get_running_loop().call_later(self.behaviour.exec_seconds + lasts, self.end)

    def die_waiting(self) -> None:
        """The supervisor has gone: a child that was not allowed to go on ends."""
        if self.live and not self.began:
            self.exit_status = ExitStatus(code=127)
            self._exited.set_result(None)
            self._emptied.set_result(None)

    async def change_limits(self, spec: ServiceSpec, force: bool = False) -> Sequence[str]:
        if self.behaviour.limit_problem and not force:
            return (self.behaviour.limit_problem,)
        self.changed_limits.append(spec.limits)
        return ()

    async def executed(self) -> None:
        if not self.began:
            self.begin()
        if self.behaviour.exec_seconds:
            await asyncio.sleep(self.behaviour.exec_seconds)
        if self.behaviour.spawn_error:
            self.exit_status = ExitStatus(code=127)
            await self.close()
            raise SpawnError(self.spec.name, self.behaviour.spawn_error)

    async def exited(self) -> ExitStatus:
        await asyncio.shield(self._exited)  # not to be cancelled with who waits
        assert self.exit_status is not None
        return self.exit_status

    def listen(self, take: Callable[[bytes], None]) -> None:
        self._take = take

    def say(self, *lines: str) -> None:
        """A process of the run sends a message."""
        self._take("\n".join(lines).encode())

    def follow(self, pid: int) -> bool:
        is_other = pid != self.pid and pid in self.members
        self.pid = pid if is_other else self.pid
        return is_other

    def populated(self) -> bool:
        return not self._emptied.done()

    async def emptied(self) -> None:
        await asyncio.shield(self._emptied)

    def signal(self, number: int) -> None:
        self.signals.append(number)
        if self.behaviour.stop_seconds is not None:
            status = ExitStatus(signal=number)
            asyncio.get_running_loop().call_later(self.behaviour.stop_seconds, self.end, status)

    def signal_rest(self, number: int) -> None:
        self.signals.append(number)

    def kill(self) -> None:
        self.killed = True
        self.end(ExitStatus(signal=9))
        if not self._emptied.done():
            self._emptied.set_result(None)

    def processes(self) -> list[int]:
        return [self.pid]

    def restore_files(self) -> None:
        """There are none."""

    async def adjust(self, action: Action) -> None:
        self.adjusted.append(action)

    def thaw(self) -> None:
        self.thawed += 1

    freezer = None

    def usage(self) -> Usage:
        return Usage(1.0, 4096, 1)

    async def close(self) -> None:
        assert not self.closed, "closed twice"
        self.closed = True
        self.host.ended(self)

    def detach(self) -> None:
        pass

    def end(self, status: ExitStatus | None = None) -> None:
        """The main process ends."""
        if self.exit_status is not None:
            return
        self.exit_status = status or self.behaviour.exit_status
        if not self.behaviour.leftovers:
            self._emptied.set_result(None)
        self._exited.set_result(None)


class FakeSockets:
    """Bound by a launch, by name only."""

    def __init__(self) -> None:
        self.held: dict[str, tuple[str, ...]] = {}

    def services(self) -> list[str]:
        return list(self.held)

    def names(self, service: str) -> tuple[str, ...]:
        return self.held.get(service, ())

    def handed_over(self) -> dict[str, int]:
        return {}

    def release(self, service: str) -> None:
        self.held.pop(service, None)


class NoAlarms:
    """Nothing ever rings."""

    def watch(self, cgroup: str, pressures: Mapping[str, float], ring: Callable[[], None]) -> None:
        return None


class FakeHost:
    """A host that remembers every run, and fails the test when two runs of a service are live."""

    def __init__(self, **behaviours: Behaviour) -> None:
        self.behaviours = behaviours
        self.facts = FACTS
        self.runs: list[FakeRun] = []
        self.live: dict[str, FakeRun] = {}
        self.history: list[tuple[str, str]] = []
        self.on_launch: Callable[[ServiceSpec], None] = lambda spec: None
        self.limit_problems: dict[str, list[LimitProblem]] = {}
        self.opened = self.is_closed = False
        self.port_holders: dict[int, PortHolder] = {}
        self.commands = FakeCommands()
        self.sockets = FakeSockets()
        self._descriptors: list[int] = []

    subreaper = False
    alarms = NoAlarms()

    def reap_strangers(self) -> int:
        return 0

    def problems(self, spec: ServiceSpec) -> list[LimitProblem]:
        return self.limit_problems.get(spec.name, [])

    def open(self) -> None:
        self.opened = True

    def launch(self, spec: ServiceSpec, run_id: int) -> FakeRun:
        behaviour = self.behaviours.get(spec.name, Behaviour())
        assert spec.name not in self.live, f"two live runs of {spec.name}"
        self.on_launch(spec)
        if spec.sockets:
            self.sockets.held[spec.name] = tuple(each.name for each in spec.sockets)
        if behaviour.launch_error:
            raise SpawnError(spec.name, behaviour.launch_error)
        run = FakeRun(self, spec, run_id, behaviour, pid=1000 + len(self.runs))
        self.runs.append(run)
        self.live[spec.name] = run
        self.history.append(("launch", spec.name))
        return run

    def adopt(self, spec: ServiceSpec, record: RunRecord) -> FakeRun | None:
        run = self.live.get(spec.name)
        return run if run is not None and run.live and run.began and run.pid == record.pid else None

    def is_held(self, name: str) -> bool:
        runs = [run for run in self.runs if run.spec.name == name]
        return bool(runs) and not runs[-1].began

    def identify(self, spec: ServiceSpec, run_id: int) -> RunRecord | None:
        return None

    def cgroups(self, known: Container[str] = ()) -> Mapping[str, list[int]]:
        return {name: run.processes() for name, run in self.live.items() if name not in known}

    async def clear(self, name: str, patience_seconds: float = 0.0) -> list[int]:
        run = self.live.pop(name, None)
        return [] if run is None else [run.pid]

    def supervisor_died(self) -> None:
        """What the kernel does about it: nothing but ending the children that wait to be let go on."""
        for run in self.live.values():
            run.die_waiting()

    def ended(self, run: FakeRun) -> None:
        assert self.live.pop(run.spec.name) is run
        self.history.append(("end", run.spec.name))

    def run_of(self, name: str) -> FakeRun:
        return self.live[name]

    def open_streams(self, spec: ServiceSpec) -> Mapping[Stream, int]:
        streams = {}
        for stream in Stream:
            reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            self._descriptors.append(writer)
            streams[stream] = reader
        return streams

    def stream_paths(self, name: str) -> Mapping[Stream, str]:
        return {stream: f"/fifo/{name}.{stream}" for stream in Stream}

    def port_holder(self, port: int, *, identify: bool = True) -> PortHolder | None:
        holder = self.port_holders.get(port)
        return holder if identify or holder is None else PortHolder()

    def lost_streams(self, spec: ServiceSpec, pids: Sequence[int]) -> Mapping[Stream, int]:
        return {}

    def stream_names(self) -> set[str]:
        return set()

    def remove_streams(self, names: Iterable[str]) -> None:
        pass

    def close(self) -> None:
        self.is_closed = True
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors.clear()
