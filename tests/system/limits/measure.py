"""Reading what the kernel holds and what it counted, and watching that for a while."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from blackhole_cg.kernel.rlimits import parse_proc_limits
from tests.support.live import Live
from tests.support.waiting import eventually

MIB = 2**20
_TRIES = 5


@dataclass(frozen=True)
class Disk:
    """A disk that may be overwritten: its path, its name below /sys/block, its MAJOR:MINOR."""

    path: Path
    name: str
    number: str

    def use_scheduler(self, name: str) -> None:
        Path(f"/sys/block/{self.name}/queue/scheduler").write_text(name)


def counters(file: Path) -> dict[str, int]:
    """A flat keyed file, such as cpu.stat or memory.events."""
    return {key: int(value) for key, value in (line.split() for line in file.read_text().splitlines())}


def io_counters(group: Path, disk: Disk) -> dict[str, int]:
    """One disk's counters in io.stat; empty before the first request."""
    for line in (group / "io.stat").read_text().splitlines():
        device, *pairs = line.split()
        if device == disk.number:
            return {key: int(value) for key, value in (pair.split("=") for pair in pairs)}
    return {}


def held(live: Live, name: str, file: str) -> str:
    """What the kernel holds in a file of a service's cgroup."""
    return (live.cgroup_root / name / file).read_text().strip()


def held_rlimits(live: Live, name: str) -> dict[str, int | str]:
    """The soft limits of a service's main process."""
    pid = live.status(name)["pid"]
    return dict(parse_proc_limits(Path(f"/proc/{pid}/limits").read_text()))


def rates(read: Callable[[], Sequence[int]], seconds: float) -> list[float]:
    """How much each of some counters grows in a second, over that time."""
    began, before = time.monotonic(), read()
    time.sleep(seconds)
    after, elapsed = read(), time.monotonic() - began
    return [(now - then) / elapsed for then, now in zip(before, after, strict=True)]


def measured(measure: Callable[[], list[float]], fits: Callable[..., bool]) -> list[float]:
    """What is measured once it fits, or in the last of five times.

    A host that is busy with something else takes an emulated machine's processors away for seconds. What
    limits do shows in every quiet moment; what they do not, in none.
    """
    for _ in range(_TRIES):
        found = measure()
        if fits(*found):
            break
    return found


def cpu_percents(live: Live, names: Sequence[str], seconds: float) -> list[float]:
    """The CPU use of services over that time; 100 is one core."""

    def used() -> list[int]:
        return [counters(live.cgroup_root / name / "cpu.stat")["usage_usec"] for name in names]

    return [rate / 1e4 for rate in rates(used, seconds)]


def last_cpu(pid: int) -> int:
    """Where a process ran last. Source: proc(5), /proc/PID/stat, field 39; field 3 follows the name."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[36])


def printed(live: Live, name: str) -> list[str]:
    """The lines a service has written so far."""
    return [line["message"] for line in live.log_lines(name)]


def wait_for_output(live: Live, *names: str) -> None:
    """Wait until each of these services has written a line: its program has come up."""
    for name in names:
        eventually(lambda name=name: printed(live, name), f"{name} wrote something", 60)
