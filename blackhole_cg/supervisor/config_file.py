"""One configuration file as a supervisor uses it: read for a reload, resolved again for other instances."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from blackhole_cg.core.instance_list import Instance
from blackhole_cg.core.spec import SupervisorSpec
from blackhole_cg.kernel.config_process import ConfigProcess, ResidentConfigProcess
from blackhole_cg.kernel.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class _Reading:
    """What was read and may come to hold."""

    spec: SupervisorSpec
    snapshot: Snapshot
    provided: tuple[Instance, ...]


class ConfigFile:
    """The source of a supervisor's configuration; calling it reads everything anew.

    Args:
        path: the configuration file.
        runtime_dir: the runtime directory it is resolved for.
        adjust: what the command line says instead.
        snapshot: what it was read from already.
    """

    def __init__(
        self,
        path: Path,
        runtime_dir: Path,
        adjust: Callable[[SupervisorSpec], SupervisorSpec] = lambda spec: spec,
        snapshot: Snapshot | None = None,
    ) -> None:
        self._path = path
        self._runtime_dir = runtime_dir
        self._adjust = adjust
        self._snapshot = snapshot or Snapshot()
        self._read_last: _Reading | None = None
        self._resident: ResidentConfigProcess | None = None
        self.provided: tuple[Instance, ...] = ()  # the instances that hold

    def read_first(self, provided: tuple[Instance, ...] = ()) -> SupervisorSpec:
        """Read it, with instances that are not in it. Raises ConfigError, BlackholeError."""
        process = ConfigProcess(self._path, self._runtime_dir, provided)
        spec = process.result()
        self._snapshot, self.provided = process.snapshot, provided
        return self._adjust(spec)

    async def __call__(self) -> SupervisorSpec:
        """The files as they are now, with the instances that hold. Raises ConfigError, BlackholeError."""
        process = ConfigProcess(self._path, self._runtime_dir, self.provided)
        return self._note(await process.read(), process.snapshot, self.provided)

    async def with_instances(self, provided: tuple[Instance, ...]) -> SupervisorSpec:
        """The files that hold, with other instances. Raises ConfigError, BlackholeError."""
        return await self._read(self._snapshot, provided)

    async def look_again(self) -> SupervisorSpec:
        """The files that hold, with the programs that are there now. Raises ConfigError, BlackholeError."""
        return await self._read(replace(self._snapshot, found={}), self.provided)

    def accept(self, spec: SupervisorSpec) -> bool:
        """This configuration holds now: if it was read here, so do the files and the instances it is of.

        Whether it was read here.
        """
        read, self._read_last = self._read_last, None
        if read is None or read.spec is not spec:
            return False
        self._snapshot, self.provided = read.snapshot, read.provided
        return True

    def close(self) -> None:
        """End the process that reads, if there is one."""
        if self._resident is not None:
            self._resident.close()

    async def _read(self, snapshot: Snapshot, provided: tuple[Instance, ...]) -> SupervisorSpec:
        if self._resident is None:
            self._resident = ResidentConfigProcess(self._path, self._runtime_dir)
        spec, snapshot = await self._resident.read(provided, snapshot)
        return self._note(spec, snapshot, provided)

    def _note(
        self, spec: SupervisorSpec, snapshot: Snapshot, provided: tuple[Instance, ...]
    ) -> SupervisorSpec:
        spec = self._adjust(spec)
        self._read_last = _Reading(spec, snapshot, provided)
        return spec
