"""The monitor against a real kernel with all controllers: what the files say, and what the alarms bring."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from blackhole_cg.core.monitor_spec import Bound, Metric, MonitorSpec, RuleSpec
from blackhole_cg.core.samples import RunFacts, Sample, make_sample
from blackhole_cg.kernel.pressure import PressureAlarms
from blackhole_cg.observe.monitor.monitor import ResourceMonitor
from blackhole_cg.observe.monitor.run_reader import RunReader, Target
from tests.observe.monitor.processes import SPIN, process
from tests.support.live import cgroup_mount
from tests.support.waiting import eventually

pytestmark = [pytest.mark.needs_kernel, pytest.mark.timeout(600)]
NEEDED = ("cpu", "memory", "io", "pids")
MIB = 2**20
HUNGRY = "hoard = []\nwhile True: hoard.append(b'x' * 2**20); time.sleep(0.01)"
WRITE_ONCE = (  # once it is in its cgroup: what was allocated or dirtied before belongs to another
    "while 'bh-test' not in open('/proc/self/cgroup').read(): time.sleep(0.05)\n"
    "hoard = bytearray(b'x' * 2**23)\n"
    "file = open('/var/tmp/bh-monitor', 'wb')\nfile.write(b'x' * 2**22)\nfile.flush()\n"
    "os.fsync(file.fileno())\n"
    "os.unlink('/var/tmp/bh-monitor')\n"
)


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """A cgroup with every controller; what is in it at the end is killed."""
    mount = cgroup_mount()
    offered = set((mount / "cgroup.controllers").read_text().split()) if mount else set()
    if mount is None or not offered.issuperset(NEEDED):
        pytest.skip(f"cgroup v2 does not have {', '.join(NEEDED)} here")
    (mount / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in NEEDED))
    directory = mount / f"bh-test-monitor-{os.getpid()}"
    directory.mkdir()
    yield directory
    (directory / "cgroup.kill").write_text("1")
    eventually(lambda: "populated 0" in (directory / "cgroup.events").read_text(), "it is empty", 60)
    directory.rmdir()


def put(child: subprocess.Popen[str], cgroup: Path) -> None:
    (cgroup / "cgroup.procs").write_text(str(child.pid))


def first_sample(cgroup: Path, wanted: Callable[[Sample], bool], *rules: RuleSpec) -> tuple[float, Sample]:
    """How long it takes until a sample is as wanted, from a monitor whose own turns come once an hour."""

    async def main() -> tuple[float, Sample]:
        found: asyncio.Future[Sample] = asyncio.get_running_loop().create_future()

        def look(service: str, sample: Sample) -> None:
            if wanted(sample) and not found.done():
                found.set_result(sample)

        alarms = PressureAlarms()
        monitor = ResourceMonitor(time.monotonic, lambda service, breach: None, look, alarms)
        began = time.monotonic()
        try:
            monitor.add(Target("web", 1, began, str(cgroup)), MonitorSpec(3600.0, rules))
            async with asyncio.timeout(120):
                sample = await found
            return time.monotonic() - began, sample
        finally:
            monitor.close()
            alarms.close()

    return asyncio.run(main())


def test_samples_of_a_throttled_process_that_spins(cgroup):
    (cgroup / "cpu.max").write_text("20000 100000")
    with process(after=WRITE_ONCE + SPIN) as spinner:
        put(spinner, cgroup)
        reader = RunReader(Target("web", 1, time.monotonic(), str(cgroup)), list(Metric))
        try:
            eventually(lambda: (cgroup / "io.stat").read_text().count("wbytes="), "it has written", 60)
            before = reader.read(time.monotonic())
            time.sleep(10)
            after = reader.read(time.monotonic())
        finally:
            reader.close()
    assert before is not None
    assert after is not None
    sample = make_sample(RunFacts(1, before.taken_at - 1, 100 * MIB), before, after)
    unknown = [metric for metric in Metric if sample.value(metric) is None]
    assert unknown == []
    assert 15 <= sample.cpu_percent <= 25
    assert sample.cpu_throttled_percent > 50
    assert sample.pids == sample.threads == 1
    assert (
        8 * MIB <= sample.memory_anon_bytes <= sample.memory_bytes <= sample.memory_current_bytes < 100 * MIB
    )
    assert after.io_write_bytes_total >= 4 * MIB
    assert sample.oom_kills_total == 0


def test_memory_that_is_short_brings_a_sample_at_once(cgroup):
    (cgroup / "memory.high").write_text(str(16 * MIB))
    rule = RuleSpec("stalls", Metric.MEMORY_PRESSURE_PERCENT, Bound(20), grace_seconds=0)
    with process(after=HUNGRY) as hungry:
        put(hungry, cgroup)
        _, sample = first_sample(cgroup, lambda made: (made.memory_pressure_percent or 0) > 20, rule)
    assert sample.memory_high_events_total > 0
    assert sample.memory_bytes > 14 * MIB


def test_an_oom_kill_brings_a_sample_at_once(cgroup):
    (cgroup / "memory.max").write_text(str(30 * MIB))
    with process(after=HUNGRY) as hungry:
        put(hungry, cgroup)
        _, sample = first_sample(cgroup, lambda made: bool(made.oom_kills_total))
        assert hungry.wait(60) == -9
    assert sample.oom_kills_total == 1
    assert sample.memory_max_events_total > 0


def test_alarms_do_not_wake_more_than_once_a_second(cgroup):
    """A service at its memory.high has events all the time."""
    (cgroup / "memory.high").write_text(str(16 * MIB))
    samples = []

    async def main() -> None:
        alarms = PressureAlarms()
        monitor = ResourceMonitor(
            time.monotonic, lambda name, breach: None, lambda name, sample: samples.append(sample), alarms
        )
        monitor.add(Target("web", 1, time.monotonic(), str(cgroup)), MonitorSpec(3600.0))
        await asyncio.sleep(10)
        monitor.close()
        alarms.close()

    with process(after=HUNGRY) as hungry:
        put(hungry, cgroup)
        asyncio.run(main())
    assert 2 <= len(samples) <= 12
