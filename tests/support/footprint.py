"""What a running supervisor holds: to be counted before and after, and compared."""

from __future__ import annotations

import os
from pathlib import Path

from tests.support.live import Live


def open_descriptors(live: Live) -> int:
    return len(os.listdir(f"/proc/{live.pid}/fd"))


def memory_kib(live: Live) -> int:
    """Private memory that was written to; clean pages are of files, shared with whoever runs beside it."""
    lines = Path(f"/proc/{live.pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Dirty", "Swap:")))


def children(live: Live) -> list[str]:
    """Its child processes, zombies included."""
    return Path(f"/proc/{live.pid}/task/{live.pid}/children").read_text().split()


def cgroups(live: Live) -> set[str]:
    """The cgroup directories below its root."""
    return {str(path) for path in live.cgroup_root.rglob("*") if path.is_dir()}
