"""Under a real systemd: active when everything is up, and services that outlive their supervisor.

Installs units, so it runs in the test VM only.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.support.live import alive
from tests.support.systemd import HOLDER, UNIT, Systemd, installed_prefix, require_test_vm
from tests.support.waiting import eventually

pytestmark = [pytest.mark.needs_kernel, pytest.mark.timeout(900)]

UNITS = Path("/run/systemd/system")
CONFIG = Path("/etc/blackhole-cg/blackhole.yaml")
CGROUPS = Path("/sys/fs/cgroup")
SERVICES = {
    "migrate": {"type": "oneshot", "command": ["/bin/true"]},
    "db": {"command": ["/bin/sleep", "infinity"], "depends_on": {"migrate": {"condition": "completed"}}},
    "web": {
        "command": ["/bin/sleep", "infinity"],
        "depends_on": ["db"],
        "resources": {"cpu_percent": 20, "memory_mb": 64, "processes": 10, "io_weight": 200},
    },
}

system = Systemd()
show = system.show
systemctl = system.systemctl
services = system.services


def configure(services: dict[str, dict]) -> None:
    orchestrator = {"isolation": "required", "restart_policy": {"initial_delay": "100ms"}}
    CONFIG.write_text(yaml.safe_dump({"runtime": {"orchestrator": orchestrator}, "services": services}))


@pytest.fixture
def unit() -> Iterator[None]:
    """The units of this tree, with a configuration of three services; everything is removed afterwards."""
    require_test_vm()
    CONFIG.parent.mkdir(exist_ok=True)
    configure(SERVICES)
    system.install_units(UNITS, installed_prefix())
    yield
    system.remove_units(UNITS)
    shutil.rmtree(CONFIG.parent)


def test_the_unit_is_active_when_all_is_up_and_stop_ends_everything_in_order(unit):
    assert system.verify(UNITS) == ""
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
    cgroup = CGROUPS / found["web"]["cgroup"].lstrip("/")
    assert (cgroup / "cpu.max").read_text() == "20000 100000\n"
    assert (cgroup / "memory.max").read_text() == f"{64 * 2**20}\n"
    assert (cgroup / "pids.max").read_text() == "10\n"
    check_not_restricted(found["db"])
    pids = [found[name]["pid"] for name in ("db", "web")]
    systemctl("stop", UNIT)
    assert not any(map(alive, pids))
    assert show("ActiveState") == "inactive"
    assert show("Result") == "success"


def check_not_restricted(info: dict) -> None:
    """Nothing that the supervisor's unit sets for the supervisor holds for a service."""
    process = Path("/proc", str(info["pid"]))
    status = dict(re.findall(r"^(\w+):\s*(.*)$", (process / "status").read_text(), re.MULTILINE))
    own = dict(re.findall(r"^(\w+):\s*(.*)$", Path("/proc/1/status").read_text(), re.MULTILINE))
    assert (status["Umask"], status["Seccomp"], status["SigIgn"]) == ("0022", "0", "0" * 16)
    assert status["CapBnd"] == own["CapBnd"]
    assert (process / "oom_score_adj").read_text() == "0\n"
    open_files = re.search(r"Max open files\s+(\d+)", (process / "limits").read_text())
    assert open_files and open_files[1] == "1024", "what systemd gives to any unit"
    for namespace in ("mnt", "net", "pid", "user", "uts", "ipc", "cgroup"):
        assert (process / "ns" / namespace).readlink() == Path("/proc/1/ns", namespace).readlink()
    for directory in (CGROUPS / info["cgroup"].lstrip("/"), CGROUPS / "system.slice" / HOLDER):
        assert (directory / "memory.swap.max").read_text() == "max\n"
        assert (directory / "cpu.weight").read_text() == "100\n"
    supervisor = CGROUPS / "system.slice" / UNIT
    assert (supervisor / "memory.swap.max").read_text() == "0\n", "while it does hold for the supervisor"


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
    for command in ("daemon-reload", "daemon-reexec"):
        systemctl(command)
        check_same(before)
    for command in ("stop", "restart"):
        assert system.run("systemctl", command, HOLDER, check=False).returncode != 0, "it is refused"
    lose_limits()
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


