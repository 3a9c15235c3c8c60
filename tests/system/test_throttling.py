"""cpu_max where the kernel cannot keep it: a service is frozen for moments, and never left so."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.configs import SLEEP, config, python
from tests.support.live import Live, cgroup_mount, crash
from tests.support.ports import free_port
from tests.support.waiting import eventually

SPIN = "while True: pass\n"
RESOURCES = {"cpu_percent": 20}
WINDOW_SECONDS = 5.0

SPIN_AND_SERVE = """
import http.server, sys, threading
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_):
        pass
server = http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
while True: pass
"""


def directory(info: dict) -> Path:
    return Path(f"{cgroup_mount()}{info['cgroup']}")


def is_frozen(group: Path) -> bool:
    return (group / "cgroup.freeze").read_text().strip() == "1"


def used_seconds(group: Path) -> float:
    return int((group / "cpu.stat").read_text().split()[1]) / 1e6


def until_throttled(live: Live, name: str) -> dict:
    info = live.status(name)
    if info["limits"]["cpu_max"]["enforced"]:
        pytest.skip("the kernel enforces cpu_max here")
    eventually(lambda: is_frozen(directory(info)), f"{name} is held", 60)
    return info


def watch(group: Path, seconds: float) -> Iterator[bool]:
    """Whether it is frozen, again and again."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield is_frozen(group)
        time.sleep(0.01)


def test_a_service_that_spins_gets_its_share_and_its_neighbour_is_not_touched(supervise):
    live = supervise(
        config({
            "spins": python(SPIN, resources=RESOURCES),
            "free": python("import time\nwhile True: time.sleep(0.02)\n", resources={"cpu_percent": 50}),
        })
    )  # fmt: skip
    free = live.status("free")
    info = until_throttled(live, "spins")
    limit = info["limits"]["cpu_max"]
    assert (limit["requested"], limit["effective"]) == ("20000 100000", None)
    assert limit["reason"].endswith("; the monitor throttles the service by freezing it")
    group, neighbour = directory(info), directory(free)
    time.sleep(2)  # what it used before the first look is being paid for
    before, began = used_seconds(group), time.monotonic()
    assert not any(watch(neighbour, WINDOW_SECONDS))
    percent = 100 * (used_seconds(group) - before) / (time.monotonic() - began)
    assert 10 <= percent <= 26
    why = live.cli("why", "spins").stdout
    assert "cpu_max: used more than 20% of a processor; the monitor throttles it" in " ".join(why.split())
    assert len([event for event in live.events("spins") if event["kind"] == "rule"]) == 1, "told once"
    after = live.status("free")
    assert (after["pid"], after["run_id"]) == (free["pid"], free["run_id"])
    assert not [event for event in live.events("free") if event["kind"] == "rule"]


def test_a_service_that_is_held_answers_its_probes_and_can_be_stopped(supervise):
    service = python(SPIN_AND_SERVE, resources=RESOURCES, tcp_port=free_port())
    service["command"] = [*service["command"], "{tcp_port}"]
    check = {"http": {"path": "/"}, "interval": "200ms", "timeout": "10s", "retries": 1}
    live = supervise(config({"web": {**service, "health_check": check}}))
    group = directory(until_throttled(live, "web"))
    assert any(watch(group, 3))
    assert (live.status("web")["health"], live.status("web")["restarts"]) == ("healthy", 0)
    live.cli("stop", "web")
    stopped = live.status("web")
    assert (stopped["state"], stopped["last_exit"]["signal"]) == ("stopped", signal.SIGTERM)
    assert not group.exists()


def test_the_next_supervisor_lets_go_what_a_killed_one_held_and_nothing_else(supervise):
    spins = python(SPIN, resources=RESOURCES)
    live = supervise(config({"spins": spins, "frozen": {**SLEEP, "resources": RESOURCES}}))
    info = until_throttled(live, "spins")
    group, other = directory(info), directory(live.status("frozen"))
    (other / "cgroup.freeze").write_text("1")
    os.kill(live.pid, signal.SIGSTOP)
    while not is_frozen(group):
        os.kill(live.pid, signal.SIGCONT)
        time.sleep(0.03)
        os.kill(live.pid, signal.SIGSTOP)
    crash(live)
    assert is_frozen(group)
    live.start().ready()
    assert live.status("spins")["pid"] == info["pid"]
    before = used_seconds(group)
    eventually(lambda: used_seconds(group) > before + 0.05, "it goes on", 60)
    eventually(lambda: is_frozen(group), "it is held by the new one", 60)
    assert is_frozen(other), "whoever froze it has a reason"
    (other / "cgroup.freeze").write_text("0")
    before, began = used_seconds(group), time.monotonic()
    time.sleep(2)
    assert (used_seconds(group) - before) / (time.monotonic() - began) < 0.5


def test_a_freeze_by_a_rule_is_not_undone(supervise):
    rules = {"interval": "200ms", "grace": "0s", "rules": [
        {"metric": "uptime_seconds", "above": "2s", "action": "freeze", "cooldown": "1h"}]}  # fmt: skip
    live = supervise(config({"spins": python(SPIN, resources=RESOURCES, monitor=rules)}))
    info = until_throttled(live, "spins")
    group = directory(info)
    eventually(lambda: "action: freeze" in live.cli("events", "spins").stdout, "the rule fires", 60)
    eventually(lambda: is_frozen(group), "it is frozen", 10)
    before = used_seconds(group)
    assert all(watch(group, 1))
    assert used_seconds(group) - before < 0.05
