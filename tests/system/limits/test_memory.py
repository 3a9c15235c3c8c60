"""memory.max, memory.high, memory.oom.group, memory.swap.max and memory.low."""

from __future__ import annotations

import contextlib

from tests.support.configs import SLEEP, python
from tests.support.evidence import record
from tests.support.waiting import eventually
from tests.system.limits.loads import GROW, GROW_TO_MIB, NO_RETRY, grown_mib, settled
from tests.system.limits.measure import MIB, counters, held, printed, wait_for_output


def test_memory_max_kills_the_service_that_outgrows_it_and_the_policy_restarts_it(limited):
    resources = {"memory_mb": 40, "memory_high": "max"}
    live = limited({
        "grows": python(GROW, resources=resources, restart={"initial_delay": "1s"}),
        "calm": {**SLEEP, "resources": {"memory_mb": 40}},
    })  # fmt: skip
    calm = live.status("calm")["pid"]
    eventually(
        lambda: "all of it" in printed(live, "grows") or live.status("grows")["run_id"] > 1,
        "it was killed and started again",
        120,
    )
    info = live.status("grows")
    assert info["last_exit"] is not None, "it has grown past its limit and lives"
    assert (info["last_exit"]["reason"], info["last_exit"]["signal"]) == ("oom", 9)
    reasons = [event["reason"] for event in live.events("grows") if event["to"] == "restarting"]
    assert set(reasons) == {"oom"}
    assert live.status("calm")["pid"] == calm
    assert held(live, "calm", "memory.max") == str(40 * MIB)
    size = grown_mib(live, "grows")
    assert 20 <= size <= 40
    effect = (
        f"a growing service was killed at {size} MiB of its own data (`oom`) and restarted; "
        "its neighbour ran on"
    )
    record("memory.max", "memory_mb: 40", str(40 * MIB), effect, "memory controller")


def test_memory_oom_group_decides_whether_the_main_process_goes_with_its_child(limited):
    script = (
        "import os, time\n"
        f"if os.fork() == 0: exec({GROW!r})\n"
        "os.wait()\n"
        "print('all of it')\n"
        "time.sleep(1000)\n"
    )
    resources = {"memory_mb": 40, "memory_high": "max"}
    live = limited({
        "together": python(script, resources=resources, restart=NO_RETRY),
        "apart": python(script, data_dir="apart", resources={**resources, "memory_oom_group": False}),
    })  # fmt: skip
    group = held(live, "together", "memory.oom.group")
    settled(live, "together")
    settled(live, "apart")
    together, apart = live.status("together"), live.status("apart")
    assert (together["state"], apart["state"]) == ("restarting", "running")
    assert together["last_exit"]["reason"] == "oom"
    assert counters(live.cgroup_root / "apart" / "memory.events")["oom_kill"] == 1
    assert group == "1"
    effect = "a child outgrew memory.max: its parent was killed with it; with `false`, the child alone"
    record("memory.oom.group", "the default, true", group, effect, "memory controller")


def test_memory_high_is_90_percent_by_default_and_reclaims_without_a_kill(limited, tmp_path):
    file = tmp_path / "file"
    with file.open("wb") as sparse:
        sparse.truncate(150 * MIB)
    script = (
        "import time\n"
        f"with open({str(file)!r}, 'rb', 0) as file:\n"
        "    while file.read(2**20): pass\n"
        "print('has read it')\n"
        "time.sleep(1000)\n"
    )
    live = limited({"reader": python(script, resources={"memory_mb": 64})})
    wait_for_output(live, "reader")
    events = counters(live.cgroup_root / "reader" / "memory.events")
    assert events["high"] > 0
    assert events["max"] == 0, "memory.high held it back before memory.max"
    assert events["oom_kill"] == 0
    assert live.status("reader")["run_id"] == 1
    high, current = int(held(live, "reader", "memory.high")), int(held(live, "reader", "memory.current"))
    assert high == 64 * MIB * 9 // 10 // 4096 * 4096
    assert current <= high
    effect = (
        f"150 MiB read through the page cache left {current / MIB:.0f} MiB charged; "
        f"{events['high']} times over memory.high, 0 times at memory.max, no kill"
    )
    record("memory.high", "memory_mb: 64, so 90 % of it", str(high), effect, "memory controller")


def test_memory_swap_max_bounds_what_is_swapped(swap, limited):  # the services must end before swapoff
    bounded, roomy = (
        {"memory_mb": 40, "memory_high": "max", "memory_swap_max": size} for size in ("8M", "200M")
    )
    live = limited({
        "bounded": python(GROW, resources=bounded, restart=NO_RETRY),
        "roomy": python(GROW, data_dir="roomy", resources=roomy),
    })  # fmt: skip
    swap_max = held(live, "bounded", "memory.swap.max")
    settled(live, "bounded")
    settled(live, "roomy")
    info = live.status("bounded")
    assert info["state"] == "restarting", "it found more swap than it was given"
    assert info["last_exit"]["reason"] == "oom"
    assert live.status("roomy")["state"] == "running"
    swapped = int(held(live, "roomy", "memory.swap.current"))
    assert 40 * MIB <= swapped <= 200 * MIB
    assert swap_max == str(8 * MIB)
    size = grown_mib(live, "bounded")
    assert 40 <= size <= 48
    effect = (
        f"with memory_mb 40, a growing service was killed at {size} MiB; with 200M of swap it had all "
        f"{GROW_TO_MIB} MiB, {swapped // MIB} of them swapped"
    )
    record("memory.swap.max", "memory_swap_max: 8M", swap_max, effect, "memory controller")


def test_memory_low_is_spared_while_a_neighbour_has_memory_to_give(limited, tmp_path):
    def reader(name: str, resources: dict[str, object]) -> dict[str, object]:
        file = tmp_path / name
        with file.open("wb") as sparse:
            sparse.truncate(32 * MIB)
        script = f"import time; size = len(open({str(file)!r}, 'rb').read()); print(size); time.sleep(1000)"
        return python(script, data_dir=f"{name}-data", resources=resources)

    live = limited({"spared": reader("spared", {"memory_low": "100M"}), "plain": reader("plain", {})})
    wait_for_output(live, "spared", "plain")

    def cached() -> list[int]:
        return [counters(live.cgroup_root / name / "memory.stat")["file"] for name in ("spared", "plain")]

    before = cached()
    with contextlib.suppress(BlockingIOError):  # not all of it could be reclaimed
        (live.cgroup_root / "memory.reclaim").write_text("20M")
    lost = [(then - now) / MIB for then, now in zip(before, cached(), strict=True)]
    assert lost[1] >= 10, lost
    assert lost[0] <= lost[1] / 4, lost
    assert held(live, "spared", "memory.low") == str(100 * MIB)
    effect = (
        f"20 MiB were reclaimed from the two: it lost {lost[0]:.1f} MiB of page cache, "
        f"its neighbour {lost[1]:.1f}"
    )
    record("memory.low", "memory_low: 100M", held(live, "spared", "memory.low"), effect, "memory controller")
