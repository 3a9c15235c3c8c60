"""Under a real systemd: what a service writes last while there is no supervisor is in its log.

Installs units, so it runs in the test VM only.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.live import alive
from tests.support.systemd import UNIT, Systemd, restarted_late
from tests.support.waiting import eventually

pytestmark = [pytest.mark.needs_kernel, pytest.mark.timeout(900)]

LOG = Path("/var/log/blackhole-cg/talks.log")
TALKS = """
import os, time
print("begins", flush=True)
while not os.path.exists("go"):
    time.sleep(0.02)
os.remove("go")
print("\\n".join(f"line {number}" for number in range(1000)), flush=True)
"""
ALL = ["begins", *(f"line {number}" for number in range(1000))]

system = Systemd()


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    """Of a service of the installed units, whose supervisor is restarted only after a while."""
    talks = {
        "command": [sys.executable, "-S", "-c", TALKS],
        "data_dir": str(tmp_path),
        "required": False,
        "restart": {"policy": "never"},
    }
    with restarted_late({"talks": talks}):
        yield tmp_path


def said(run_id: int) -> list[str]:
    found = [json.loads(line) for line in LOG.read_text().splitlines()]
    return [each["message"] for each in found if each["run_id"] == run_id]


def stored() -> int:
    return int(system.show("NFileDescriptorStore"))


def test_the_last_words_of_a_service_that_ends_while_nobody_supervises(data_dir):
    system.systemctl("start", UNIT)
    eventually(lambda: stored() == 2, "systemd has the FIFOs")
    for _ in range(2):
        info = system.services()["talks"]
        eventually(lambda info=info: said(info["run_id"]) == ["begins"], "it has begun")
        supervisor = int(system.show("MainPID"))
        os.kill(supervisor, 9)
        eventually(lambda pid=supervisor: not alive(pid), "there is no supervisor")
        (data_dir / "go").touch()
        eventually(lambda pid=info["pid"]: not alive(pid), "the service has ended")
        assert system.show("MainPID") == "0", "and the next supervisor has not come yet"
        eventually(lambda info=info: said(info["run_id"]) == ALL, "all is in the log", 60)
        eventually(lambda: system.show("ActiveState") == "active", "the next one is there", 60)
        assert system.services()["talks"]["state"] == "failed"
        system.run("blackhole-cg", "start", "talks")
        assert stored() == 2
    system.systemctl("stop", UNIT)
    assert stored() == 0
