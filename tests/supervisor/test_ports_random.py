"""No port is ever given to two, whatever is started, stopped and killed, the supervisor among it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from blackhole_cg.core.events import RestartRequested, StartRequested, StopRequested
from blackhole_cg.core.facts import EventRecord
from blackhole_cg.core.ports import PORT_MARK, PortHolder
from blackhole_cg.core.record import Memory, RunRecord
from blackhole_cg.core.spec import PortRange, RestartPolicy, ServiceSpec
from blackhole_cg.core.status import ServiceStatus
from blackhole_cg.core.words import AUTO
from blackhole_cg.errors import SpawnError
from blackhole_cg.runner.clock import Clock
from blackhole_cg.supervisor.services import Services, Surroundings
from tests.support.builders import service, supervisor_spec
from tests.support.fake_host import Behaviour, FakeHost
from tests.support.stage import NoOutput, NoOutputs
from tests.support.virtual_loop import run_virtual

NAMES = ("a", "b", "c", "d", "fixed")  # one more than there are ports
PORTS = PortRange(9000, 9003)
FIXED = 9001
SOON = RestartPolicy(initial_delay_seconds=1.0, jitter=0.0, max_restarts="max")

_name = st.sampled_from(NAMES)
_port = st.integers(PORTS.low, PORTS.high)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["start", "stop", "restart", "end"]), _name),
        st.tuples(st.sampled_from(["occupy", "leave"]), _port),
        st.tuples(st.just("wait"), st.sampled_from([0, 1, 5])),
        st.tuples(st.just("kill the supervisor"), st.sampled_from(["now", "before a fork", "after a fork"])),
    ),
    min_size=5,
    max_size=50,
)


class SlowHost(FakeHost):
    """To clear a cgroup takes time, in which others go on."""

    async def clear(self, name: str, patience_seconds: float = 0.0) -> list[int]:
        await asyncio.sleep(1.5)
        return await super().clear(name)


class World:
    """A host, what is stored on it, and the supervisor of the moment."""

    def __init__(self) -> None:
        self.host = SlowHost(**{name: Behaviour(stop_seconds=0.5) for name in NAMES})
        self.host.on_launch = self.check_launch
        self.statuses: dict[str, ServiceStatus] = {}
        self.runs: dict[str, RunRecord] = {}
        self.ports: dict[str, int] = {}
        self.dies: str | None = None  # when: "before a fork", "after a fork"
        self.is_dead = False
        self.problems: list[str] = []
        self.launched = 0
        self.services = self.make()

    def make(self) -> Services:
        fields: dict[str, Any] = {"restart": SOON, "argv": ("/bin/x", PORT_MARK)}
        specs = [service(name, tcp_port=AUTO, **fields) for name in NAMES[:-1]]
        specs.append(service("fixed", tcp_port=FIXED, restart=SOON, argv=("/bin/x", str(FIXED))))
        clock = Clock(asyncio.get_running_loop().time, lambda: datetime.now(UTC), lambda: 0.0)
        around = Surroundings(self.host, clock, lambda spec: NoOutput(), self, self)
        return Services(supervisor_spec(*specs, port_range=PORTS), around)

    def check_launch(self, spec: ServiceSpec) -> None:
        if self.is_dead or self.dies == "before a fork":
            self.is_dead = True
            raise SpawnError(spec.name, "go on: the supervisor is dead")
        self.is_dead = self.dies is not None
        self.launched += 1
        port = int(spec.argv[1])
        if port in {int(run.spec.argv[1]) for run in self.host.live.values()}:
            self.problems.append(f"{port} is given to two")
        if spec.name == "fixed":
            return
        if port not in PORTS or port == FIXED or port in self.host.port_holders:
            self.problems.append(f"{port} may not be given")
        if self.ports[spec.name] != port:
            self.problems.append(f"{port} was not stored first")

    async def kill_supervisor(self) -> None:
        """And start the next one; what this one did since it is dead was not stored."""
        self.is_dead = True
        for runner in self.services.runners.values():
            runner.detach()
        memory = Memory("boot", dict(self.statuses), dict(self.runs), ports=dict(self.ports))
        self.dies, self.is_dead = None, False
        self.services = self.make()
        await self.services.take_over(memory, NoOutputs())

    # ---- what a supervisor stores ----

    def save_status(self, service: str, status: ServiceStatus) -> None:
        if not self.is_dead:
            self.statuses[service] = status

    def save_run(self, run: RunRecord) -> None:
        if not self.is_dead:
            self.runs[run.service] = run

    def forget_run(self, service: str) -> None:
        if not self.is_dead:
            self.runs.pop(service, None)

    def save_port(self, service: str, port: int) -> None:
        if not self.is_dead:
            self.ports[service] = port

    def append(self, record: EventRecord) -> None:
        pass


async def take(world: World, step: tuple[str, Any]) -> None:
    kind, what = step
    wishes: dict[str, Callable[[], Any]] = {
        "start": StartRequested,
        "stop": StopRequested,
        "restart": RestartRequested,
    }
    if kind in wishes:
        world.services.runners[what].post(wishes[kind]())
    elif kind == "end" and what in world.host.live:
        world.host.run_of(what).end()
    elif kind == "occupy":
        taken = {int(run.spec.argv[1]) for run in world.host.live.values()}
        if what not in taken:
            world.host.port_holders[what] = PortHolder(1, "stranger")
    elif kind == "leave":
        world.host.port_holders.pop(what, None)
    elif kind == "wait":
        await asyncio.sleep(what)
    elif what == "now":
        await world.kill_supervisor()
    elif kind == "kill the supervisor":
        world.dies = what


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_no_port_is_ever_given_to_two(steps: list[tuple[str, Any]]) -> None:
    async def main() -> None:
        world = World()
        for step in [*steps, *([("wait", 1)] * 10)]:
            await take(world, step)
            await asyncio.sleep(0)
            if world.is_dead:
                await world.kill_supervisor()
            assert world.problems == []
        for name, run in world.host.live.items():
            assert world.services.runners[name].port == int(run.spec.argv[1])

    run_virtual(main())


def test_such_sequences_do_start_something() -> None:
    async def main() -> None:
        world = World()
        for name in ("a", "b", "c", "fixed"):
            await take(world, ("start", name))
        await take(world, ("wait", 1))
        await take(world, ("kill the supervisor", "after a fork"))
        await take(world, ("restart", "b"))
        await take(world, ("wait", 1))
        assert world.is_dead
        await world.kill_supervisor()
        await take(world, ("wait", 5))
        ports = {name: int(run.spec.argv[1]) for name, run in world.host.live.items()}
        assert ports == {"a": 9000, "b": 9002, "c": 9003, "fixed": FIXED}
        assert (world.launched, world.problems) == (6, [])

    run_virtual(main())