def lose_limits() -> None:
    """Start the holder over live services as if it had been stopped, which its unit does not allow."""
    drop_in = UNITS / f"{HOLDER}.d"
    drop_in.mkdir()
    (drop_in / "stop.conf").write_text("[Unit]\nRefuseManualStop=no\n")
    systemctl("daemon-reload")
    systemctl("restart", HOLDER)
    (drop_in / "stop.conf").unlink()
    drop_in.rmdir()
    systemctl("daemon-reload")
    assert show("ActiveState", HOLDER) == "active", "it starts over the services"
    assert memory_max() is None, "systemd has switched the controllers off, and the limits with them"


def memory_max() -> str | None:
    file = CGROUPS / "system.slice" / HOLDER / "web/memory.max"
    return file.read_text() if file.exists() else None


def test_an_upgrade_keeps_the_unit_active_with_the_same_process_and_feeds_its_watchdog(unit):
    systemctl("start", UNIT)
    before, main = services(), show("MainPID")
    system.run("blackhole-cg", "upgrade")
    assert (show("ActiveState"), show("MainPID"), show("NRestarts")) == ("active", main, "0")
    check_same(before)
    assert show("WatchdogUSec") == "30s", "as it was"
    fed = int(show("WatchdogTimestampMonotonic"))
    eventually(lambda: int(show("WatchdogTimestampMonotonic")) > fed, "the watchdog is fed again", 60)
    os.kill(before["web"]["pid"], 9)
    ended = eventually(lambda: services()["web"]["last_exit"], "web has ended", 60)
    assert ended["signal"] == 9, "it was still a child of the supervisor"
    CONFIG.write_text(CONFIG.read_text().replace("depends_on", "depend_on"))
    assert system.run("blackhole-cg", "upgrade", check=False).returncode != 0
    assert (show("ActiveState"), show("MainPID")) == ("active", main)
    systemctl("stop", UNIT)
    assert (show("ActiveState"), show("Result")) == ("inactive", "success")


def check_same(before: dict[str, dict]) -> None:
    found = services()
    for name in ("db", "web"):
        assert found[name]["pid"] == before[name]["pid"], name
        assert found[name]["state"] == "running"
    assert memory_max() == f"{64 * 2**20}\n"
    same = found["migrate"]["run_id"] == before["migrate"]["run_id"]
    assert same, "a oneshot that is done is not run again"


def test_reload_applies_what_differs_and_a_wrong_file_is_a_reload_that_fails(unit):
    systemctl("start", UNIT)
    before = services()
    main = show("MainPID")
    changed = {**SERVICES["web"], "environment": {"COLOUR": "green"}}
    configure({**SERVICES, "web": changed, "extra": {"command": ["/bin/sleep", "infinity"]}})
    systemctl("reload", UNIT)
    after = services()
    assert after["extra"]["state"] == "running"
    assert after["db"]["pid"] == before["db"]["pid"]
    assert after["web"]["run_id"] == before["web"]["run_id"] + 1
    assert after["web"]["state"] == "running"

    CONFIG.write_text(CONFIG.read_text().replace("depends_on", "depend_on"))
    assert system.run("systemctl", "reload", UNIT, check=False).returncode != 0
    eventually(in_journal("depend_on: unknown key"), "the reason is in the journal")
    assert (show("ActiveState"), show("MainPID")) == ("active", main)
    same = {name: info["pid"] for name, info in services().items()}
    assert same == {name: info["pid"] for name, info in after.items()}

    systemctl("restart", UNIT, check=False)
    assert (show("ActiveState"), show("ExecMainStatus")) == ("failed", "78"), "and is not tried for ever"
    assert all(alive(after[name]["pid"]) for name in ("db", "web", "extra")), "services go on meanwhile"
    configure(SERVICES)
    systemctl("start", UNIT)
    assert services()["db"]["pid"] == before["db"]["pid"]


def test_a_start_that_fails_is_a_failed_unit_with_the_reason_in_the_journal(unit):
    configure({**SERVICES, "web": {"command": ["/bin/sh", "-c", "exit 3"], "type": "oneshot"}})
    systemctl("start", "--no-block", UNIT)
    eventually(in_journal("cannot start 'web': exit 3"), "the reason is in the journal", 120)
    assert show("ActiveState") != "active"
    systemctl("stop", UNIT)


def in_journal(text: str) -> Callable[[], bool]:
    return lambda: text in system.journal()
