"""One supervisor for each cgroup root: another, with its own runtime directory, must not take it over."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from blackhole_cg.errors import LockHeldError
from blackhole_cg.kernel.procfs import read_kernel_file


def lock_cgroup_root(descriptor: int, root: Path) -> None:
    """Lock the directory for as long as its descriptor is open.

    Raises:
        LockHeldError: somebody has it.
        OSError: it cannot be locked.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = find_holder(read_kernel_file("/proc/locks"), os.fstat(descriptor))
        who = f"a supervisor with pid {holder}" if holder is not None else "another supervisor"
        raise LockHeldError(f"cannot start: {who} already uses the cgroup {root}") from None


def find_holder(locks: str, file: os.stat_result) -> int | None:
    """Who holds the flock of a file, by the text of /proc/locks; None where that does not say.

    Source: proc_locks(5). The holder may be a process of a namespace of which we see nothing, shown as 0.
    """
    device = f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}:{file.st_ino}"
    for line in locks.splitlines():
        fields = line.split()
        if fields[1:2] == ["FLOCK"] and fields[5:6] == [device]:
            return int(fields[4]) or None
    return None
