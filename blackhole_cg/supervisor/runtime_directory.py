"""The runtime directory: claimed at the start, watched, and made again when somebody deletes it.

Cleaning jobs for temporary files do that, and people do. Services do not notice; but without its files nobody
can reach this supervisor, nobody sees that it is there, and the next one would not find what it needs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from blackhole_cg.control.server import ControlServer
from blackhole_cg.errors import BlackholeError, KernelError, LockHeldError
from blackhole_cg.kernel.file_watch import FileWatch
from blackhole_cg.supervisor.endpoints import EndpointsFile
from blackhole_cg.supervisor.lock import RuntimeLock
from blackhole_cg.supervisor.outputs import Outputs
from blackhole_cg.supervisor.paths import RUNTIME_MODE, Paths
from blackhole_cg.supervisor.services import Services

_log = logging.getLogger(__name__)

GATHER_SECONDS: Final = 0.2
"""Whoever deletes a directory deletes its files one after the other."""

RETRY_SECONDS: Final = 2.0
LOOK_SECONDS: Final = 5.0
"""So often it is looked after where the kernel cannot tell of deletions."""

INNER_DIRECTORIES: Final = ("spool", "notify", "config")


@dataclass(frozen=True, slots=True)
class Contents:
    """What is in the directory, by who can make it again; `note` stores that it had to be."""

    server: ControlServer
    outputs: Outputs
    services: Services
    endpoints: EndpointsFile
    note: Callable[[str], None]


class RuntimeDirectory:
    """The directory of one supervisor."""

    def __init__(self, paths: Paths) -> None:
        self.lock = RuntimeLock(paths.lock)
        self._paths = paths
        self._contents: Contents | None = None
        self._files = FileWatch(self._changed)
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._told = ""  # what was wrong the last time

    def claim(self, inherited: int | None = None) -> None:
        """Make it, and take its lock, by a descriptor of the program before this one if there is one.

        Raises:
            LockHeldError: another supervisor has it.
            OSError: it cannot be made.
        """
        self._paths.make()
        self.lock.acquire(inherited)

    def guard(self, contents: Contents) -> None:
        """See to it from now on that everything is there. Needs a running event loop."""
        self._contents = contents
        self._watch()
        self._changed()  # a start takes its time, and until now nobody has watched

    async def leave(self) -> None:
        """Guard it no more."""
        self._contents = None
        self._files.close()
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None and not self._task.done():
            await asyncio.wait([self._task])

    def _watch(self) -> None:
        if self._contents is None:
            return
        runtime_dir = self._paths.runtime_dir
        inner = (runtime_dir / name for name in INNER_DIRECTORIES)
        watched = (runtime_dir, self._paths.lock, self._paths.socket, *inner)
        try:
            self._files.watch(str(path) for path in watched)
        except KernelError as error:
            self._tell(f"deleted files of {runtime_dir} are noticed late: {error}")
            self._look_in(LOOK_SECONDS)

    def _changed(self) -> None:
        self._look_in(GATHER_SECONDS)

    def _look_in(self, seconds: float) -> None:
        if self._timer is None and self._contents is not None:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._begin)

    def _begin(self) -> None:
        self._timer = None
        if self._contents is None:
            return
        if self._task is not None and not self._task.done():
            self._changed()  # once more, when that one is done
            return
        self._task = asyncio.get_running_loop().create_task(self._restore(self._contents))

    async def _restore(self, contents: Contents) -> None:
        try:
            made = await self._make_again(contents)
        except LockHeldError as error:
            who = str(error).removeprefix("cannot start: ")
            self._tell(f"{self._paths.runtime_dir} was deleted, and cannot be had again: {who}")
            self._look_in(RETRY_SECONDS)
            return
        except (BlackholeError, OSError) as error:
            self._tell(f"cannot make what is missing in {self._paths.runtime_dir} again: {error}")
            self._look_in(RETRY_SECONDS)
            return
        if made:
            detail = f"files of {self._paths.runtime_dir} were deleted; made again: {', '.join(made)}"
            _log.warning("%s", detail)
            contents.note(detail)
            self._changed()  # there may be more by now, deleted while nobody watched
        self._told = ""
        self._watch()

    async def _make_again(self, contents: Contents) -> list[str]:
        """What was missing. The lock comes first: whoever has that may have the rest."""
        made = []
        if not self._paths.runtime_dir.is_dir():
            made.append("the directory")
        self._paths.make()
        if self.lock.renew():
            made.append("the lock")
            # Whoever made it again meanwhile, ourselves to start a run perhaps, did not think of this.
            self._paths.runtime_dir.chmod(RUNTIME_MODE)
        if spools := contents.outputs.restore_spools():
            made.append(f"the spools of {spools} services")
        for runner in contents.services.runners.values():
            if runner.run is not None:
                runner.run.restore_files()
        if await contents.server.renew():
            made.append("the control socket")
        if contents.endpoints.restore():
            made.append("the endpoints")
        return made

    def _tell(self, text: str) -> None:
        if text != self._told:
            _log.error("%s", text)
        self._told = text
