"""What changing a limit of a live run does to it, by the limit: memory, swap and the disk."""

from __future__ import annotations

import contextlib
import os

from tests.support.configs import python
from tests.support.waiting import eventually
from tests.system.limits.conftest import reload
from tests.system.limits.loads import GROW, NO_RETRY, grown, grown_mib, reader, settled
from tests.system.limits.measure import MIB, counters, held, measured, wait_for_output

WHEN_TOLD = "import os, time\nprint('waits')\nwhile not os.path.exists('go'): time.sleep(0.1)\n"
IN_CHILD = f"if os.fork() == 0: exec({GROW!r})\nos.wait()\nprint('all of it')\ntime.sleep(1000)\n"


def test_low_and_high_memory_decide_what_a_live_run_keeps(limited, tmp_path):
    file_mib = 32

    def caches(name, **resources):
        file = str(tmp_path / name)
        script = f"import time; print(len(open({file!r}, 'rb').read())); time.sleep(1000)"
        return python(script, data_dir=f"{name}-data", resources=resources)

    def cached():
        return [
            counters(live.cgroup_root / name / "memory.stat")["file"] / MIB for name in ("spared", "plain")
        ]

    for name in ("spared", "plain"):
        (tmp_path / name).touch()
        os.truncate(tmp_path / name, file_mib * MIB)
    live = limited({"spared": caches("spared", memory_low="1M"), "plain": caches("plain")})
    wait_for_output(live, "spared", "plain")
    pids = {name: info["pid"] for name, info in live.services().items()}
    reload(live, {"spared": caches("spared", memory_low="100M"), "plain": caches("plain")})
    assert held(live, "spared", "memory.low") == str(100 * MIB)
    before = cached()
    with contextlib.suppress(BlockingIOError):  # not all of it could be reclaimed
        (live.cgroup_root / "memory.reclaim").write_text("12M")
    spared, plain = (then - now for then, now in zip(before, cached(), strict=True))
    assert plain >= 6, (spared, plain)
    assert spared <= plain / 4, (spared, plain)
    assert int(held(live, "spared", "memory.current")) > 24 * MIB
    high = {"spared": caches("spared", memory_high="20M"), "plain": caches("plain")}
    reload(live, high)
    assert (held(live, "spared", "memory.low"), held(live, "spared", "memory.high")) == ("0", str(20 * MIB))
    eventually(
        lambda: int(held(live, "spared", "memory.current")) <= 20 * MIB, "what is above is taken back", 30
    )
    assert counters(live.cgroup_root / "spared" / "memory.events")["oom_kill"] == 0
    assert {name: info["pid"] for name, info in live.services().items()} == pids


def test_swap_and_the_oom_group_of_a_live_run_count_when_it_grows(swap, limited):
    def services(bounded, roomy, group):
        memory = {"memory_mb": 40, "memory_high": "max"}

        def grows(name, script, **more):
            resources = {**memory, **more}
            return python(script, data_dir=name, resources=resources, restart=NO_RETRY)

        return {
            "bounded": grows("bounded", WHEN_TOLD + GROW, memory_swap_max=bounded),
            "roomy": grows("roomy", WHEN_TOLD + GROW, memory_swap_max=roomy),
            "parent": grows("parent", WHEN_TOLD + IN_CHILD, memory_swap_max=0, memory_oom_group=group),
        }

    live = limited(services("200M", 0, True))
    wait_for_output(live, "bounded", "roomy", "parent")
    pids = {name: info["pid"] for name, info in live.services().items()}
    reload(live, services("8M", "200M", False))
    assert held(live, "bounded", "memory.swap.max") == str(8 * MIB)
    assert held(live, "roomy", "memory.swap.max") == str(200 * MIB)
    assert held(live, "parent", "memory.oom.group") == "0"
    assert {name: info["pid"] for name, info in live.services().items()} == pids
    for name in pids:
        (live.directory / name / "go").touch()
    for name in pids:
        settled(live, name)
    bounded, roomy, parent = (live.status(name) for name in ("bounded", "roomy", "parent"))
    assert (bounded["state"], bounded["last_exit"]["reason"]) == ("restarting", "oom")
    assert grown_mib(live, "bounded") <= 48
    assert (roomy["state"], roomy["pid"]) == ("running", pids["roomy"])
    assert int(held(live, "roomy", "memory.swap.current")) >= 40 * MIB
    assert (parent["state"], parent["pid"]) == ("running", pids["parent"])
    assert counters(live.cgroup_root / "parent" / "memory.events")["oom_kill"] == 1
    reload(live, services("8M", None, False))
    assert held(live, "roomy", "memory.swap.max") == "max"


def test_the_weight_and_the_bounds_of_a_disk_change_what_a_live_run_gets(limited, bfq):
    def services(heavy, **more):
        return {
            "light": reader(bfq, "light", io_weight=100),
            "heavy": reader(bfq, "heavy", io_weight=heavy, **more),
        }

    live = limited(services(100))
    pids = {name: info["pid"] for name, info in live.services().items()}

    def shares() -> list[float]:
        return grown(live, bfq, ("light", "rbytes"), ("heavy", "rbytes"))

    light, heavy = measured(shares, lambda light, heavy: 0.5 <= heavy / light <= 2)
    before = heavy / light  # about 1, on a machine with nothing else to do
    assert 0.5 <= before <= 2, (light, heavy)
    reload(live, services(1000))
    assert [held(live, "heavy", file) for file in ("io.weight", "io.bfq.weight")] == ["default 1000"] * 2
    light, heavy = measured(shares, lambda light, heavy: heavy / light >= 1.25 * before)
    assert heavy / light >= 1.25 * before, (light, heavy, before)  # how far it goes is what test_io measures
    reload(live, services(1000, io_max={bfq.number: {"riops": 20, "wbps": "3M"}}))
    assert held(live, "heavy", "io.max") == f"{bfq.number} rbps=max wbps={3 * MIB} riops=20 wiops=max"
    (bounded,) = measured(lambda: grown(live, bfq, ("heavy", "rios")), lambda rate: 16 <= rate <= 24)
    assert 16 <= bounded <= 24
    reload(live, services(1000))
    assert held(live, "heavy", "io.max") == ""
    (free,) = measured(lambda: grown(live, bfq, ("heavy", "rios")), lambda rate: rate >= 2 * bounded)
    assert free >= 2 * bounded, (bounded, free)
    assert {name: info["pid"] for name, info in live.services().items()} == pids
