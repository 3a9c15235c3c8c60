"""What this host offers: where cgroup v2 is, which controllers and why not the others, where we may work.

Only looks, never changes anything. Every path is taken below a root that the caller names.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from blackhole_cg.core.facts import HostFacts

CONTROLLERS: Final = ("cpu", "cpuset", "memory", "io", "pids")
V1_NAMES: Final = {"io": "blkio"}
KILL_SINCE: Final = (5, 14)
OWN_DIRECTORY: Final = "blackhole-cg"
LEAF: Final = "_supervisor"
"""Below the root, where this process steps out of the way of the services' cgroups."""

DELEGATE_MARKS: Final = ("user.delegate", "trusted.delegate")
NO_LIMIT_IDS: Final = 4294967295


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of /proc/PID/mountinfo."""

    root: str
    point: str
    kind: str
    writable: bool
    options: frozenset[str]


@dataclass(frozen=True, slots=True)
class CgroupPlace:
    """Where the service cgroups go; `root` is None when there is no such place, `problem` says why.

    `enable_from` is the topmost directory in whose subtree_control we may enable controllers.
    """

    mount: Path | None
    own: Path | None  # the directory this process is in
    root: Path | None
    enable_from: Path | None
    problem: str | None


def read_host_facts(place: CgroupPlace, base: Path = Path("/")) -> HostFacts:
    """Everything there is to know before touching anything."""
    release = os.uname().release
    return HostFacts(
        boot_id=_read(base / "proc/sys/kernel/random/boot_id").strip(),
        kernel=release,
        page_size_bytes=os.sysconf("SC_PAGE_SIZE"),
        cgroup_mount=str(place.mount) if place.mount else None,
        cgroup_root=str(place.root) if place.root else None,
        cgroup_problem=place.problem,
        controllers=_controller_reasons(place, base),
        cgroup_kill=parse_kernel_version(release) >= KILL_SINCE,
        cpus=os.cpu_count(),
        memory_bytes=_usable_memory(place),
    )


def _usable_memory(place: CgroupPlace) -> int:
    """What the host has, or the least that a cgroup above the services may take."""
    bounds = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    directory = place.root
    while directory is not None and place.mount is not None and directory != place.mount:
        with contextlib.suppress(OSError, ValueError):  # no controller, no directory yet, or "max"
            bounds.append(int((directory / "memory.max").read_text()))
        directory = directory.parent if directory.is_relative_to(place.mount) else None
    return min(bounds)


def find_cgroup_place(asked_root: str | None, base: Path = Path("/")) -> CgroupPlace:
    """Choose the directory for the service cgroups.

    `asked_root` is a path below the cgroup v2 mount, with or without the mount point in front. Without it:
    the delegated cgroup we are in, or a directory of our own where our cgroup is all there is (a container,
    or a host without systemd).
    """
    mount = find_cgroup2(parse_mountinfo(_read(base / "proc/self/mountinfo")))
    if mount is None:
        return CgroupPlace(None, None, None, None, "cgroup v2 is not mounted")
    point = base / mount.point.lstrip("/")
    own = _own_directory(point, mount.root, parse_own_cgroup(_read(base / "proc/self/cgroup")))
    if not mount.writable:
        return CgroupPlace(point, own, None, None, f"cgroup v2 is mounted read-only at {mount.point}")
    if asked_root is not None:
        return _if_allowed(_asked_place(point, own, asked_root))
    if own is None:
        return CgroupPlace(
            point, own, None, None, "the cgroup of this process is outside the cgroup v2 mount"
        )
    return _if_allowed(_own_place(point, own))


def find_cgroup2(mounts: list[Mount]) -> Mount | None:
    """The cgroup v2 mount to use: a writable one before a read-only one, else the first."""
    candidates = [mount for mount in mounts if mount.kind == "cgroup2"]
    return min(candidates, key=lambda mount: not mount.writable, default=None)


def parse_mountinfo(text: str) -> list[Mount]:
    """The lines of /proc/PID/mountinfo. Source: proc(5), "optional fields" end at the lone hyphen."""
    mounts = []
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        fields, tail = before.split(), after.split()
        options = frozenset(fields[5].split(",")) | frozenset(tail[2].split(","))
        mounts.append(
            Mount(_unescape(fields[3]), _unescape(fields[4]), tail[0], "ro" not in options, options)
        )
    return mounts


def parse_own_cgroup(text: str) -> str | None:
    """The cgroup v2 path in /proc/PID/cgroup: the line of hierarchy 0. None on a host without cgroup v2."""
    for line in text.splitlines():
        hierarchy, _, rest = line.partition(":")
        if hierarchy == "0":
            return rest.partition(":")[2].removesuffix(" (deleted)")
    return None


def parse_proc_cgroups(text: str) -> dict[str, tuple[int, bool]]:
    """/proc/cgroups as controller -> (hierarchy, enabled); hierarchy 0 is cgroup v2 or none."""
    rows = (line.split() for line in text.splitlines() if line and not line.startswith("#"))
    return {name: (int(hierarchy), enabled == "1") for name, hierarchy, _, enabled in rows}


def parse_kernel_version(release: str) -> tuple[int, int]:
    """Major and minor of "6.1.0-13-cloud-amd64"; (0, 0) when it does not begin that way."""
    match = re.match(r"(\d+)\.(\d+)", release)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def is_real_root(directory: Path) -> bool:
    """Whether this is the root of the hierarchy, where processes and enabled controllers may be together.

    Source: kernel Documentation/admin-guide/cgroup-v2.rst: cgroup.type exists on non-root cgroups.
    """
    return not (directory / "cgroup.type").exists()


def effective_capabilities(base: Path = Path("/")) -> int:
    """The bit mask of this process's effective capabilities."""
    match = re.search(r"^CapEff:\s*([0-9a-f]+)", _read(base / "proc/self/status"), re.MULTILINE)
    return int(match[1], 16) if match else 0


