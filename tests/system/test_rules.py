"""Rules on a real supervisor: each leak leads to what was configured for it, and to nothing else."""

from __future__ import annotations

import os

import pytest

from tests.support.configs import SLEEP, config, python
from tests.support.live import state_times
from tests.support.neighbour import Neighbour, why
from tests.support.waiting import eventually

LEAK_MEMORY = "hoard = []\nwhile True: hoard.append(bytearray(b'x' * 2**20)); time.sleep(0.2)\n"  # 5 MB/s
LEAK_FILES = "hoard = []\nwhile True: hoard.append(open('/dev/null')); time.sleep(0.01)\n"
LEAK_THREADS = (
    "while True: threading.Thread(target=time.sleep, args=(1000,), daemon=True).start(); time.sleep(0.05)\n"
)
SPIN = "while True: pass\n"
FAULT_SECONDS = 60.0
"""Each fault is there after ten at the latest and seen half a second later; the rest is for a busy host."""


def rule(**fields):
    return {"interval": "500ms", "grace": "0s", "rules": [fields]}


def faulty(script, **fields):
    return python(
        f"import threading, time\n{script}", restart={"initial_delay": "30s"}, monitor=rule(**fields)
    )


def test_each_fault_leads_to_its_action_and_neighbours_are_left_alone(supervise):
    live = supervise(
        config({
            "memory": faulty(LEAK_MEMORY, metric="memory_rss_bytes", above="30M", action="restart"),
            "files": faulty(LEAK_FILES, metric="open_files", above=100, action="restart"),
            "threads": faulty(LEAK_THREADS, metric="threads", above=20, action="stop"),
            "spins": faulty(SPIN, metric="cpu_percent", above=20, times=2, within="30s", action="restart"),
            "calm": {**SLEEP, "monitor": {"interval": "500ms", "grace": "0s", "rules": [
                {"metric": "memory_rss_bytes", "above": "30M", "action": "restart"},
                {"metric": "open_files", "above": 100, "action": "restart"},
                {"metric": "cpu_percent", "above": 20, "times": 2, "within": "30s", "action": "restart"},
                {"metric": "threads", "above": 20, "action": "restart"}]}},
        })
    )  # fmt: skip
    calm = Neighbour(live, "calm")
    for name, metric, state in (
        ("memory", "memory_rss_bytes", "restarting"),
        ("files", "open_files", "restarting"),
        ("threads", "threads", "stopped"),
        ("spins", "cpu_percent", "restarting"),
    ):
        info = live.until(name, state, 90)
        assert info["last_exit"]["reason"] == "rule"
        events = live.events(name)
        told = [event for event in events if event["kind"] == "rule"]
        assert [event["reason"] for event in told] == ["rule"], "exactly one action"
        assert f"{metric} " in told[0]["detail"]
        stopping = [event for event in events if event["to"] == "stopping"]
        assert [event["reason"] for event in stopping] == ["rule"]
        assert " above " in stopping[0]["detail"]
        assert state_times(events, "stopping")[0] - state_times(events, "running")[0] < FAULT_SECONDS
        assert f"rule {told[0]['detail'].partition(';')[0]}" in why(live, name)
    calm.assert_untouched()


def test_a_service_that_is_only_logged_and_signalled_runs_on(supervise):
    script = (
        "import signal, time\n"
        "signal.signal(signal.SIGUSR1, lambda *_: print('told', flush=True))\n"
        "while True: time.sleep(1)\n"
    )
    live = supervise(
        config({
            "web": python(script, monitor={"interval": "200ms", "grace": "0s", "rules": [
                {"metric": "uptime_seconds", "above": "1s", "action": "log"},
                {"metric": "uptime_seconds", "above": "1s", "action": "signal", "signal": "USR1"}]}),
        })
    )  # fmt: skip
    pid = live.status("web")["pid"]
    eventually(lambda: "told" in live.cli("logs", "web").stdout, "the signal arrived", 60)
    kinds = [event["detail"] for event in live.events("web") if event["kind"] == "rule"]
    assert any(detail.endswith("action: log") for detail in kinds)
    assert any(detail.endswith("action: signal") for detail in kinds)
    assert live.status("web")["pid"] == pid


def test_a_frozen_service_can_be_stopped(supervise):
    live = supervise(
        config({
            "web": {**SLEEP, "monitor": {"interval": "200ms", "grace": "0s", "rules": [
                {"metric": "uptime_seconds", "above": "1s", "action": "freeze"}]}},
        })
    )  # fmt: skip
    info = live.status("web")
    frozen = f"/sys/fs/cgroup{info['cgroup']}/cgroup.freeze"
    mount = str(live.cgroup_root.parent)
    frozen = frozen.replace("/sys/fs/cgroup", mount)
    eventually(lambda: open(frozen).read().strip() == "1", "it is frozen", 60)  # noqa: SIM115
    live.cli("stop", "web")
    stopped = live.status("web")
    assert (stopped["state"], stopped["last_exit"]["signal"]) == ("stopped", 15)
    assert not os.path.exists(frozen)


def test_a_memory_limit_that_the_kernel_cannot_keep_is_kept_by_the_monitor(supervise):
    live = supervise(
        config({
            "memory": python(
                f"import time\n{LEAK_MEMORY.replace('0.2', '0.05')}",
                restart={"initial_delay": "30s"},
                resources={"memory_mb": 60},
                monitor={"interval": "500ms"},
            ),
        })
    )  # fmt: skip
    limit = live.status("memory")["limits"]["memory_max"]
    if limit["enforced"]:
        pytest.skip("the kernel enforces memory_max here")
    assert limit["reason"].endswith("; the monitor restarts the service above it")
    info = live.until("memory", "restarting", 90)
    assert info["last_exit"]["reason"] == "rule"
    told = [event["detail"] for event in live.events("memory") if event["kind"] == "rule"]
    assert "memory_max, enforced by the monitor because the kernel cannot here" in told[0]
