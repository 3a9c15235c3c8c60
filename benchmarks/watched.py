"""What it costs a real supervisor to watch and to probe many services at once: `make bench ARGS=--watched`.

Measured is the processor time of the supervisor's process, as the kernel counts it, so that what else the
machine does shows little in it. What is asked is a server in a process of its own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.probes import server
from benchmarks.procfs import CpuTime, count_descriptors, read_cpu, read_memory_kib
from benchmarks.report import describe_machine, render_table
from benchmarks.supervised import Supervised

INTERVAL_SECONDS: Final = 5.0
WARM_UP_SECONDS: Final = 2 * INTERVAL_SECONDS + 2.0
START_SECONDS: Final = 300.0

UNLIMITED: Final = {"resources": {"cpu_percent": "max", "memory_max": "max"}}
UNWATCHED: Final = {"monitor": {"interval": "1h"}}
WATCHED: Final = {"monitor": {"interval": f"{INTERVAL_SECONDS:g}s"}}


@dataclass(frozen=True)
class Cost:
    """What one supervisor took over a time in which nothing happened to its services."""

    name: str
    cpu: CpuTime
    seconds: float
    pss_kib: int
    rss_kib: int
    descriptors: int
    unhealthy: int

    def percent(self, seconds: float) -> str:
        """Processor time as a percentage of one core."""
        return f"{100 * seconds / self.seconds:.2f} %"


def measure(name: str, count: int, seconds: float, keys: dict[str, Any]) -> Cost:
    """Start the services with these keys, wait until all is at rest, and look at the supervisor."""
    with Supervised(count, keys=keys) as supervised:

        def all_run() -> bool:
            if not supervised.answers():
                return False
            services = supervised.get("/v1/services")["services"]
            wanted = "healthy" if "health_check" in keys else "unknown"
            return all((each["state"], each["health"]) == ("running", wanted) for each in services)

        supervised.wait_until(all_run, START_SECONDS, poll_seconds=1.0)
        time.sleep(WARM_UP_SECONDS)
        before, began = read_cpu(supervised.pid), time.monotonic()
        time.sleep(seconds)
        cpu, took = read_cpu(supervised.pid) - before, time.monotonic() - began
        memory, descriptors = read_memory_kib(supervised.pid), count_descriptors(supervised.pid)
        services = supervised.get("/v1/services")["services"]
        unhealthy = sum(each["health"] == "unhealthy" or each["restarts"] > 0 for each in services)
    return Cost(name, cpu, took, memory["Pss"], memory["Rss"], descriptors, unhealthy)


def measure_all(count: int, seconds: float, say: Callable[[str], None]) -> Iterator[Cost]:
    """From a supervisor that only waits to one that watches, asks and enforces."""
    port = 20000 + os.getpid() % 10000
    check = {"http": {"path": "/", "port": port}, "interval": f"{INTERVAL_SECONDS:g}s", "timeout": "3s"}
    probed = {**WATCHED, "health_check": check}
    with server("http", str(port)):
        for name, keys in (
            ("neither, without limits", {**UNLIMITED, **UNWATCHED}),
            ("watched, without limits", {**UNLIMITED, **WATCHED}),
            ("watched and probed (HTTP), without limits", {**UNLIMITED, **probed}),
            ("watched and probed, with cpu_max and memory_max", probed),
        ):
            say(f"{count} services, {name}")
            yield measure(name, count, seconds, keys)


def render(costs: list[Cost], count: int) -> str:
    """The table for docs/benchmarks.md."""
    rows = [
        (
            cost.name,
            cost.percent(cost.cpu.total),
            f"{cost.percent(cost.cpu.user)} / {cost.percent(cost.cpu.system)}",
            f"{cost.pss_kib / 1024:.1f} MiB",
            f"{cost.rss_kib / 1024:.1f} MiB",
            str(cost.descriptors),
            str(cost.unhealthy),
        )
        for cost in costs
    ]
    heading = (
        f"{count} services, every {INTERVAL_SECONDS:g} s",
        "CPU of one core",
        "user / system",
        "PSS",
        "RSS",
        "descriptors",
        "false alarms",
    )
    return describe_machine() + "\n\n" + render_table(heading, rows)
