"""A group on a fake host whose runs have versions, some of which are broken."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from pathlib import Path

from blackhole_cg.core.facts import ExitStatus
from blackhole_cg.core.record import RunRecord
from blackhole_cg.core.spec import RestartPolicy, RolloutSpec, ServiceSpec, SupervisorSpec
from blackhole_cg.core.words import MAX
from blackhole_cg.supervisor.paths import Paths
from blackhole_cg.supervisor.supervisor import Supervisor
from tests.support.builders import service
from tests.support.fake_host import Behaviour, FakeHost, FakeRun
from tests.support.virtual_loop import run_virtual

EXEC_SECONDS = 0.2
NAMES = ["web-1", "web-2", "web-3", "web-4"]


def group(version: int, *, names: list[str] | None = None, **fields: object) -> list[ServiceSpec]:
    fields.setdefault("rollout", RolloutSpec(min_ready_seconds=2.0))
    fields.setdefault("restart", RestartPolicy(max_restarts=MAX))
    return [
        service(name, instance_of="web", umask=version, config_hash=str(version), **fields)
        for name in names or NAMES
    ]


class Watched(FakeHost):
    """A host that knows how few of the group ran at once.

    A version may be broken (2), or only one service of it ("web-2", 2).
    """

    def __init__(self) -> None:
        super().__init__()
        self.broken: set[int | tuple[str, int]] = set()
        self._since: dict[str, float] = {}

    def launch(self, spec: ServiceSpec, run_id: int) -> FakeRun:
        short = Behaviour(exit_after_seconds=0.5, stop_seconds=0.3, exit_status=ExitStatus(code=1))
        sound = Behaviour(exec_seconds=EXEC_SECONDS, stop_seconds=0.3)
        self.behaviours[spec.name] = short if self._is_broken(spec) else sound
        self._since[spec.name] = asyncio.get_running_loop().time()
        return super().launch(spec, run_id)

    def adopt(self, spec: ServiceSpec, record: RunRecord) -> FakeRun | None:
        self._since[spec.name] = -math.inf  # nobody can tell that it was still to be executed
        return super().adopt(spec, record)

    def available(self) -> int:
        """How many of the group do their work."""
        latest = asyncio.get_running_loop().time() - EXEC_SECONDS
        runs = [run for run in self.live.values() if run.spec.instance_of and not self._is_broken(run.spec)]
        return sum(not run.signals and self._since[run.spec.name] <= latest for run in runs)

    def running(self) -> int:
        """How many of the group there are at all."""
        return sum(run.spec.instance_of is not None for run in self.live.values())

    def _is_broken(self, spec: ServiceSpec) -> bool:
        return not {spec.umask, (spec.name, spec.umask)}.isdisjoint(self.broken)

    def versions(self) -> dict[str, int]:
        return {name: run.spec.umask for name, run in sorted(self.live.items())}


def supervisor(directory: Path, spec: SupervisorSpec, host: FakeHost) -> Supervisor:
    return Supervisor(spec, paths=Paths(*(directory / name for name in ("run", "state", "log"))), host=host)


def told(it: Supervisor) -> list[tuple[str, str]]:
    return [(event.service, event.detail) for event in it.events.read() if event.kind == "rollout"]


def play(main: Callable[[], object]) -> None:
    run_virtual(main())  # type: ignore[arg-type]
