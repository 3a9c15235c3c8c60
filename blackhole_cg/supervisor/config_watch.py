"""Reloading by itself when the files of the configuration change, where that is asked for."""

from __future__ import annotations

import asyncio
import glob
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from blackhole_cg.core.spec import SupervisorSpec
from blackhole_cg.errors import BlackholeError, ConfigError, KernelError
from blackhole_cg.kernel.file_watch import FileWatch

_log = logging.getLogger(__name__)

QUIET_SECONDS: Final = 0.5
"""Several files are often written one after the other: a reload waits until they are left alone."""


class ConfigWatch:
    """Watches where a configuration came from; `reload` has it read again.

    That is its files, where files to include are looked for, and where programs are.
    """

    def __init__(self, reload: Callable[[], Awaitable[object]]) -> None:
        self._reload = reload
        self._files = FileWatch(self._changed)
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._told = ""  # what was wrong the last time
        self._spec: SupervisorSpec | None = None
        self._broken: list[str] = []  # files that are wrong, and may be new

    def follow(self, spec: SupervisorSpec) -> None:
        """Watch the files of this configuration, if it says so."""
        self._spec, self._broken = spec, []
        self._look()

    def _look(self) -> None:
        spec = self._spec
        if spec is None or not spec.runtime.watch:
            self._files.close()
            return
        try:
            self._files.watch(spec.sources, (*spec.globs, *_program_globs(spec), *self._broken))
        except KernelError as error:
            _log.error("changes of the configuration's files are not noticed: %s", error)

    def close(self) -> None:
        """Watch nothing any more."""
        self._files.close()
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def _changed(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(QUIET_SECONDS, self._begin)

    def _begin(self) -> None:
        if self._task is not None and not self._task.done():
            self._changed()  # once more, when that one is done
            return
        _log.info("the configuration's files have changed: reloading")
        self._look()  # before they are read: nothing may come unseen into a new directory
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        try:
            await self._reload()
            self._told = ""
        except BlackholeError as error:
            if str(error) != self._told:
                _log.error("reload: %s", error)
            self._told = str(error)
            if isinstance(error, ConfigError):
                sources = dict.fromkeys(each.source for each in error.diagnostics)
                self._broken = [glob.escape(str(Path(source).absolute())) for source in sources]
                self._look()


def _program_globs(spec: SupervisorSpec) -> list[str]:
    """What finds the programs in the services directory, and directories that may get one."""
    if spec.runtime.discovery is None:
        return []
    services_dir = Path(spec.runtime.discovery.directory)
    try:
        names = [each.name for each in services_dir.iterdir() if each.is_dir()]
    except OSError:
        names = []
    fixed = Path(glob.escape(str(services_dir)))
    return [str(fixed / "*"), *(str(fixed / glob.escape(name) / glob.escape(name)) for name in names)]
