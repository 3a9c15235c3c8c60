"""What changes the configuration while nobody reloads: a provider of instances, programs that are found."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from blackhole_cg.core.discovery import Discovery
from blackhole_cg.core.instance_list import Instance, InstanceProvider
from blackhole_cg.core.spec import SupervisorSpec
from blackhole_cg.errors import BlackholeError, ConfigError
from blackhole_cg.kernel.discovery import DiscoveryProcess
from blackhole_cg.supervisor.applied import Source, Sources
from blackhole_cg.supervisor.config_file import ConfigFile
from blackhole_cg.supervisor.paths import Paths
from blackhole_cg.supervisor.providing import Memory, Providing
from blackhole_cg.supervisor.rediscovery import Rediscovery
from blackhole_cg.supervisor.reload import Configuration

_log = logging.getLogger(__name__)

MEMORY_NAME: Final = "instances.json"


@dataclass(frozen=True, slots=True)
class Supply:
    """Where the configuration comes from, what is added to it, and where what was added last is kept.

    Raises:
        ValueError: there is a provider and no file, which alone can be resolved again.
    """

    config: Source | None
    provider: InstanceProvider | None
    state_dir: Path

    def __post_init__(self) -> None:
        if self.provider is not None and not isinstance(self.config, ConfigFile):
            raise ValueError("a provider of instances needs a configuration that comes from a file")

    def sources(self, runtime_dir: Path) -> Sources:
        """Ways to get a configuration; those of other files get what is added too."""
        file = self.config if isinstance(self.config, ConfigFile) else ConfigFile(Path(), runtime_dir)
        return Sources(self.config, file.read_other)

    def discard(self) -> None:
        """Leave nothing that only the next supervisor of running services has a use for."""
        if isinstance(self.config, ConfigFile):
            self.config.discard()


def begin_with(
    config: SupervisorSpec | str | Path,
    source: Source | None,
    provider: InstanceProvider | None,
    paths: Paths,
) -> tuple[SupervisorSpec, Supply]:
    """The configuration to begin with, and where others come from: `source`, or the same file.

    Raises:
        ConfigError: the file is wrong.
    """
    if isinstance(config, SupervisorSpec):
        return config, Supply(source, provider, paths.state_dir)
    file = ConfigFile(Path(config), paths.runtime_dir)
    supply = Supply(source or file, provider, paths.state_dir)
    return _read_first(file, provider, paths.state_dir), supply


def _read_first(file: ConfigFile, provider: InstanceProvider | None, state_dir: Path) -> SupervisorSpec:
    """With a provider, the configuration with its last list."""
    remembered = Memory(state_dir / MEMORY_NAME).load() if provider is not None else ()
    if remembered:
        try:
            return file.read_first(remembered)
        except ConfigError as error:
            spec = file.read_first()
            _log.error("the last list of instances does not fit the configuration any more:\n%s", error)
            return spec
    return file.read_first()


class Feeding:
    """Runs them from when it is made until it is closed.

    Args:
        supply: where things come from.
        configuration: what takes in the outcome.
        note: stores what went wrong as an event.
        jitter: draws from -1.0 to 1.0.
    """

    def __init__(
        self,
        supply: Supply,
        configuration: Configuration,
        note: Callable[[str], None],
        jitter: Callable[[], float],
    ) -> None:
        self._configuration = configuration
        self._memory = Memory(supply.state_dir / MEMORY_NAME)
        self._tasks: list[asyncio.Task[None]] = []
        self._notes: tuple[str, ...] = ()
        self._tell_notes(configuration.spec)
        configuration.on_taken = self._tell_notes
        self._close_file: Callable[[], None] = lambda: None
        if not isinstance(supply.config, ConfigFile):
            return
        self._file = supply.config
        self._file.store_soon()
        self._close_file = supply.config.close
        self._is_of_file = True  # and not another one, to which somebody went back
        self._rediscovery = Rediscovery(lambda: configuration.spec, _look, self._look_again)
        configuration.on_taken = self._taken
        self._begin(self._rediscovery.run())
        if supply.provider is not None:
            self._begin(Providing(supply.provider, self._take, note, jitter).run())

    def close(self) -> None:
        """End them; a configuration that is being read is not taken in any more."""
        for task in self._tasks:
            task.cancel()
        self._close_file()

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(_tell_end)
        self._tasks.append(task)

    async def _take(self, instances: tuple[Instance, ...]) -> None:
        async def read() -> SupervisorSpec:
            spec = await self._file.with_instances(instances)
            self._memory.save(instances)  # before anything of it runs
            return spec

        if self._configuration.closed:
            return
        if not self._is_of_file:
            raise BlackholeError("the configuration that holds is not that of the file (reload to go on)")
        try:
            await self._configuration.renew(read)
        except BlackholeError:
            self._memory.save(self._file.provided)
            raise

    async def _look_again(self) -> None:
        if self._is_of_file and not self._configuration.closed:
            await self._configuration.renew(self._file.look_again)

    def _taken(self, new: SupervisorSpec) -> None:
        self._is_of_file = self._file.accept(new)
        self._rediscovery.configured()
        self._tell_notes(new)

    def _tell_notes(self, spec: SupervisorSpec) -> None:
        """Say what was refused, each once for as long as it stays so."""
        for note in spec.notes:
            if note not in self._notes:
                _log.warning("no service: %s", note)
        self._notes = spec.notes


async def _look(directory: str) -> Discovery:
    return await DiscoveryProcess(directory).read()


def _tell_end(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("the configuration is not kept up to date any more", exc_info=error)
