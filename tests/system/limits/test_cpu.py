"""cpu.max, cpu.weight and cpuset.cpus."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.configs import python
from tests.support.evidence import record
from tests.system.limits.measure import counters, cpu_percents, held, last_cpu, measured, wait_for_output

SPIN = "print('spins')\nwhile True: pass"


def test_cpu_max_gives_a_spinning_service_its_share_and_no_more(limited):
    live = limited({"spin": python(SPIN, resources={"cpu_percent": 20})})
    wait_for_output(live, "spin")
    stat = live.cgroup_root / "spin" / "cpu.stat"

    def measure() -> list[float]:
        before = counters(stat)["nr_throttled"]
        (percent,) = cpu_percents(live, ["spin"], 10)
        return [percent, counters(stat)["nr_throttled"] - before]

    percent, throttled = measured(measure, lambda percent, _: 17 <= percent <= 23)
    assert 17 <= percent <= 23
    assert throttled > 0
    assert held(live, "spin", "cpu.max") == "20000 100000"
    assert live.status("spin")["limits"]["cpu_max"]["enforced"]
    effect = f"an endless loop used {percent:.1f} % of a core over 10 s, throttled {throttled:.0f} times"
    record("cpu.max", "cpu_percent: 20", held(live, "spin", "cpu.max"), effect, "CFS bandwidth")


def test_cpu_weight_divides_a_contended_cpu(limited):
    pinned = f"import os; os.sched_setaffinity(0, {{0}})\n{SPIN}"
    live = limited({
        "light": python(pinned, resources={"cpu_weight": 100}),
        "heavy": python(pinned, data_dir="heavy", resources={"cpu_weight": 400}),
    })  # fmt: skip
    wait_for_output(live, "light", "heavy")
    light, heavy = measured(
        lambda: cpu_percents(live, ["light", "heavy"], 6), lambda light, heavy: 3 <= heavy / light <= 5
    )
    assert 3 <= heavy / light <= 5, (light, heavy)
    assert held(live, "heavy", "cpu.weight") == "400"
    ratio = f"{heavy:.0f} % and {light:.0f} %, {heavy / light:.1f} : 1"
    effect = f"two endless loops on one CPU, 400 beside 100: {ratio}"
    record("cpu.weight", "cpu_weight: 400", held(live, "heavy", "cpu.weight"), effect, "scheduler weight")


def test_cpuset_keeps_every_process_on_its_cpu(limited):
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("there is only one CPU here")
    script = f"import os; os.fork()\n{SPIN}"
    live = limited({"spin": python(script, resources={"cpuset_cpus": "0"})})
    wait_for_output(live, "spin")
    (percent,) = cpu_percents(live, ["spin"], 5)
    pids = held(live, "spin", "cgroup.procs").split()
    assert len(pids) == 2
    assert percent <= 105, "two processes have one CPU between them"
    status = [Path(f"/proc/{pid}/status").read_text() for pid in pids]
    assert all("Cpus_allowed_list:\t0\n" in text for text in status)
    assert [last_cpu(int(pid)) for pid in pids] == [0, 0]
    assert held(live, "spin", "cpuset.cpus") == "0"
    effect = f"two endless loops used {percent:.0f} % of a core together, both on CPU 0"
    record("cpuset.cpus", 'cpuset_cpus: "0"', held(live, "spin", "cpuset.cpus"), effect, "cpuset")
