"""Whether this host is one on which the real limits can be tested, and if not, why."""

from __future__ import annotations

import os
from pathlib import Path

from tests.support.live import cgroup_mount

NEEDED = ("cpu", "memory", "io", "pids")


def obstacle() -> str | None:
    """Why tests with the marker `needs_kernel` cannot run here, or None."""
    mount = cgroup_mount()
    if mount is None:
        return "cgroup v2 is not mounted here"
    if os.geteuid() != 0:
        return "not root"
    offered = (mount / "cgroup.controllers").read_text().split()
    if missing := [name for name in NEEDED if name not in offered]:
        return f"cgroup v2 has no {', '.join(missing)} controller here"
    if not os.access(mount, os.W_OK):
        return "cgroup v2 is mounted read-only here"
    if not Path("/run/systemd/system").is_dir():
        return "systemd is not process 1 here"
    return None


def in_test_vm() -> bool:
    """Whether this is the test VM, where a test may also change disks, swap and units."""
    return os.environ.get("BLACKHOLE_CG_TEST_VM") == "1"
