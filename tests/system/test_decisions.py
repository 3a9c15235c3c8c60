"""Decisions on the real kernel: throttling, pressure, and a web server that fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.configs import SLEEP, config, python
from tests.support.neighbour import Neighbour, why
from tests.support.waiting import eventually

pytestmark = pytest.mark.needs_kernel

# Touches more than memory.high again and again: what it needs has to be brought back each time.
THRASH = """
import mmap, os
with open('big', 'wb') as file:
    file.truncate(96 * 2**20)
descriptor = os.open('big', os.O_RDWR)
memory = mmap.mmap(descriptor, 96 * 2**20)
while True:
    for page in range(0, 96 * 2**20, 4096):
        memory[page] = (memory[page] + 1) % 256
"""

NGINX = """
daemon off;
user root;
pid {directory}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    server {{
        listen 127.0.0.1:8099;
        location / {{
            if (-f {directory}/broken) {{ return 500; }}
            return 200 "fine";
        }}
    }}
}}
"""


def rules(*rules):
    return {"interval": "500ms", "grace": "0s", "rules": list(rules)}


def told(live, name):
    return [event["detail"] for event in live.events(name) if event["kind"] == "rule"]


@pytest.mark.timeout(600)
def test_throttling_and_pressure_lead_to_what_was_configured_and_to_nothing_else(supervise):
    live = supervise(
        config({
            "spins": python("while True: pass", resources={"cpu_percent": 20},
                            monitor=rules({"metric": "cpu_throttled_percent", "above": 50, "action": "log"})),
            "thrashes": python(THRASH, data_dir="thrashes", restart={"initial_delay": "60s"},
                               resources={"cpu_percent": 100, "memory_max": "256M", "memory_high": "32M"},
                               monitor=rules({"metric": "memory_pressure_percent", "above": 5,
                                              "action": "restart"})),
            "calm": {**SLEEP, "resources": {"cpu_percent": 200}, "monitor": rules(
                {"metric": "cpu_throttled_percent", "above": 50, "action": "restart"},
                {"metric": "memory_pressure_percent", "above": 5, "action": "restart"})},
        }, isolation="required")
    )  # fmt: skip
    calm = live.status("calm")["pid"]
    spins = live.status("spins")["pid"]
    eventually(lambda: told(live, "spins"), "throttling is told", 120)
    assert told(live, "spins")[0].startswith("cpu_throttled_percent above 50, log: cpu_throttled_percent ")
    info = live.until("thrashes", "restarting", 240)
    assert info["last_exit"]["reason"] == "rule"
    assert "memory_pressure_percent" in told(live, "thrashes")[0]
    assert (live.status("calm")["pid"], told(live, "calm")) == (calm, [])
    assert live.status("spins")["pid"] == spins, "a rule that logs touches nothing"


@pytest.mark.timeout(600)
def test_a_web_server_that_answers_500_is_restarted(supervise, tmp_path: Path):
    directory = tmp_path / "nginx"
    directory.mkdir()
    (directory / "nginx.conf").write_text(NGINX.format(directory=directory))
    live = supervise(
        config({
            "web": {
                "command": ["/usr/sbin/nginx", "-c", str(directory / "nginx.conf"), "-e", "stderr"],
                "tcp_port": 8099,
                "health_check": {"http": {"path": "/"}, "interval": "1s", "timeout": "10s", "retries": 2},
                "restart": {"initial_delay": "100ms"},
            },
            "after": {**SLEEP, "depends_on": {"web": {"condition": "healthy"}}},
        })
    )  # fmt: skip
    after = Neighbour(live, "after")
    assert live.status("web")["health"] == "healthy"
    (directory / "broken").touch()
    eventually(lambda: live.status("web")["restarts"] >= 1, "it is restarted", 120)
    (directory / "broken").unlink()
    eventually(lambda: live.status("web")["health"] == "healthy", "it is healthy again", 120)
    stopping = [event for event in live.events("web") if event["to"] == "stopping"]
    assert stopping[0]["reason"] == "probe_failed"
    assert "500 Internal Server Error" in stopping[0]["detail"]
    assert "500 Internal Server Error" in why(live, "web")
    after.assert_untouched()
