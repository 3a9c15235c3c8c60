"""Under a real systemd: active when everything is up, and services that outlive their supervisor.

Installs units, so it runs in the test VM only.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.support.live import ROOT, alive
from tests.support.waiting import eventually

pytestmark = pytest.mark.needs_kernel

UNIT = "blackhole-cg.service"
HOLDER = "blackhole-cg-services.service"
UNITS = Path("/etc/systemd/system")
CONFIG = Path("/etc/blackhole-cg/blackhole.yaml")
SERVICES = {
    "migrate": {"type": "oneshot", "command": ["/bin/true"]},
    "db": {"command": ["/bin/sleep", "infinity"], "depends_on": {"migrate": {"condition": "completed"}}},
    "web": {
        "command": ["/bin/sleep", "infinity"],
        "depends_on": ["db"],
        "resources": {"cpu_percent": 20, "memory_mb": 64, "processes": 10, "io_weight": 200},
    },
}


def systemctl(*arguments: str, check: bool = True) -> str:
    done = subprocess.run(["systemctl", *arguments], capture_output=True, text=True, timeout=300, check=False)
    if check and done.returncode:
        journal = subprocess.run(
            ["journalctl", "-u", UNIT, "-n", "40"], capture_output=True, text=True, check=False
        )
        raise AssertionError(f"systemctl {arguments}: {done.stderr}\n{journal.stdout}")
    return done.stdout.strip()


def show(name: str, unit: str = UNIT) -> str:
    return systemctl("show", "--value", "-p", name, unit)


def services() -> dict[str, dict]:
    done = subprocess.run(
        ["blackhole-cg", "status", "--json"], capture_output=True, text=True, timeout=60, check=True
    )
    return {each["name"]: each for each in json.loads(done.stdout)["services"]}


@pytest.fixture
def unit() -> Iterator[None]:
    """The units of this tree, with a configuration of three services; everything is removed afterwards."""
    if os.environ.get("BLACKHOLE_CG_TEST_VM") != "1":
        pytest.skip("installs systemd units, so it runs in the test VM only")
    command = shutil.which("blackhole-cg")
    assert command, "the package is installed in the VM"
    for file in (ROOT / "systemd").glob("*.service"):
        text = file.read_text().replace("@PREFIX@", str(Path(command).parents[1]))
        (UNITS / file.name).write_text(text)
    CONFIG.parent.mkdir(exist_ok=True)
    orchestrator = {"isolation": "required", "restart_policy": {"initial_delay": "100ms"}}
    CONFIG.write_text(yaml.safe_dump({"runtime": {"orchestrator": orchestrator}, "services": SERVICES}))
    systemctl("daemon-reload")
    yield
    systemctl("stop", UNIT, HOLDER, check=False)
    for file in (ROOT / "systemd").glob("*.service"):
        (UNITS / file.name).unlink()
    systemctl("daemon-reload")


@pytest.mark.timeout(900)
def test_the_unit_is_active_when_all_is_up_and_stop_ends_everything_in_order(unit):
    systemctl("start", UNIT)
    assert show("ActiveState") == "active"
    found = services()
    assert {name: info["state"] for name, info in found.items()} == {
        "migrate": "completed",
        "db": "running",
        "web": "running",
    }
    eventually(lambda: "2 running" in show("StatusText"), "a summary as status text")
    assert found["web"]["cgroup"] == f"/system.slice/{HOLDER}/web"
    limits = found["web"]["limits"]
    for name in ("cpu_max", "memory_max", "memory_high", "pids_max", "nproc"):
        assert limits[name]["enforced"], (name, limits[name])
    cgroup = Path("/sys/fs/cgroup") / found["web"]["cgroup"].lstrip("/")
    assert (cgroup / "cpu.max").read_text() == "20000 100000\n"
    assert (cgroup / "memory.max").read_text() == f"{64 * 2**20}\n"
    assert (cgroup / "pids.max").read_text() == "10\n"
    pids = [found[name]["pid"] for name in ("db", "web")]
    systemctl("stop", UNIT)
    assert not any(map(alive, pids))
    assert show("ActiveState") == "inactive"
    assert show("Result") == "success"


@pytest.mark.timeout(900)
def test_services_outlive_a_killed_and_a_restarted_supervisor(unit):
    systemctl("start", UNIT)
    before = services()
    for round_number in range(2):
        main = int(show("MainPID"))
        os.kill(main, 9)
        eventually(
            lambda main=main: show("ActiveState") == "active" and int(show("MainPID")) not in (0, main),
            f"systemd has started it again, round {round_number}",
            120,
        )
        check_same(before)
    systemctl("restart", UNIT)
    check_same(before)
    systemctl("daemon-reload")
    check_same(before)
    systemctl("stop", HOLDER)
    check_same(before)
    systemctl("restart", UNIT)
    check_same(before)
    os.kill(before["web"]["pid"], 9)
    again = eventually(
        lambda: (
            (info := services()["web"])["run_id"] == before["web"]["run_id"] + 1
            and info["state"] == "running"
            and info
        ),
        "web runs again, with its limits",
        60,
    )
    assert again["limits"]["memory_max"]["enforced"]
    systemctl("stop", UNIT)
    assert not alive(before["db"]["pid"])


def check_same(before: dict[str, dict]) -> None:
    found = services()
    for name in ("db", "web"):
        assert found[name]["pid"] == before[name]["pid"], name
        assert found[name]["state"] == "running"
    same = found["migrate"]["run_id"] == before["migrate"]["run_id"]
    assert same, "a oneshot that is done is not run again"


@pytest.mark.timeout(900)
def test_a_start_that_fails_is_a_failed_unit_with_the_reason_in_the_journal(unit):
    config = yaml.safe_load(CONFIG.read_text())
    config["services"]["web"]["command"] = ["/bin/sh", "-c", "exit 3"]
    config["services"]["web"]["type"] = "oneshot"
    CONFIG.write_text(yaml.safe_dump(config))
    systemctl("start", "--no-block", UNIT)
    eventually(lambda: "cannot start 'web': exit 3" in journal(), "the reason is in the journal", 120)
    assert show("ActiveState") != "active"
    systemctl("stop", UNIT)


def journal() -> str:
    done = subprocess.run(["journalctl", "-u", UNIT, "-b"], capture_output=True, text=True, check=False)
    return done.stdout
