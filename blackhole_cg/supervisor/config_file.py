"""One configuration file as a supervisor uses it: read for a reload, resolved again for other instances."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from blackhole_cg.core.instance_list import Instance
from blackhole_cg.core.spec import SupervisorSpec
from blackhole_cg.kernel.config_cache import ConfigCache
from blackhole_cg.kernel.config_process import ConfigProcess, Kept, ResidentConfigProcess
from blackhole_cg.kernel.snapshot import Snapshot

STORE_SECONDS: Final = 0.5
"""Whoever waits for an answer gets it before the cache is written."""


@dataclass(frozen=True, slots=True)
class _Reading:
    """What was read and may come to hold; `kept` is for the cache."""

    spec: SupervisorSpec | None
    path: Path
    snapshot: Snapshot
    provided: tuple[Instance, ...]
    kept: Kept | None = None


class ConfigFile:
    """The source of a supervisor's configuration; calling it reads everything anew.

    Args:
        path: the configuration file.
        runtime_dir: the runtime directory it is resolved for.
        adjust: what the command line says instead.
        snapshot: what it was read from already.
        cache: keeps for the next start what this one goes by.
    """

    def __init__(
        self,
        path: Path,
        runtime_dir: Path,
        adjust: Callable[[SupervisorSpec], SupervisorSpec] = lambda spec: spec,
        snapshot: Snapshot | None = None,
        cache: ConfigCache | None = None,
    ) -> None:
        self._path = path
        self._cache = cache
        self._runtime_dir = runtime_dir
        self._adjust = adjust
        self._held = _Reading(None, path, snapshot or Snapshot(), ())
        self._latest: _Reading | None = None
        self._resident: ResidentConfigProcess | None = None

    @property
    def provided(self) -> tuple[Instance, ...]:
        """The instances that hold, besides those in the files."""
        return self._held.provided

    def read_first(self, provided: tuple[Instance, ...] = ()) -> SupervisorSpec:
        """Read it, with instances that are not in it. Raises ConfigError, BlackholeError."""
        process = ConfigProcess(self._path, self._runtime_dir, provided)
        spec = self._adjust(process.result())
        self._held = _Reading(spec, self._path, process.snapshot, provided)
        return spec

    async def __call__(self) -> SupervisorSpec:
        """The files as they are now, with the instances that hold. Raises ConfigError, BlackholeError."""
        return await self.read_other(self._path)

    async def read_other(self, path: Path) -> SupervisorSpec:
        """Another file, with the instances that hold. Raises ConfigError, BlackholeError."""
        provided = self.provided
        process = ConfigProcess(path, self._runtime_dir, provided)
        spec = await process.read()
        kept = process.kept if path == self._path else None
        return self._note(spec, _Reading(None, path, process.snapshot, provided, kept))

    async def with_instances(self, provided: tuple[Instance, ...]) -> SupervisorSpec:
        """The files that hold, with other instances. Raises ConfigError, BlackholeError."""
        return await self._read_held(self._held.snapshot, provided)

    async def look_again(self) -> SupervisorSpec:
        """The files that hold, with the programs that are there now. Raises ConfigError, BlackholeError."""
        return await self._read_held(replace(self._held.snapshot, found={}), self.provided)

    def accept(self, spec: SupervisorSpec) -> bool:
        """This configuration holds now: if it was read here, so do the files and the instances it is of.

        Whether it was read here.
        """
        read, self._latest = self._latest, None
        if read is None or read.spec is not spec:
            return False
        self._held = replace(read, kept=None)
        if read.kept is not None and self._cache is not None:
            self._cache.keep(*read.kept)
            self.store_soon()
        return True

    def store_soon(self) -> None:
        """Have the cache written, when there is time. Needs a running event loop."""
        if self._cache is not None:
            asyncio.get_running_loop().call_later(STORE_SECONDS, self._cache.write)

    def discard(self) -> None:
        """Leave nothing in the cache: there is nothing that the next supervisor takes over."""
        if self._cache is not None:
            self._cache.discard()

    def close(self) -> None:
        """End the process that reads, if there is one."""
        if self._resident is not None:
            self._resident.close()

    async def _read_held(self, snapshot: Snapshot, provided: tuple[Instance, ...]) -> SupervisorSpec:
        if self._resident is None:
            self._resident = ResidentConfigProcess(self._runtime_dir)
        path = self._held.path
        spec, snapshot = await self._resident.read(path, provided, snapshot)
        return self._note(spec, _Reading(None, path, snapshot, provided))

    def _note(self, spec: SupervisorSpec, reading: _Reading) -> SupervisorSpec:
        spec = self._adjust(spec)
        self._latest = replace(reading, spec=spec)
        return spec
