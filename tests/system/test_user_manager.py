"""An ordinary user's own systemd, and a supervisor started from a login session: limits hold there, too."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.support.live import alive
from tests.support.systemd import HOLDER, UNIT, Systemd, installed_prefix, require_test_vm
from tests.support.waiting import eventually

pytestmark = [pytest.mark.needs_kernel, pytest.mark.timeout(900)]

CGROUPS = Path("/sys/fs/cgroup")
USER = "tester"
CONFIGURATION = {
    "runtime": {"orchestrator": {"isolation": "best_effort"}},
    "services": {
        "web": {
            "command": ["/bin/sleep", "infinity"],
            "resources": {"cpu_percent": 20, "memory_mb": 64, "processes": 10, "io_weight": 200},
        }
    },
}


@pytest.fixture
def manager() -> Iterator[Systemd]:
    """The user's systemd with the user's units and configuration."""
    require_test_vm()
    it = Systemd(USER)
    subprocess.run(["loginctl", "enable-linger", USER], check=True)
    eventually(Path(f"/run/user/{it.uid}/bus").exists, "the user's systemd is up", 120)
    config = it.home / ".config/blackhole-cg"
    it.run("mkdir", "-p", units(it), config)
    (config / "blackhole.yaml").write_text(yaml.safe_dump(CONFIGURATION))
    it.install_units(units(it), installed_prefix())
    yield it
    it.remove_units(units(it))
    subprocess.run(["loginctl", "disable-linger", USER], check=True)


def units(manager: Systemd) -> Path:
    return manager.home / ".local/share/systemd/user"


def check_limits(info: dict, offered: set[str]) -> None:
    """What was delegated is in force, and the status says of the rest that it was not."""
    cgroup = CGROUPS / info["cgroup"].lstrip("/")
    wanted = {"memory_max": f"{64 * 2**20}\n", "pids_max": "10\n", "cpu_max": "20000 100000\n"}
    assert {"cpu", "memory", "pids"} <= offered
    for name, value in wanted.items():
        assert info["limits"][name]["enforced"], (name, info["limits"][name])
        assert (cgroup / name.replace("_", ".")).read_text() == value
    if "io" not in offered:
        assert not info["limits"]["io_weight"]["enforced"]
        assert "not delegated to" in info["limits"]["io_weight"]["reason"]


def controllers(cgroup: Path) -> set[str]:
    return set((cgroup / "cgroup.controllers").read_text().split())


def test_the_units_of_a_user_hold_what_was_delegated_and_outlive_their_supervisor(manager: Systemd):
    assert manager.verify(units(manager)) == ""
    manager.systemctl("start", UNIT)
    web = manager.services()["web"]
    app = f"user.slice/user-{manager.uid}.slice/user@{manager.uid}.service/app.slice"
    assert web["cgroup"] == f"/{app}/{HOLDER}/web"
    check_limits(web, controllers(CGROUPS / app / HOLDER))

    manager.systemctl("restart", UNIT)
    assert manager.services()["web"]["pid"] == web["pid"]
    main = int(manager.show("MainPID"))
    os.kill(main, signal.SIGKILL)
    eventually(
        lambda: manager.show("ActiveState") == "active" and int(manager.show("MainPID")) not in (0, main),
        "systemd has started it again",
        120,
    )
    assert manager.services()["web"]["pid"] == web["pid"]
    manager.systemctl("stop", UNIT)
    assert not alive(web["pid"])


@pytest.mark.parametrize("user", ["root", USER])
def test_run_in_a_login_session_gets_a_cgroup_of_its_own(user: str, tmp_path: Path):
    require_test_vm()
    who = Systemd(None if user == "root" else user)
    tmp_path.chmod(0o777)
    for parent in tmp_path.parents[:2]:  # pytest's own, below /tmp
        parent.chmod(0o755)
    config, script, output = (tmp_path / name for name in ("blackhole.yaml", "script", "output"))
    config.write_text(yaml.safe_dump(CONFIGURATION))
    run = f"{installed_prefix()}/bin/blackhole-cg run --config {config}"
    script.write_text(f"cat /proc/self/cgroup\necho pid $$\nexec {run}\n")
    login = ["systemd-run", "--quiet", "--pipe", "--wait", "-p", "PAMName=login", "-p", f"User={user}"]
    with output.open("wb") as sink:
        session = subprocess.Popen(
            [*login, "bash", "-l", script], stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT
        )
    try:
        eventually(
            lambda: re.search(r"^all services running", output.read_text(), re.MULTILINE), "it is up", 120
        )
        assert "session-" in output.read_text().splitlines()[0], "a login session is systemd's to manage"
        web = who.services()["web"]
        assert web["cgroup"].split("/")[-2].endswith(".scope")
        check_limits(web, controllers((CGROUPS / web["cgroup"].lstrip("/")).parent))
    finally:
        pid = re.search(r"^pid (\d+)$", output.read_text(), re.MULTILINE)
        if pid:
            os.kill(int(pid[1]), signal.SIGTERM)
        code = session.wait(120)
    assert code == 0, output.read_text()
    assert not alive(web["pid"])
