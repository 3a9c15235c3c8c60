"""Waiting for cgroups to become empty, any number of them through one descriptor of the event loop.

The kernel marks cgroup.events as changed with EPOLLPRI, which asyncio does not watch for; an epoll can itself
be watched for reading, so all the files go into one of our own and the loop watches that.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select

from blackhole_cg.errors import CgroupGoneError
from blackhole_cg.kernel.cgroup import Cgroup, parse_populated


class EmptinessWatch:
    """The waiters of one event loop. Costs nothing while nobody waits."""

    def __init__(self) -> None:
        self._epoll: select.epoll | None = None
        self._changed: dict[int, asyncio.Event] = {}
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
            self._add(descriptor, changed)
            # Reading is what re-arms the kernel's notification, so a change after this read is never lost.
            while _read_populated(descriptor):
                await changed.wait()
                changed.clear()
        finally:
            self._discard(descriptor)
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
        """Close the epoll; only when nobody waits any more."""
        if self._epoll is not None:
            self._epoll.close()
            self._epoll = None

    def _add(self, descriptor: int, changed: asyncio.Event) -> None:
        if self._epoll is None:
            self._epoll = select.epoll()
        self._epoll.register(descriptor, select.EPOLLPRI | select.EPOLLET)
        if not self._changed:
            asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._dispatch)
        self._changed[descriptor] = changed

    def _discard(self, descriptor: int) -> None:
        if self._changed.pop(descriptor, None) is None or self._epoll is None:
            return
        self._epoll.unregister(descriptor)
        if not self._changed:
            asyncio.get_running_loop().remove_reader(self._epoll.fileno())

    def _forget(self, cgroup: Cgroup, changed: asyncio.Event) -> None:
        waiting = self._waiting[cgroup]
        waiting.remove(changed)
        if not waiting:
            del self._waiting[cgroup]

    def _dispatch(self) -> None:
        if self._epoll is None:
            return
        for descriptor, _ in self._epoll.poll(0):
            if descriptor in self._changed:
                self._changed[descriptor].set()


def _read_populated(descriptor: int) -> bool:
    try:
        return parse_populated(os.pread(descriptor, 4096, 0).decode())
    except OSError as cause:
        if cause.errno == errno.ENODEV:  # the directory was removed, which only an empty one can be
            return False
        raise
