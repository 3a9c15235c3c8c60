"""What holds the processes of a run together: a cgroup, or what stands in for one (`scope`)."""

from __future__ import annotations

from contextlib import suppress
from typing import Protocol

from blackhole_cg.core.facts import Usage
from blackhole_cg.core.monitor_spec import Action, ActionKind
from blackhole_cg.core.weights import DEFAULT_WEIGHT
from blackhole_cg.errors import CgroupError
from blackhole_cg.kernel.adjust import adjust
from blackhole_cg.kernel.cgroup import Cgroup
from blackhole_cg.kernel.emptiness import EmptinessWatch
from blackhole_cg.kernel.freezer import Freezer


class Enclosure(Protocol):
    """All processes of one run, however far they have forked."""

    @property
    def path(self) -> str | None:
        """The cgroup below the cgroup v2 mount; None when there is none."""

    def populated(self) -> bool:
        """Whether a live process is left."""

    def contains(self, pid: int) -> bool:
        """Whether this is one of its live processes."""

    async def emptied(self) -> None:
        """Wait until none is left."""

    def signal_all(self, number: int) -> None:
        """Send a signal to each process that is left."""

    def kill(self) -> None:
        """Kill each process that is left."""

    def oom_kills(self) -> int | None:
        """How many of them the kernel killed for want of memory; None when nobody counts."""

    def usage(self) -> Usage:
        """What they use now."""

    def processes(self) -> list[int]:
        """Who they are."""

    async def adjust(self, action: Action) -> None:
        """Freeze them, reclaim memory or change weights. Raises KernelError."""

    def thaw(self) -> None:
        """Let them go on, if they are frozen. Raises KernelError."""

    @property
    def freezer(self) -> Freezer | None:
        """What can hold them for moments; None when there is nothing that could."""

    def recover(self, keep_cpu_weight: bool) -> None:
        """End what a supervisor that is gone did to them for a time. Raises KernelError."""

    async def remove(self) -> None:
        """Give the enclosure back. May be called again."""

    def release(self) -> None:
        """Let go of it; it stays for whoever comes next."""


class CgroupEnclosure:
    """The usual one: a cgroup of its own."""

    def __init__(self, cgroup: Cgroup, path: str, watch: EmptinessWatch) -> None:
        self._cgroup = cgroup
        self._path = path
        self._watch = watch
        self._freezer = Freezer(cgroup)
        self._removed = False

    @property
    def cgroup(self) -> Cgroup:
        """The cgroup itself."""
        return self._cgroup

    @property
    def path(self) -> str | None:
        """See `Enclosure`."""
        return self._path

    def populated(self) -> bool:
        """See `Enclosure`. A zombie does not count: the kernel has taken it out."""
        return not self._removed and self._cgroup.populated()

    def contains(self, pid: int) -> bool:
        """See `Enclosure`."""
        return not self._removed and pid in self._cgroup.processes()

    async def emptied(self) -> None:
        """See `Enclosure`."""
        if not self._removed:
            await self._watch.until_empty(self._cgroup)

    def signal_all(self, number: int) -> None:
        """See `Enclosure`."""
        if not self._removed:
            self._cgroup.signal_all(number)

    def kill(self) -> None:
        """See `Enclosure`."""
        if not self._removed:
            self._cgroup.kill()

    def oom_kills(self) -> int | None:
        """See `Enclosure`."""
        return None if self._removed else self._cgroup.oom_kills()

    def usage(self) -> Usage:
        """See `Enclosure`."""
        return Usage() if self._removed else self._cgroup.usage()

    def processes(self) -> list[int]:
        """See `Enclosure`."""
        return [] if self._removed else self._cgroup.processes()

    async def adjust(self, action: Action) -> None:
        """See `Enclosure`."""
        if self._removed:
            return
        if action.kind is ActionKind.FREEZE:
            self._freezer.freeze()
        else:
            await adjust(self._cgroup, action)

    def thaw(self) -> None:
        """See `Enclosure`."""
        if not self._removed:
            self._freezer.thaw()

    @property
    def freezer(self) -> Freezer | None:
        """See `Enclosure`."""
        return None if self._removed else self._freezer

    def recover(self, keep_cpu_weight: bool) -> None:
        """See `Enclosure`. A configured weight is written by whoever writes the limits again."""
        self._freezer.recover()
        if not keep_cpu_weight and self._cgroup.has("cpu.weight"):
            self._cgroup.write("cpu.weight", str(DEFAULT_WEIGHT))

    async def remove(self) -> None:
        """Remove the cgroup. Raises CgroupError when it is still in use after about a second."""
        if self._removed:
            return
        await self._cgroup.remove()
        self._removed = True
        self._watch.removed(self._cgroup)
        self._cgroup.close()

    def release(self) -> None:
        """See `Enclosure`. What is held for a moment only must not stay so without us."""
        if not self._removed:
            with suppress(CgroupError):
                self._freezer.let_go()
            self._removed = True
            self._cgroup.close()
