"""Services on a fake host in virtual time, with everything that was recorded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from blackhole_cg.core.facts import EventRecord
from blackhole_cg.core.record import RunRecord, parse_run, parse_status, render_run, render_status
from blackhole_cg.core.spec import ServiceSpec
from blackhole_cg.core.status import ServiceStatus
from blackhole_cg.core.words import State
from blackhole_cg.runner.clock import Clock
from blackhole_cg.runner.host import Run
from blackhole_cg.runner.service import ServiceRunner
from blackhole_cg.supervisor.operations import Operations
from blackhole_cg.supervisor.services import Services, Surroundings
from tests.support.builders import supervisor_spec
from tests.support.fake_host import Behaviour, FakeHost

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


class NoOutput:
    """Output that goes nowhere, and counts runs."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.ended = 0

    def begin_run(self, run_id: int) -> None:
        self.begun.append(run_id)

    def end_run(self) -> None:
        self.ended += 1


class NoOutputs:
    """Where nobody writes anything that would have to be read on."""

    def rejoin(self, spec: ServiceSpec, run: Run) -> None:
        pass

    def end_run(self, name: str) -> None:
        pass

    def open_removed(self) -> None:
        pass

    def discard_removed(self) -> None:
        pass


class NoStates:
    """Remembers nothing."""

    def save_status(self, service: str, status: ServiceStatus) -> None:
        assert parse_status(render_status(status)) == status

    def save_run(self, run: RunRecord) -> None:
        assert parse_run(render_run(run)) == run

    def forget_run(self, service: str) -> None:
        pass

    def save_port(self, service: str, port: int) -> None:
        pass


class Stage:
    """A running composition of services; create it inside `run_virtual`."""

    def __init__(
        self,
        *specs: ServiceSpec,
        behaviours: dict[str, Behaviour] | None = None,
        memory_bytes: int | None = None,
        **runtime,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.host = FakeHost(**(behaviours or {}))
        self.host.facts = replace(self.host.facts, memory_bytes=memory_bytes)
        self.records: list[EventRecord] = []
        self.wall_jump_seconds = 0.0
        clock = Clock(loop.time, self._wall, lambda: 0.0)
        self.on_change: Callable[[ServiceRunner], None] = lambda runner: None
        around = Surroundings(
            self.host, clock, lambda spec: NoOutput(), self, NoStates(), changed=self._changed
        )
        self.services = Services(supervisor_spec(*specs, **runtime), around)

    @property
    def operations(self) -> Operations:
        """Those of the newest configuration."""
        return self.services.operations

    def _changed(self, runner: ServiceRunner) -> None:
        self.on_change(runner)

    def _wall(self) -> datetime:
        return EPOCH + timedelta(seconds=asyncio.get_running_loop().time() + self.wall_jump_seconds)

    def append(self, record: EventRecord) -> None:
        self.records.append(record)

    def status(self, name: str):
        return self.services.runners[name].status

    def states(self) -> dict[str, State]:
        return {name: runner.status.state for name, runner in self.services.runners.items()}

    async def until(self, name: str, state: State) -> None:
        """Wait until a service is in a state."""
        await self.services.runners[name].settle(lambda status: status.state is state or None)

    def path(self, name: str) -> list[str]:
        """The states a service went through, as recorded."""
        changes = (record for record in self.records if record.kind == "state")
        return [str(record.to_state) for record in changes if record.service == name]
