"""Getting a cgroup of our own from systemd, where it manages the hierarchy and has given us none.

A supervisor started from a shell sits in the shell's session, which is systemd's to manage. A scope with
Delegate=yes is the documented way to a subtree of one's own. Source: systemd, CGROUP_DELEGATION.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from blackhole_cg.kernel.facts import CgroupPlace

MARK: Final = "BLACKHOLE_CG_IN_SCOPE"
"""In the environment of a supervisor that was already put into a scope, so that it does not try for ever."""


@dataclass(frozen=True, slots=True)
class Manager:
    """What there is of systemd for this user: its launcher, and whether it is the user's own manager."""

    launcher: str
    user: bool


def find_manager(environ: Mapping[str, str], uid: int, base: Path = Path("/")) -> Manager | None:
    """The systemd that can give us a scope: the system for root, else the user manager; None without one."""
    launcher = shutil.which("systemd-run", path=environ.get("PATH", os.defpath))
    if launcher is None or not (base / "run/systemd/system").is_dir():
        return None
    if uid == 0:
        bus = base / "run/dbus/system_bus_socket"
        return Manager(launcher, user=False) if bus.exists() else None
    runtime = environ.get("XDG_RUNTIME_DIR")
    return Manager(launcher, user=True) if runtime and Path(runtime, "bus").exists() else None


def scope_command(
    place: CgroupPlace, manager: Manager | None, environ: Mapping[str, str], command: Sequence[str]
) -> list[str] | None:
    """The command that runs `command` in a delegated scope; None where that is not called for.

    It is called for when cgroup v2 is there and writable, and the one obstacle is that nobody delegated us a
    part of it.
    """
    if manager is None or place.own is None or place.root is not None or environ.get(MARK):
        return None
    options = ["--user"] if manager.user else []
    options += ["--scope", "--quiet", "--collect", "--property=Delegate=yes", f"--setenv={MARK}=1"]
    return [manager.launcher, *options, "--", *command]
