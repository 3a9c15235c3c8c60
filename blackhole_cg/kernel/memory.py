"""What processes use where no memory controller counts it."""

from __future__ import annotations

from collections.abc import Iterable

from blackhole_cg.kernel.procfs import read_kernel_file


def proportional_bytes(pids: Iterable[int]) -> int | None:
    """The sum of the processes' proportional set sizes, in which a shared page counts once in all.

    None when there is none that may be looked into. Less than memory.current would say: the page
    cache is not in it. Source: proc(5), /proc/pid/smaps_rollup (kernel 4.14).
    """
    sizes = [size for size in map(_proportional_bytes, pids) if size is not None]
    return sum(sizes) if sizes else None


def parse_proportional_bytes(rollup: str) -> int | None:
    """The Pss line of smaps_rollup."""
    for line in rollup.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return None


def _proportional_bytes(pid: int) -> int | None:
    try:
        return parse_proportional_bytes(read_kernel_file(f"/proc/{pid}/smaps_rollup"))
    except OSError:
        return None  # it has ended, or is not ours to look into
