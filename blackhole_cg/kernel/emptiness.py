"""Waiting for cgroups to become empty, any number of them through one descriptor of the event loop."""

from __future__ import annotations

import asyncio
import errno
import os

from blackhole_cg.errors import CgroupGoneError
from blackhole_cg.kernel.cgroup import Cgroup, parse_populated
from blackhole_cg.kernel.changes import ChangeWatch


class EmptinessWatch:
    """The waiters of one event loop. Costs nothing while nobody waits."""

    def __init__(self) -> None:
        self._changes = ChangeWatch()
        self._waiting: dict[Cgroup, list[asyncio.Event]] = {}

    async def until_empty(self, cgroup: Cgroup) -> None:
        """Return once no live process is in the cgroup or below it; at once when it is gone.

        Source: kernel Documentation/admin-guide/cgroup-v2.rst, cgroup.events.
        """
        try:
            descriptor = cgroup.open_file("cgroup.events", os.O_RDONLY)
        except CgroupGoneError:
            return
        changed = asyncio.Event()
        self._waiting.setdefault(cgroup, []).append(changed)
        try:
            self._changes.add(descriptor, changed.set)
            # Reading is what re-arms the kernel's notification, so a change after this read is never lost.
            while _read_populated(descriptor):
                await changed.wait()
                changed.clear()
        finally:
            self._changes.discard(descriptor)
            os.close(descriptor)
            self._forget(cgroup, changed)

    def removed(self, cgroup: Cgroup) -> None:
        """Let those who still wait for this cgroup look again, once its directory is gone.

        The kernel holds notifications back for 10 ms after the last one, and drops what it holds back when
        the directory goes. Source: kernel/cgroup/cgroup.c, cgroup_file_notify and cgroup_rm_file.
        """
        for changed in self._waiting.get(cgroup, ()):
            changed.set()

    def close(self) -> None:
        """Give back what is held; only when nobody waits any more."""
        self._changes.close()

    def _forget(self, cgroup: Cgroup, changed: asyncio.Event) -> None:
        waiting = self._waiting[cgroup]
        waiting.remove(changed)
        if not waiting:
            del self._waiting[cgroup]


def _read_populated(descriptor: int) -> bool:
    try:
        return parse_populated(os.pread(descriptor, 4096, 0).decode())
    except OSError as cause:
        if cause.errno == errno.ENODEV:  # the directory was removed, which only an empty one can be
            return False
        raise
