"""A ladder of rules on the real kernel: memory is taken back, weights go down and up again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.configs import SLEEP, config, python
from tests.support.live import Live, cgroup_mount, crash
from tests.support.neighbour import Neighbour, why
from tests.support.waiting import eventually

pytestmark = pytest.mark.needs_kernel

# Has 64 MiB of page cache and, until the file "enough" is there, as much memory of its own.
HOARD = """
import os, time
with open('cache', 'wb') as file:
    file.write(b'x' * 64 * 2**20)
    os.fsync(file.fileno())
hoard = bytearray(b'x' * 64 * 2**20)
while not os.path.exists('enough'):
    time.sleep(0.1)
del hoard
time.sleep(1000)
"""
RULES = [
    {"name": "much", "metric": "memory_bytes", "above": "40M", "action": "weight", "cpu_weight": 10,
     "io_weight": 20, "cooldown": "1h"},
    {"name": "more", "metric": "memory_bytes", "above": "50M", "action": "reclaim", "reclaim": "48M",
     "cooldown": "1h"},
]  # fmt: skip


def read(live: Live, file: str) -> str:
    return Path(f"{cgroup_mount()}{live.status('web')['cgroup']}/{file}").read_text()


@pytest.mark.timeout(600)
def test_memory_is_reclaimed_and_weights_are_lowered_until_it_is_free(supervise):
    live = supervise(
        config({
            "web": python(HOARD, data_dir="web", resources={"cpu_weight": 300, "memory_max": "400M"},
                          monitor={"interval": "2s", "grace": "0s", "rules": RULES}),
            "calm": {**SLEEP, "monitor": {"interval": "2s", "grace": "0s", "rules": RULES}},
        })
    )  # fmt: skip
    calm = Neighbour(live, "calm")
    pid = live.status("web")["pid"]
    eventually(lambda: read(live, "cpu.weight") == "10\n", "the weight is lowered", 240)
    limits = live.status("web")["limits"]
    assert (limits["cpu_weight"]["requested"], limits["cpu_weight"]["effective"]) == (300, 10)
    assert limits["cpu_weight"]["reason"].startswith("changed by a rule")
    assert limits["io_weight"]["effective"] == 20
    assert read(live, "io.weight") == "default 20\n"
    told = eventually(lambda: "action: reclaim" in why(live, "web"), "memory is reclaimed", 240)
    assert told
    eventually(lambda: reclaimed_bytes(live) >= 16 * 2**20, "the kernel has taken some back", 240)
    (live.directory / "web" / "enough").touch()
    eventually(lambda: read(live, "cpu.weight") == "300\n", "the weight is as before", 240)
    limit = live.status("web")["limits"]["cpu_weight"]
    assert (limit["requested"], limit["effective"], limit["enforced"]) == (300, 300, True)
    assert "much: back within bounds" in why(live, "web")
    assert (live.status("web")["pid"], live.status("web")["restarts"]) == (pid, 0)
    calm.assert_untouched()


@pytest.mark.timeout(600)
def test_the_next_supervisor_begins_with_the_usual_weight(supervise):
    rule = {"metric": "uptime_seconds", "above": "1s", "action": "weight", "cpu_weight": 10, "cooldown": "1h"}
    live = supervise(
        config({"web": {**SLEEP, "monitor": {"interval": "1s", "grace": "0s", "rules": [rule]}}})
    )
    eventually(lambda: read(live, "cpu.weight") == "10\n", "the weight is lowered", 240)
    assert live.status("web")["limits"]["cpu_weight"]["effective"] == 10
    text = live.config.read_text()
    crash(live)
    live.config.write_text(text.replace("1s", "1h"))
    live.start().ready()
    assert read(live, "cpu.weight") == "100\n"
    assert "cpu_weight" not in live.status("web")["limits"]


def reclaimed_bytes(live: Live) -> int:
    """What was taken back at our request or the kernel's own."""
    counters = dict(line.split() for line in read(live, "memory.stat").splitlines())
    return 4096 * int(counters["pgsteal"])
