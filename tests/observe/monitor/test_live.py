"""The monitor over real processes: it finds the one that leaks or spins, and leaves the calm one alone."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from blackhole_cg.core.monitor_spec import Bound, Metric, MonitorSpec, RuleSpec, Side, Whole
from blackhole_cg.core.rules import Breach, Capacity
from blackhole_cg.observe.monitor.monitor import ResourceMonitor
from blackhole_cg.observe.monitor.run_reader import Target
from tests.observe.monitor.processes import DESCRIPTORS, LEAK, LISTEN, SPIN, THREADS, WRITE, process
from tests.support.live import require_cgroup

MIB = 2**20
INTERVAL = 0.2
PATIENCE_SECONDS = 60.0


@pytest.fixture(params=["cgroup", "no cgroup"])
def place(request) -> Iterator[Path | None]:
    """A cgroup for the process, or None: then only its pid is known."""
    if request.param == "no cgroup":
        yield None
        return
    directory = require_cgroup() / f"bh-test-live-{os.getpid()}"
    directory.mkdir()
    yield directory
    (directory / "cgroup.kill").write_text("1")
    deadline = time.monotonic() + 20
    while "populated 1" in (directory / "cgroup.events").read_text() and time.monotonic() < deadline:
        time.sleep(0.01)
    directory.rmdir()


def target(name: str, child: subprocess.Popen[str], place: Path | None, **fields) -> Target:
    """A run that began now; with a place, its process is put there."""
    if place is not None:
        (place / "cgroup.procs").write_text(str(child.pid))
    pids = None if place is not None else lambda: [child.pid]
    cgroup = None if place is None else str(place)
    return Target(name, 1, time.monotonic(), cgroup, list_pids=pids, **fields)


def rule(metric: Metric, bound: float, **fields) -> RuleSpec:
    fields.setdefault("grace_seconds", 0.0)
    fields.setdefault("for_seconds", 2 * INTERVAL)
    return RuleSpec(f"{metric} rule", metric, Bound(bound), **fields)


def first_breach(*watched: tuple[Target, tuple[RuleSpec, ...]]) -> tuple[str, Breach]:
    """What is told first; fails the test when nothing is."""

    async def main() -> tuple[str, Breach]:
        told: asyncio.Future[tuple[str, Breach]] = asyncio.get_running_loop().create_future()

        def tell(service: str, breach: Breach) -> None:
            if not told.done():
                told.set_result((service, breach))

        monitor = ResourceMonitor(time.monotonic, tell)
        try:
            for each, rules in watched:
                monitor.add(each, MonitorSpec(INTERVAL, rules))
            async with asyncio.timeout(PATIENCE_SECONDS):
                return await told
        finally:
            monitor.close()

    return asyncio.run(main())


CASES = {
    "leaks memory": (Metric.MEMORY_BYTES, 30 * MIB, "", LEAK),
    "leaks resident memory": (Metric.MEMORY_RSS_BYTES, 30 * MIB, "", LEAK),
    "leaks descriptors": (Metric.OPEN_FILES, 100, DESCRIPTORS.format(count=120), ""),
    "leaks threads": (Metric.THREADS, 10, THREADS.format(count=12), ""),
    "has too many tasks": (Metric.PIDS, 10, THREADS.format(count=12), ""),
    "listens too much": (Metric.CONNECTIONS, 10, LISTEN.format(count=12), ""),
    "spins": (Metric.CPU_PERCENT, 10, "", SPIN),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.needs_root
@pytest.mark.needs_cgroup
def test_the_one_that_goes_too_far_is_found(case: str, place: Path | None):
    metric, bound, before, after = CASES[case]
    rules = (rule(metric, bound),)
    with process(before, after) as greedy, process() as calm:
        calm_target = Target("calm", 1, time.monotonic(), None, list_pids=lambda: [calm.pid])
        name, breach = first_breach((calm_target, rules), (target("greedy", greedy, place), rules))
    assert name == "greedy"
    assert breach.value > bound
    assert breach.held_seconds >= 2 * INTERVAL
    assert str(breach).startswith(f"{metric} ")


def test_writing_to_disk_is_seen(tmp_path):
    path = f"/var/tmp/bh-test-monitor-{os.getpid()}"
    try:
        with process(after=WRITE.format(path=path)) as writer:
            each = target("writer", writer, None)
            name, _ = first_breach((each, (rule(Metric.IO_WRITE_BYTES_PER_SECOND, MIB),)))
        assert name == "writer"
    finally:
        Path(path).unlink(missing_ok=True)


def test_a_part_of_the_limit_and_of_the_host(place: Path | None):
    capacity = Capacity(cpu_limit_percent=20, host_cpus=1000)
    of_limit = RuleSpec(
        "limit", Metric.CPU_PERCENT, Bound(50, Whole.LIMIT), for_seconds=INTERVAL, grace_seconds=0
    )
    of_host = RuleSpec("host", Metric.CPU_PERCENT, Bound(50, Whole.HOST), grace_seconds=0)
    with process(after=SPIN) as spinner:
        each = target("spins", spinner, place, capacity=capacity)
        _, breach = first_breach((each, (of_host, of_limit)))
    assert breach.rule is of_limit
    assert "above 10 (50% of the limit)" in str(breach)


def test_uptime_and_too_little_of_something():
    with process() as calm:
        each = target("calm", calm, None)
        _, breach = first_breach((each, (rule(Metric.UPTIME_SECONDS, 0.5),)))
        assert breach.value > 0.5
        _, breach = first_breach((each, (rule(Metric.THREADS, 2, side=Side.BELOW),)))
        assert str(breach).startswith("threads 1 below 2 for ")


def short_life(number: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["/bin/sleep", str(0.05 * (number % 10))])


def test_runs_that_end_and_begin_under_the_monitor_are_no_error_and_no_breach():
    """Fifty short lives, watched for everything a process can be asked for."""
    rules = tuple(
        rule(metric, 10**12, for_seconds=0.0) for metric in Metric if metric is not Metric.UPTIME_SECONDS
    )
    errors: list[dict] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: errors.append(context))
        breaches: list[Breach] = []
        monitor = ResourceMonitor(time.monotonic, lambda service, breach: breaches.append(breach))
        try:
            with ExitStack() as stack:
                for number in range(50):
                    child = stack.enter_context(short_life(number))
                    pids = [child.pid]
                    run = Target(f"s{number % 5}", number, time.monotonic(), None, list_pids=lambda p=pids: p)
                    monitor.add(run, MonitorSpec(0.1, rules))
                    await asyncio.sleep(0.03)
            await asyncio.sleep(0.3)
        finally:
            monitor.close()
        assert breaches == []

    asyncio.run(main())
    assert errors == []
