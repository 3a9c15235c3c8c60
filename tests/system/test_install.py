"""`make install` as a user runs it, on a real systemd: up, upgraded over live services, and gone again."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.live import ROOT, alive
from tests.support.systemd import HOLDER, UNIT, Systemd, require_test_vm

pytestmark = [pytest.mark.needs_kernel, pytest.mark.any_kernel, pytest.mark.timeout(1200)]

WHEELS = Path("/opt/wheels")
PREFIX = Path("/opt/blackhole-cg")
UNITS = Path("/usr/local/lib/systemd/system")
LINK = Path("/usr/local/bin/blackhole-cg")
CONFIG = Path("/etc/blackhole-cg")
STATE = Path("/var/lib/blackhole-cg")
LOGS = Path("/var/log/blackhole-cg")
RUNTIME = Path("/run/blackhole-cg")

system = Systemd()


# In place of the slow set-up: the virtual environment in use, copied to where the upgrade wants it.
COPY_IN_USE = """#!/bin/sh -e
cp -a "$(dirname "$VENV")/venv-1" "$VENV"
sed -i "1s|.*|#!$VENV/bin/python|" "$VENV/bin/blackhole-cg"
"""


def make(target: str, code: int = 0, tree: Path = ROOT) -> str:
    """What `make TARGET` says, offline, with the distribution's tools alone and wheels for pip."""
    environ = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(WHEELS),
        "PIP_NO_COMPILE": "1",
    }
    command = ["make", "--no-print-directory", target]
    done = subprocess.run(command, cwd=tree, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def newer_tree(directory: Path) -> Path:
    """What `make install` needs of a tree, with a set-up that takes seconds."""
    for name in ("systemd", "tools"):
        shutil.copytree(ROOT / name, directory / name)
    shutil.copy(ROOT / "Makefile", directory)
    (directory / "tools/setup.sh").write_text(COPY_IN_USE)
    return directory


def mode(path: Path) -> str:
    return f"{path.stat().st_mode & 0o777:o}"


def supervisor() -> tuple[int, str]:
    """Its pid, and the interpreter that runs it."""
    pid = int(system.show("MainPID"))
    return pid, Path(f"/proc/{pid}/cmdline").read_text().split("\0")[0]


def test_install_upgrade_over_live_services_and_uninstall(tmp_path: Path):
    require_test_vm()
    assert "enable --now blackhole-cg" in make("install")
    assert system.verify(UNITS) == ""
    assert (mode(CONFIG), mode(CONFIG / "blackhole.yaml"), mode(PREFIX)) == ("750", "640", "755")

    system.systemctl("enable", "--now", UNIT)
    clock = system.services()["clock"]
    assert clock["state"] == "running"
    assert all(clock["limits"][name]["enforced"] for name in ("cpu_max", "memory_max", "pids_max"))
    old = supervisor()

    config = CONFIG / "blackhole.yaml"
    config.write_text(config.read_text() + "# mine\n")
    assert "restart blackhole-cg" in make("install", tree=newer_tree(tmp_path))
    assert config.read_text().endswith("# mine\n")
    assert supervisor() == old, "it goes on with its own files"
    system.systemctl("restart", UNIT)
    new = supervisor()
    assert (old[1], new[1]) == (f"{PREFIX}/venv-1/bin/python", f"{PREFIX}/venv-2/bin/python")
    assert system.services()["clock"]["pid"] == clock["pid"]

    text = config.read_text()
    config.write_text("wrong")
    system.systemctl("restart", UNIT, check=False)
    refused = make("uninstall", code=2)
    assert "services without a supervisor; nothing was removed" in refused
    assert alive(clock["pid"])
    config.write_text(text)
    system.systemctl("start", UNIT)

    make("uninstall")
    assert not alive(clock["pid"])
    assert not any(path.exists() for path in (PREFIX, RUNTIME, UNITS / UNIT, UNITS / HOLDER))
    assert not LINK.is_symlink()
    assert list(Path("/etc/systemd/system").rglob("blackhole-cg*")) == []
    assert system.show("LoadState") == "not-found"
    assert (config.exists(), (STATE / "state.db").exists(), (LOGS / "clock.log").exists()) == (True,) * 3
