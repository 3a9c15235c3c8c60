"""What the limits do on a real kernel, seen through the command line and the kernel's own files."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.support.configs import SLEEP, config, python
from tests.support.live import Live, cgroup_mount
from tests.support.waiting import eventually

pytestmark = [pytest.mark.needs_kernel, pytest.mark.timeout(600)]
NEEDED = {"cpu", "memory", "io", "pids"}


@pytest.fixture(autouse=True)
def controllers() -> None:
    mount = cgroup_mount()
    offered = set((mount / "cgroup.controllers").read_text().split()) if mount else set()
    if missing := NEEDED - offered:
        pytest.skip(f"cgroup v2 has no {', '.join(sorted(missing))} controller here")


def cgroup_of(live: Live, name: str) -> Path:
    return live.cgroup_root / name


def counters(file: Path) -> dict[str, int]:
    return {key: int(value) for key, value in (line.split() for line in file.read_text().splitlines())}


def test_every_limit_is_in_the_kernels_files(supervise):
    limits = {
        "cpu_percent": 150, "cpu_weight": 300, "memory_mb": 64, "memory_low": "8M", "memory_swap_max": 0,
        "io_weight": 250, "processes": 12, "open_files": 321, "cpuset_cpus": "0",
    }  # fmt: skip
    live = supervise(config({"web": {**SLEEP, "resources": limits}}, isolation="required"))
    held = {
        "cpu.max": "150000 100000", "cpu.weight": "300",
        "memory.max": str(64 * 2**20), "memory.low": str(8 * 2**20),
        "memory.oom.group": "1", "io.weight": "default 250", "pids.max": "12", "cpuset.cpus": "0",
    }  # fmt: skip
    group = cgroup_of(live, "web")
    assert {name: (group / name).read_text().strip() for name in held} == held
    assert int((group / "memory.high").read_text()) == pytest.approx(0.9 * 64 * 2**20, abs=4096)
    shown = live.status("web")["limits"]
    not_enforced = {name for name, limit in shown.items() if not limit["enforced"]}
    assert not_enforced <= {"io_weight", "memory_swap_max"}, shown
    if "io_weight" in not_enforced:
        assert "none" in shown["io_weight"]["reason"] or "no" in shown["io_weight"]["reason"]


def test_a_spinning_service_gets_its_share_and_no_more(supervise):
    live = supervise(
        config({"spin": python("while True: pass", resources={"cpu_percent": 20})}, isolation="required")
    )
    stat = cgroup_of(live, "spin") / "cpu.stat"
    before, began = counters(stat), time.monotonic()
    time.sleep(10)
    after, seconds = counters(stat), time.monotonic() - began
    percent = (after["usage_usec"] - before["usage_usec"]) / seconds / 1e4
    assert 17 <= percent <= 23
    assert after["nr_throttled"] > before["nr_throttled"]


def test_a_growing_service_is_killed_as_a_group_told_as_oom_and_restarted(supervise):
    grow = (
        "import os, time\n"
        "if os.fork() == 0: time.sleep(1000)\n"
        "print('grows')\n"
        "hoard = []\n"
        "while True: hoard.append(bytearray(2**20))\n"
    )
    live = supervise(
        config({
            "grows": python(grow, resources={"memory_mb": 40}, restart={"initial_delay": "30s"}),
            "calm": {**SLEEP, "resources": {"memory_mb": 40}},
        }, isolation="required")
    )  # fmt: skip
    calm = live.status("calm")["pid"]
    info = live.until("grows", "restarting", 300)
    assert info["last_exit"]["reason"] == "oom"
    assert info["last_exit"]["signal"] == 9
    assert not cgroup_of(live, "grows").exists(), "the whole group is gone, the child that only slept too"
    assert [event["reason"] for event in live.events("grows") if event["to"] == "restarting"] == ["oom"]
    assert live.status("calm")["pid"] == calm


def test_a_fork_bomb_stays_in_its_cgroup(supervise):
    bomb = "import os, time\nwhile True:\n    try: os.fork()\n    except OSError: time.sleep(0.1)\n"
    live = supervise(
        config({"bomb": python(bomb, resources={"processes": 10}), "calm": SLEEP}, isolation="required")
    )
    group = cgroup_of(live, "bomb")
    eventually(lambda: counters(group / "pids.events")["max"] > 0, "the limit was hit", 60)
    assert int((group / "pids.current").read_text()) <= 10
    live.cli("stop", "bomb")
    assert not group.exists()
    assert live.status("calm")["state"] == "running"
