"""Looks at a host as `doctor` shows it; changes nothing, starts nothing."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from blackhole_cg.core.doctor import CAPABILITIES, Directory, Survey
from blackhole_cg.core.facts import LimitProblem
from blackhole_cg.core.spec import ServiceSpec
from blackhole_cg.core.words import Isolation
from blackhole_cg.kernel.block import io_weight_mechanisms
from blackhole_cg.kernel.delegation import Manager, find_manager, scope_command
from blackhole_cg.kernel.facts import (
    CgroupPlace,
    effective_capabilities,
    find_cgroup_place,
    read_host_facts,
)
from blackhole_cg.kernel.limit_writer import LimitWriter

# Source: include/uapi/linux/capability.h
_CAPABILITY_BITS: Final = {
    "CAP_CHOWN": 0,
    "CAP_KILL": 5,
    "CAP_SETGID": 6,
    "CAP_SETUID": 7,
    "CAP_NET_ADMIN": 12,
    "CAP_SYS_RESOURCE": 24,
}
UNIT_NAME: Final = "blackhole-cg.service"
_UNIT_DIRECTORIES: Final = ("etc/systemd/system", "usr/local/lib/systemd/system", "usr/lib/systemd/system")


def survey(
    environ: Mapping[str, str],
    uid: int,
    asked_root: str | None,
    directories: Mapping[str, Path],
    base: Path = Path("/"),
) -> Survey:
    """What there is. `directories` are those that a supervisor would write to, by their purpose."""
    place = find_cgroup_place(asked_root, base)
    manager = None if asked_root else find_manager(environ, uid, base)
    in_scope = manager is not None and bool(scope_command(place, manager, environ, ["run"]))
    if in_scope and manager is not None:
        place = _scope_place(manager, uid, base)
    held = effective_capabilities(base)
    return Survey(
        facts=read_host_facts(place, base),
        uid=uid,
        scope_by="systemd" if in_scope and place.root is not None else None,
        unit=any((base / directory / UNIT_NAME).exists() for directory in _UNIT_DIRECTORIES),
        pressure=_pressure_problem(base),
        io_weights=io_weight_mechanisms(base / "sys", place.mount),
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        pipe_bytes=_read_number(base / "proc/sys/fs/pipe-max-size"),
        missing_capabilities=tuple(name for name in CAPABILITIES if not held >> _CAPABILITY_BITS[name] & 1),
        directories=tuple(_look_at(purpose, path) for purpose, path in directories.items()),
    )


def limit_problems(found: Survey, services: Iterable[ServiceSpec]) -> Sequence[LimitProblem]:
    """The limits of these services that could not be enforced, as far as can be told without trying."""
    writer = LimitWriter(found.facts, Isolation.BEST_EFFORT, found.io_weights)
    return [problem for spec in services for problem in writer.problems(spec)]


def _scope_place(manager: Manager, uid: int, base: Path) -> CgroupPlace:
    """Where the scope will be: not made yet, so judged by what its parent has to give."""
    if not manager.user:
        return find_cgroup_place("system.slice", base)
    return find_cgroup_place(f"user.slice/user-{uid}.slice/user@{uid}.service/app.slice", base)


def _pressure_problem(base: Path) -> str | None:
    """The file is there and cannot be read where it was switched off. Source: kernel, accounting/psi.rst."""
    try:
        (base / "proc/pressure/cpu").read_text()
    except FileNotFoundError:
        return "this kernel was built without it"
    except OSError:
        return "it is switched off on the kernel's command line"
    return None


def _look_at(purpose: str, path: Path) -> Directory:
    """A directory that does not exist is made at the start: what counts is the nearest above it."""
    nearest = next(each for each in (path, *path.parents) if each.exists())
    if not nearest.is_dir():
        return Directory(purpose, str(path), problem=f"{nearest} is no directory")
    if not os.access(nearest, os.W_OK | os.X_OK):
        return Directory(purpose, str(path), problem=f"no permission to write in {nearest}")
    space = os.statvfs(nearest)
    if space.f_flag & os.ST_RDONLY:
        return Directory(purpose, str(path), problem="the file system is mounted read-only")
    return Directory(purpose, str(path), free_bytes=space.f_bavail * space.f_frsize)


def _read_number(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0