def in_initial_user_namespace(base: Path = Path("/")) -> bool:
    """Whether our capabilities hold for the whole host; in a container's own user namespace they do not."""
    return _read(base / "proc/self/uid_map").split() == ["0", "0", str(NO_LIMIT_IDS)]


def _asked_place(point: Path, own: Path | None, asked_root: str) -> CgroupPlace:
    asked = Path(os.path.normpath(asked_root))
    root = asked if asked.is_relative_to(point) else point / str(asked).lstrip("/")
    if root == point:
        return CgroupPlace(
            point, own, None, None, "the cgroup v2 mount point itself cannot be the cgroup root"
        )
    return CgroupPlace(point, own, root, _top_of_ours(point, root), None)


def _top_of_ours(point: Path, root: Path) -> Path:
    """From where on controllers are ours to enable: a unit's directory where the root is in one.

    What is above a unit is systemd's, and it enables there what the unit's Delegate= asks for. The innermost
    unit counts: a user's units are below the unit of the user's manager.
    """
    below = root.relative_to(point)
    for directory in (below, *below.parents):
        if directory.name.endswith((".service", ".scope")):
            return point / directory
    return point


def _own_place(point: Path, own: Path) -> CgroupPlace:
    if own in (point, point / OWN_DIRECTORY / LEAF):  # there already: executed anew, by an upgrade
        return CgroupPlace(point, own, point / OWN_DIRECTORY, point, None)
    for directory in (own, own.parent):  # the parent: DelegateSubgroup= of systemd, or we, chose a leaf
        if directory != point and _is_delegated(directory):
            return CgroupPlace(point, own, directory, directory, None)
    return CgroupPlace(
        point,
        own,
        None,
        None,
        f"the cgroup of this process ({own}) is not delegated to it; set Delegate=yes on its unit or "
        "name a directory with --cgroup-root",
    )


def _if_allowed(place: CgroupPlace) -> CgroupPlace:
    """The place as it is when we may make directories there, else the reason why not."""
    if place.root is None:
        return place
    nearest = next(directory for directory in (place.root, *place.root.parents) if directory.exists())
    if os.access(nearest, os.W_OK | os.X_OK):
        return place
    return replace(place, root=None, enable_from=None, problem=f"no permission to make cgroups in {nearest}")


def _is_delegated(directory: Path) -> bool:
    """Marked so by systemd, or owned by us where we are not root (who owns everything)."""
    for mark in DELEGATE_MARKS:
        try:
            if os.getxattr(directory, mark) == b"1":
                return True
        except OSError:
            continue
    try:
        return os.geteuid() != 0 and directory.stat().st_uid == os.geteuid()
    except OSError:
        return False


def _own_directory(point: Path, mount_root: str, own_path: str | None) -> Path | None:
    """Where our cgroup is below the mount; None when the mount shows another part of the hierarchy."""
    if own_path is None or "/.." in own_path:
        return None
    own, top = Path(own_path), Path(mount_root)
    return point / own.relative_to(top) if own.is_relative_to(top) else None


def _controller_reasons(place: CgroupPlace, base: Path) -> Mapping[str, str | None]:
    if place.root is None or place.mount is None:
        return dict.fromkeys(CONTROLLERS, place.problem)
    offered = _controllers_in(place.mount)
    reachable = _controllers_for(place.enable_from or place.mount)
    v1 = parse_proc_cgroups(_read(base / "proc/cgroups"))
    reasons: dict[str, str | None] = {}
    for name in CONTROLLERS:
        if name in reachable:
            reasons[name] = None
        elif name in offered:
            reasons[name] = f"not delegated to {place.root}"
        else:
            reasons[name] = _absence_reason(*v1.get(V1_NAMES.get(name, name), (0, True)))
    return reasons


def _absence_reason(hierarchy: int, enabled: bool) -> str:
    if not enabled:
        return "disabled on the kernel command line"
    if hierarchy:
        return "bound to cgroup v1 on this host"
    return "not offered by cgroup v2 here"


def _controllers_for(directory: Path) -> frozenset[str]:
    """What a directory has on offer, or will have once it is made.

    systemd removes the directory of a unit without processes, and makes its controllers ready above it.
    """
    if directory.is_dir():
        return _controllers_in(directory)
    parent = next(parent for parent in directory.parents if parent.is_dir())
    return frozenset(_read(parent / "cgroup.subtree_control").split())


def _controllers_in(directory: Path) -> frozenset[str]:
    return frozenset(_read(directory / "cgroup.controllers").split())


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
