"""What watching 200 services costs: `python -m benchmarks.monitor`. Nothing but a monitor in this process.

The services are cgroups of this host with a sleeping process in each, where cgroups can be made; and, once
more, directories with files as a kernel with all controllers writes them.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.procfs import count_descriptors, find_cgroup2_mount, read_cpu, read_memory_kib
from benchmarks.report import describe_machine, render_table, write_page
from blackhole_cg.core.monitor_spec import Bound, Metric, MonitorSpec, RuleSpec
from blackhole_cg.core.rules import Capacity
from blackhole_cg.observe.monitor.monitor import ResourceMonitor
from blackhole_cg.observe.monitor.run_reader import Target
from tests.observe.monitor.cgroup_files import make_cgroup

MEMORY = RuleSpec("memory", Metric.MEMORY_PERCENT, Bound(90), for_seconds=30)
FILES = RuleSpec("files", Metric.OPEN_FILES, Bound(1000), for_seconds=30)
INTERVAL_SECONDS = 5.0


@dataclass(frozen=True)
class Cost:
    """What a monitor took; memory is what it added to this process."""

    name: str
    cpu_percent: float  # of one core
    added_kib: int
    descriptors: int
    microseconds_per_sample: float


async def measure(name: str, directories: list[Path], rules: tuple[RuleSpec, ...], seconds: float) -> Cost:
    """Watch the directories for so long, after one interval to warm up."""
    samples = 0

    def count(service: str, sample: object) -> None:
        nonlocal samples
        samples += 1

    own = os.getpid()
    memory_kib, descriptors = read_memory_kib(own)["Pss"], count_descriptors(own)
    monitor = ResourceMonitor(time.monotonic, lambda service, breach: None, count)
    for number, directory in enumerate(directories):
        target = Target(f"s{number}", 1, time.monotonic(), str(directory), Capacity(memory_limit_bytes=2**30))
        monitor.add(target, MonitorSpec(INTERVAL_SECONDS, rules))
    await asyncio.sleep(INTERVAL_SECONDS + 1)
    samples, cpu, began = 0, read_cpu(own), time.monotonic()
    await asyncio.sleep(seconds)
    cpu_seconds, passed = (read_cpu(own) - cpu).total, time.monotonic() - began
    cost = Cost(
        name,
        100 * cpu_seconds / passed,
        read_memory_kib(own)["Pss"] - memory_kib,
        count_descriptors(own) - descriptors,
        1e6 * cpu_seconds / samples,
    )
    monitor.close()
    return cost


@contextmanager
def real_cgroups(count: int) -> Iterator[list[Path]]:
    """Cgroups with a sleeping process each, all of them removed at the end."""
    mount = find_cgroup2_mount()
    if mount is None or not os.access(mount, os.W_OK):
        yield []
        return
    root = mount / f"bh-bench-monitor-{os.getpid()}"
    root.mkdir()
    processes = []
    try:
        for number in range(count):
            (root / f"s{number}").mkdir()
            processes.append(subprocess.Popen(["/bin/sleep", "infinity"]))
            (root / f"s{number}" / "cgroup.procs").write_text(str(processes[-1].pid))
        yield [root / f"s{number}" for number in range(count)]
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()
        for directory in [*root.iterdir(), root]:
            if directory.is_dir():
                directory.rmdir()


def render(costs: list[Cost], count: int) -> str:
    """The table for docs/benchmarks.md."""
    rows = [
        (cost.name, f"{cost.cpu_percent:.2f} %", f"{cost.microseconds_per_sample:.0f} µs",
         f"{cost.added_kib / 1024:.1f} MiB", str(cost.descriptors))
        for cost in costs
    ]  # fmt: skip
    heading = (
        f"{count} services, every {INTERVAL_SECONDS:g} s",
        "CPU",
        "one sample",
        "memory",
        "descriptors",
    )
    return describe_machine() + "\n\n" + render_table(heading, rows)


def main() -> int:
    """Measures, prints, and writes if asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.monitor", description=__doc__)
    parser.add_argument("--services", type=int, default=200, metavar="N")
    parser.add_argument("--seconds", type=float, default=20.0, metavar="SECONDS")
    parser.add_argument("--write", action="store_true", help="put the result into docs/benchmarks.md")
    arguments = parser.parse_args()
    count, costs = arguments.services, []
    with tempfile.TemporaryDirectory() as base:
        directories = [make_cgroup(Path(base) / f"s{number}") for number in range(count)]
        name = "all controllers (files of that form), memory rule"
        costs.append(asyncio.run(measure(name, directories, (MEMORY,), arguments.seconds)))
    with real_cgroups(count) as directories:
        for name, rules in (
            ("cgroups of this host, no rule", ()),
            ("the same, memory rule", (MEMORY,)),
            ("the same, memory and open files", (MEMORY, FILES)),
        ):
            if directories:
                costs.append(asyncio.run(measure(name, directories, rules, arguments.seconds)))
    table = render(costs, count)
    print(table)
    if arguments.write:
        write_page("monitor", table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
