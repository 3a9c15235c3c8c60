"""A run without a cgroup: its processes are told by session, process group, descent and environment.

Only for hosts where no cgroup can be made. A process that leaves the session, loses its parents and empties
its environment escapes; a cgroup is the only thing that holds it. There is nothing to await here either, so
waiting for emptiness polls, and only while somebody waits.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from blackhole_cg.core.facts import Usage
from blackhole_cg.core.monitor_spec import Action
from blackhole_cg.errors import KernelError, is_passing
from blackhole_cg.kernel.memory import proportional_bytes
from blackhole_cg.kernel.procfs import read_kernel_file

POLL_SECONDS: Final = 0.05
KILL_ROUNDS: Final = 20
MARK_PREFIX: Final = "BLACKHOLE_"
DEAD_STATES: Final = frozenset("ZX")


@dataclass(frozen=True, slots=True)
class ProcessStat:
    """What /proc/PID/stat says of one process; (pid, started_ticks) never names two."""

    pid: int
    state: str
    parent: int
    group: int
    session: int
    started_ticks: int
    cpu_ticks: int


class ProcessScope:
    """The processes of one run. `environment` is the service's; its BLACKHOLE_ entries are the mark."""

    def __init__(self, main_pid: int, environment: Mapping[str, str], proc: Path = Path("/proc")) -> None:
        self._main_pid = main_pid
        self._proc = proc
        self._mark = frozenset(
            os.fsencode(f"{key}={value}") for key, value in environment.items() if key.startswith(MARK_PREFIX)
        )
        main = read_stat(proc, main_pid)
        self._main_started_ticks = main.started_ticks if main else 0
        self._seen: set[tuple[int, int]] = {(main_pid, self._main_started_ticks)}
        self._killing = False

    @property
    def path(self) -> str | None:
        """See `Enclosure`: there is no cgroup."""
        return None

    def populated(self) -> bool:
        """See `Enclosure`. Reads /proc."""
        return bool(self._members())

    def contains(self, pid: int) -> bool:
        """See `Enclosure`. Reads /proc."""
        return any(member.pid == pid for member in self._members())

    async def emptied(self) -> None:
        """See `Enclosure`. Polls; once killing has begun it kills what turns up."""
        while self._go_on():  # noqa: ASYNC110  nothing tells of the end
            await asyncio.sleep(POLL_SECONDS)

    def _go_on(self) -> bool:
        try:
            if not self.populated():
                return False
            if self._killing:
                self.kill()
        except OSError as error:
            if not is_passing(error):
                raise
        return True

    def signal_all(self, number: int) -> None:
        """See `Enclosure`."""
        for member in self._members():
            self._signal(member, number)

    def kill(self) -> None:
        """See `Enclosure`. Repeats until nothing new has been forked meanwhile."""
        self._killing = True
        killed: set[int] = set()
        for _ in range(KILL_ROUNDS):
            fresh = [member for member in self._members() if member.pid not in killed]
            if not fresh:
                return
            for member in fresh:
                self._signal(member, signal.SIGKILL)
                killed.add(member.pid)

    def oom_kills(self) -> int | None:
        """See `Enclosure`: nobody counts."""
        return None

    def usage(self) -> Usage:
        """See `Enclosure`."""
        members = self._members()
        ticks = sum(member.cpu_ticks for member in members)
        memory_bytes = proportional_bytes(member.pid for member in members)
        return Usage(ticks / os.sysconf("SC_CLK_TCK"), memory_bytes, len(members))

    def processes(self) -> list[int]:
        """See `Enclosure`."""
        return [member.pid for member in self._members()]

    async def adjust(self, action: Action) -> None:
        """See `Enclosure`: a cgroup could. Raises KernelError."""
        raise KernelError(str(action.kind), f"the run of {self._main_pid} without a cgroup", errno.ENOTSUP)

    def thaw(self) -> None:
        """See `Enclosure`: nothing is ever frozen."""

    @property
    def freezer(self) -> None:
        """See `Enclosure`."""
        return None

    def recover(self, keep_cpu_weight: bool) -> None:
        """See `Enclosure`: nothing is ever held or changed."""

    async def remove(self) -> None:
        """See `Enclosure`: nothing to give back, but it must be empty. Raises KernelError with EBUSY."""
        if self.populated():
            raise KernelError("release", f"the processes of the run of {self._main_pid}", errno.EBUSY)

    def release(self) -> None:
        """See `Enclosure`: nothing is held."""

    def _members(self) -> list[ProcessStat]:
        """Every live process of the run; what was once recognised stays so when its parents are gone."""
        table = {process.pid: process for process in read_stats(self._proc)}
        leader = table.get(self._main_pid)
        ours = leader is None or leader.started_ticks == self._main_started_ticks
        found = {process.pid for process in table.values() if self._is_marked(process, ours)}
        grew = True
        while grew:
            more = {process.pid for process in table.values() if process.parent in found} - found
            found |= more
            grew = bool(more)
        members = [table[pid] for pid in found if table[pid].state not in DEAD_STATES]
        self._seen.update((member.pid, member.started_ticks) for member in members)
        return members

    def _is_marked(self, process: ProcessStat, numbers_are_ours: bool) -> bool:
        if process.started_ticks < self._main_started_ticks or process.pid == os.getpid():
            return False
        if (process.pid, process.started_ticks) in self._seen:
            return True
        if numbers_are_ours and self._main_pid in (process.session, process.group):
            return True
        return bool(self._mark) and self._mark <= _environment(self._proc, process.pid)

    def _signal(self, member: ProcessStat, number: int) -> None:
        """Through a pidfd, and only while it is still the process that was recognised."""
        try:
            descriptor = os.pidfd_open(member.pid)
        except OSError:
            return
        try:
            now = read_stat(self._proc, member.pid)
            if now is not None and now.started_ticks == member.started_ticks:
                signal.pidfd_send_signal(descriptor, number)
        except (ProcessLookupError, PermissionError):
            return
        finally:
            os.close(descriptor)


def parse_stat(text: str) -> ProcessStat:
    """The fields of /proc/PID/stat; the name in parentheses may hold anything, so count from the last one."""
    pid = int(text.partition(" ")[0])
    fields = text[text.rindex(")") + 2 :].split()
    return ProcessStat(
        pid=pid,
        state=fields[0],
        parent=int(fields[1]),
        group=int(fields[2]),
        session=int(fields[3]),
        started_ticks=int(fields[19]),
        cpu_ticks=sum(map(int, fields[11:15])),  # its own, and that of the children it has waited for
    )


def read_stat(proc: Path, pid: int) -> ProcessStat | None:
    """One process, None when it has ended.

    Raises:
        OSError: it cannot be told just now, for want of descriptors say.
    """
    try:
        return parse_stat(read_kernel_file(f"{proc}/{pid}/stat"))
    except (OSError, ValueError) as error:
        if is_passing(error):
            raise
        return None


def started_ticks(pid: int) -> int:
    """When a process began, in clock ticks since boot; 0 when it has ended. Raises OSError as `read_stat`."""
    process = read_stat(Path("/proc"), pid)
    return process.started_ticks if process else 0


def read_stats(proc: Path) -> Iterator[ProcessStat]:
    """All processes."""
    for entry in proc.iterdir():
        if entry.name.isdecimal():
            process = read_stat(proc, int(entry.name))
            if process is not None:
                yield process


def _environment(proc: Path, pid: int) -> frozenset[bytes]:
    try:
        return frozenset((proc / str(pid) / "environ").read_bytes().split(b"\0"))
    except OSError:
        return frozenset()
