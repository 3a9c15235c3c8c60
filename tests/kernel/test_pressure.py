"""Alarms by the kernel's pressure triggers, on this host's cgroup v2."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from blackhole_cg.kernel.pressure import PressureAlarms
from tests.support.live import require_cgroup
from tests.support.waiting import eventually

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_cgroup]

SPIN_ON_ONE_CPU = "import os\nos.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\nwhile True: pass"


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """An empty cgroup; what is in it at the end is killed."""
    directory = require_cgroup() / f"bh-test-pressure-{os.getpid()}"
    directory.mkdir()
    yield directory
    if directory.exists():
        (directory / "cgroup.kill").write_text("1")
        eventually(lambda: "populated 0" in (directory / "cgroup.events").read_text(), "it is empty")
        directory.rmdir()


@pytest.fixture
def stalling(cgroup: Path) -> Iterator[None]:
    """Two processes that want the same CPU all the time."""
    if not (cgroup / "cpu.pressure").exists():
        pytest.skip("this kernel has no pressure files in cgroups")
    spinners = [subprocess.Popen([sys.executable, "-S", "-c", SPIN_ON_ONE_CPU]) for _ in range(2)]
    for spinner in spinners:
        (cgroup / "cgroup.procs").write_text(str(spinner.pid))
    yield
    for spinner in spinners:
        spinner.kill()
        spinner.wait()


def test_it_rings_once_when_tasks_stall_and_again_after_rearm(cgroup, stalling):
    async def main() -> None:
        rung = asyncio.Event()
        alarms = PressureAlarms()
        alarm = alarms.watch(str(cgroup), {"cpu.pressure": 10}, rung.set)
        assert alarm is not None
        try:
            async with asyncio.timeout(60):
                await rung.wait()
                rung.clear()
                await asyncio.sleep(5)  # more than two windows
                assert not rung.is_set(), "it rings once"
                alarm.rearm()
                await rung.wait()
        finally:
            alarm.close()
            alarms.close()

    asyncio.run(main())


def test_without_anything_to_watch_there_is_no_alarm(cgroup):
    if (cgroup / "memory.events").exists():
        pytest.skip("there is a memory controller, so there is something to watch")
    alarms = PressureAlarms()
    assert alarms.watch(str(cgroup), {"none.pressure": 10}, lambda: None) is None
    alarms.close()


def test_a_cgroup_that_was_removed_is_no_error(cgroup, stalling):
    async def main() -> None:
        before = len(os.listdir("/proc/self/fd"))
        rung = asyncio.Event()
        alarms = PressureAlarms()
        alarm = alarms.watch(str(cgroup), {"cpu.pressure": 10}, rung.set)
        assert alarm is not None
        (cgroup / "cgroup.kill").write_text("1")
        eventually(lambda: "populated 0" in (cgroup / "cgroup.events").read_text(), "it is empty")
        cgroup.rmdir()
        await asyncio.sleep(0.1)
        alarm.rearm()
        await asyncio.sleep(0.1)
        alarm.close()
        alarm.close()
        alarms.close()
        assert len(os.listdir("/proc/self/fd")) == before

    asyncio.run(main())
