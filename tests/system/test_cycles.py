"""Hundreds of spawns and stops: each run in its cgroup with its limits in force, and nothing left of any."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from blackhole_cg.control.client import ControlClient
from tests.support.configs import SLEEP, config, shell
from tests.support.footprint import cgroups, children, memory_kib, open_descriptors
from tests.support.live import Live, alive, cgroup_mount
from tests.support.waiting import eventually

pytestmark = [pytest.mark.needs_kernel, pytest.mark.timeout(600)]

SERVICES, ROUNDS = 25, 20

# The first act of each run: which cgroup it is in, and what the kernel holds it to. Builtins alone.
REPORT = """
IFS=: read -r zero none group </proc/self/cgroup
read -r memory <MOUNT$group/memory.max
read -r pids <MOUNT$group/pids.max
read -r cpu <MOUNT$group/cpu.max
read -r members <MOUNT$group/cgroup.procs
[ "$members" = $$ ] && members=me
while IFS= read -r line; do
    case $line in "Max open files"*) set -- $line; files=$5; esac
done </proc/self/limits
echo "$group memory=$memory pids=$pids cpu=$cpu files=$files members=$members"
echo yes >../reported
"""

# Its grandchild leaves everything that can be left, and none of them heeds a polite signal.
DEAF = """
trap '' TERM HUP INT
setsid sh -c 'setsid sh -c "echo \\$\\$ >deepest; exec sleep 1000" & echo $$ >deep; exec sleep 1000' &
echo $$ >main
exec sleep 1000
"""


def script(text: str, **keys: Any) -> dict[str, Any]:
    """A service that is this very script: `$$` in a configuration is one `$`."""
    return shell(text.replace("MOUNT", str(cgroup_mount())).replace("$", "$$"), **keys)


def test_a_tree_that_forks_twice_leaves_the_session_and_ignores_signals_is_gone_after_stop(supervise):
    live = supervise(
        config({"deaf": script(DEAF, stop={"timeout": "1s"}), "calm": SLEEP}, isolation="required")
    )
    names = ("main", "deep", "deepest")
    pids = [eventually(lambda name=name: read_pid(live, name), name) for name in names]
    assert len(set(pids)) == 3
    assert [os.getsid(pid) for pid in pids] == pids, "each is the leader of a session of its own"
    assert all(signal.SIGTERM in ignored_signals(pid) for pid in pids)
    live.cli("stop", "deaf")
    assert [pid for pid in pids if alive(pid)] == []
    assert not (live.cgroup_root / "deaf").exists()
    assert live.status("deaf")["last_exit"]["signal"] == signal.SIGKILL
    assert live.status("calm")["state"] == "running"


def reporters() -> dict[str, dict[str, Any]]:
    """Services that tell what they find, each with limits of its own; one does not heed a polite stop."""
    services = {
        f"service-{i}": script(
            f"{REPORT} exec sleep 1000",
            resources={"memory_mb": 16 + i, "pids_max": 10 + i, "cpu_percent": 100 + i, "open_files": 50 + i},
        )
        for i in range(SERVICES)
    }
    services["service-0"] |= script(f"{REPORT} {DEAF}", stop={"timeout": "100ms"})
    return services


def expected_reports(live: Live, services: Iterable[str], runs: int) -> dict[tuple[str, int], str]:
    root = f"/{live.cgroup_root.name}"
    return {
        (name, run_id): f"{root}/{name} memory={(16 + i) * 2**20} pids={10 + i} cpu={(100 + i) * 1000} 100000"
        f" files={50 + i} members=me"
        for i, name in enumerate(services)
        for run_id in range(1, runs + 1)
    }


def test_in_five_hundred_cycles_every_run_has_its_cgroup_and_limits_and_leaves_nothing_behind(supervise):
    services = reporters()
    live = supervise(config(services, isolation="required"), start=False)
    os.mkfifo(live.directory / "reported")
    with open(os.open(live.directory / "reported", os.O_RDWR)) as reported:
        live.start().ready()
        client = ControlClient(live.runtime_dir)

        def stop_all() -> tuple[list[str], set[str], int]:
            """Stop them, once all have reported; what is held then."""
            assert [reported.readline() for _ in services] == ["yes\n"] * len(services)
            assert {info["state"] for info in client.change("stop", "*")} == {"stopped"}
            return children(live), cgroups(live), memory_kib(live)

        before, descriptors_before = stop_all(), open_descriptors(live)
        for _ in range(ROUNDS):
            assert {info["state"] for info in client.change("start", "*")} == {"running"}
            after = stop_all()
    assert after[:2] == ([], set()), "no zombie, no cgroup"
    # It settles some 3 MiB higher, after thousands of runs as after hundreds: histories of samples fill up.
    assert after[2] < before[2] + 4 * 1024, "memory, in KiB"
    # Some are opened when first needed and stay; one for each run, or each service, would be many more.
    assert open_descriptors(live) < descriptors_before + 5
    assert "populated 0" in (live.cgroup_root / "cgroup.events").read_text()
    # A few may last: what a run was the first to read or write stays charged to it while it is cached.
    eventually(lambda: dying(live) < 10, "the kernel has let go of the removed cgroups", 60)

    said = {(name, line["run_id"]): line["message"] for name in services for line in live.log_lines(name)}
    assert said == expected_reports(live, services, ROUNDS + 1)
    assert live.interrupt() == 0
    assert live.leftovers() == []


def read_pid(live: Live, name: str) -> int:
    path = live.directory / "data" / name
    return int(path.read_text() or 0) if path.exists() else 0


def ignored_signals(pid: int) -> set[signal.Signals]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    mask = next(int(line.split()[1], 16) for line in lines if line.startswith("SigIgn"))
    return {number for number in signal.Signals if mask >> (number - 1) & 1}


def dying(live: Live) -> int:
    """Removed cgroups that the kernel still keeps below the root."""
    text = (live.cgroup_root / "cgroup.stat").read_text()
    return int(dict(line.split() for line in text.splitlines())["nr_dying_descendants"])
