"""Limits that are changed while the service runs: its pid stays, the kernel's file and the effect change."""

from __future__ import annotations

from pathlib import Path

import yaml

from tests.support.configs import SLEEP, config, python
from tests.support.live import crash
from tests.support.waiting import eventually
from tests.system.limits.conftest import UNLIMITED, reload
from tests.system.limits.measure import (
    MIB,
    counters,
    cpu_percents,
    held,
    last_cpu,
    measured,
    printed,
    wait_for_output,
)

SPIN = "print('spins')\nwhile True: pass"
PINNED = f"import os; os.sched_setaffinity(0, {{0}})\n{SPIN}"
# Writes down what it holds; asked by its end of the pipe of time, it never grows by itself.
HOARD = "import time\nhoard = bytearray(60 * 2**20)\nfor i in range(0, len(hoard), 4096): hoard[i] = 1\n"
HOLD = HOARD + "print('holds')\ntime.sleep(1000)"
FORK = (
    "import os, time\n"
    "while True:\n"
    "    try:\n"
    "        pid = os.fork()\n"
    "    except OSError:\n"
    "        print('refused', flush=True); time.sleep(0.2); continue\n"
    "    if not pid: os._exit(0)\n"
    "    os.waitpid(pid, 0)\n"
    "    print('forked', flush=True); time.sleep(0.2)\n"
)


def test_cpu_and_pids_follow_the_configuration_of_a_live_run(limited):
    def services(cpu_percent, light, heavy, pids_max, cpus="1"):
        return {
            "spin": python(SPIN, resources={"cpu_percent": cpu_percent, "cpuset_cpus": cpus}),
            "light": python(PINNED, resources={"cpu_weight": light}),
            "heavy": python(PINNED, data_dir="heavy", resources={"cpu_weight": heavy, "cpuset_cpus": "0"}),
            "forks": python(FORK, data_dir="forks", resources={"pids_max": pids_max}),
        }

    live = limited(services(40, 100, 100, 20))
    wait_for_output(live, "spin", "light", "heavy", "forks")
    before = {name: info["pid"] for name, info in live.services().items()}
    (percent,) = measured(lambda: cpu_percents(live, ["spin"], 5), lambda percent: 30 <= percent <= 48)
    assert 30 <= percent <= 48
    reload(live, services(15, 100, 400, 1), "--force")  # a child may live just then
    assert {name: info["pid"] for name, info in live.services().items()} == before
    assert held(live, "spin", "cpu.max") == "15000 100000"
    assert (held(live, "light", "cpu.weight"), held(live, "heavy", "cpu.weight")) == ("100", "400")
    assert held(live, "forks", "pids.max") == "1"
    percent, light, heavy = measured(
        lambda: cpu_percents(live, ["spin", "light", "heavy"], 6),
        lambda percent, light, heavy: 10 <= percent <= 19 and heavy / light >= 2.5,
    )
    assert 10 <= percent <= 19
    assert heavy / light >= 2.5, (light, heavy)
    eventually(lambda: printed(live, "forks")[-1] == "refused", "no more forks", 30)
    assert last_cpu(before["spin"]) == 1
    unlimited = services("max", 100, 400, 20, cpus="0")
    del unlimited["heavy"]["resources"]["cpuset_cpus"]
    reload(live, unlimited)
    assert held(live, "spin", "cpu.max") == "max 100000"
    assert held(live, "spin", "cpuset.cpus") == "0"
    eventually(lambda: last_cpu(before["spin"]) == 0, "it has moved to the other CPU", 30)
    assert held(live, "heavy", "cpuset.cpus") == Path("/sys/devices/system/cpu/online").read_text().strip()
    eventually(lambda: printed(live, "forks")[-1] == "forked", "forks again", 30)
    assert {name: info["pid"] for name, info in live.services().items()} == before
    assert live.status("forks")["limits"]["pids_max"]["effective"] == 20


def test_memory_goes_down_to_what_is_in_use_and_below_it_only_by_force(limited):
    def services(mib):
        return {
            "holds": python(
                HOLD, resources={"memory_mb": mib, "memory_swap_max": 0}, restart={"policy": "never"}
            )
        }

    live = limited(services(200))
    wait_for_output(live, "holds")
    pid = live.status("holds")["pid"]
    reload(live, services(120))
    assert held(live, "holds", "memory.max") == str(120 * MIB)
    assert live.status("holds")["pid"] == pid
    done = reload(live, services(40), check=False)
    assert done.returncode == 1
    assert "cannot change memory_max of 'holds'" in done.stderr
    assert "are in use, more than 40M" in done.stderr
    assert (held(live, "holds", "memory.max"), live.status("holds")["pid"]) == (str(120 * MIB), pid)
    assert held(live, "holds", "memory.high") == str(108 * MIB)
    limit = live.status("holds")["limits"]["memory_max"]
    assert (limit["requested"], limit["effective"], limit["enforced"]) == (40 * MIB, 120 * MIB, False)
    reload(live, services(40), "--force", check=False)
    eventually(lambda: live.status("holds")["state"] == "failed", "the kernel has killed it", 60)
    assert live.status("holds")["last_exit"]["reason"] == "oom"


def test_a_take_over_gives_a_live_run_the_limits_that_are_configured_by_then(limited):
    def services(pids_max):
        return {"calm": {**SLEEP, "resources": {"pids_max": pids_max}}}

    live = limited(services(20))
    pid = live.status("calm")["pid"]
    crash(live)
    live.config.write_text(
        yaml.safe_dump(config(services(30), isolation="required", resource_limits=UNLIMITED))
    )
    live.start()
    live.ready()
    info = live.status("calm")
    assert (info["pid"], info["outdated"]) == (pid, False)
    eventually(lambda: held(live, "calm", "pids.max") == "30", "the new limit is in force", 30)
    assert counters(live.cgroup_root / "calm" / "pids.events")["max"] == 0
