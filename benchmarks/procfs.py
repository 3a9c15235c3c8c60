"""What /proc says about a process: processor time, memory, descriptors, children."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class CpuTime:
    """Processor time so far, in seconds. The sum is exact; user and system have the clock tick's 10 ms."""

    user: float
    system: float
    total: float

    def __sub__(self, earlier: CpuTime) -> CpuTime:
        return CpuTime(self.user - earlier.user, self.system - earlier.system, self.total - earlier.total)


def read_cpu(pid: int) -> CpuTime:
    """Processor time of a process that has one thread. Source: proc(5), stat; sched-stats.rst, schedstat."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks_per_second = os.sysconf("SC_CLK_TCK")
    user, system = int(fields[11]) / ticks_per_second, int(fields[12]) / ticks_per_second
    try:
        total = int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
    except FileNotFoundError:  # a kernel without CONFIG_SCHED_INFO
        total = user + system
    return CpuTime(user, system, total)


def read_memory_kib(pid: int) -> dict[str, int]:
    """Rss, Pss and the rest of smaps_rollup, in KiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {name.rstrip(":"): int(value) for name, value, *_ in map(str.split, lines)}


def count_descriptors(pid: int) -> int:
    """Open file descriptors."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def read_children(pid: int) -> list[int]:
    """The child processes of a process's main thread; none when it has gone."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def find_cgroup2_mount() -> Path | None:
    """Where cgroup v2 is mounted."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if after.split()[0] == "cgroup2":
            return Path(before.split()[4])
    return None
