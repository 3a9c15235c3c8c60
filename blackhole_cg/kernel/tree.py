"""The directory below which all service cgroups are made: claimed once, controllers enabled one by one."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections.abc import Container
from pathlib import Path
from typing import Final

from blackhole_cg.errors import CgroupError, LockHeldError
from blackhole_cg.kernel.cgroup import Cgroup, make_directory
from blackhole_cg.kernel.facts import CONTROLLERS, LEAF, CgroupPlace, is_real_root
from blackhole_cg.kernel.root_lock import lock_cgroup_root

RESERVED: Final = "_"
"""What begins with it is ours and no service's."""

THREADED: Final = frozenset({"cpu", "cpuset", "pids"})

log = logging.getLogger(__name__)


class CgroupTree:
    """The claimed root. `failures` says for each controller that could not be enabled, why."""

    def __init__(self, mount: Path, own: Path | None, root: Path, enable_from: Path) -> None:
        self.root = root
        self.failures: dict[str, str] = {}
        self._mount = mount
        self._shown_root = f"/{root.relative_to(mount)}"
        self._own = own
        self._enable_from = enable_from
        self._made: list[Path] = []
        self._crowded: set[Path] = set()  # with processes in them, so that controllers were refused
        self._fd = -1

    @classmethod
    def claim(cls, place: CgroupPlace) -> CgroupTree | None:
        """Make the root directory, step out of the way, enable the controllers; None where there is no place.

        Raises:
            CgroupError: the root can be neither made nor opened; what was made is removed again.
            LockHeldError: another supervisor has it.
        """
        if place.mount is None or place.root is None:
            return None
        tree = cls(place.mount, place.own, place.root, place.enable_from or place.root)
        try:
            tree._make_root()
            tree._leave_inner_nodes()
            tree._enable_controllers()
        except (CgroupError, LockHeldError):
            tree.close()
            raise
        return tree

    def create(self, name: str) -> Cgroup:
        """A fresh cgroup for one run. Raises as `Cgroup.create` does."""
        return Cgroup.create(self._fd, name, f"{self.root}/{name}")

    def existing(self, name: str) -> Cgroup | None:
        """The cgroup of this name when there is one."""
        if not os.access(name, os.F_OK, dir_fd=self._fd):
            return None
        return Cgroup(self._fd, name, str(self.root / name))

    def occupants(self, known: Container[str] = ()) -> dict[str, list[int]]:
        """Who is in each cgroup that is a run's or could be, by name, but for the known ones."""
        with os.scandir(self._fd) as entries:
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        found: dict[str, list[int]] = {}
        for name in sorted(names):
            with contextlib.suppress(CgroupError):  # removed while we looked
                if name in known or name.startswith(RESERVED) or (cgroup := self.existing(name)) is None:
                    continue
                with contextlib.closing(cgroup):
                    found[name] = cgroup.processes()
        return found

    def shown_path(self, name: str) -> str:
        """A service's cgroup as users see it: below the mount, beginning with "/"."""
        return f"{self._shown_root}/{name}"

    def close(self) -> None:
        """Remove the directories that this made and that are empty; move nothing."""
        for directory in reversed(self._made):
            try:
                directory.rmdir()
            except OSError as cause:
                log.debug("left %s in place: %s", directory, cause)
        self._made.clear()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _make_root(self) -> None:
        try:
            for directory in reversed([self.root, *self._above(self.root)]):
                if not directory.exists():
                    make_directory(directory)
                    self._made.append(directory)
            self._fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            lock_cgroup_root(self._fd, self.root)
        except OSError as cause:
            raise CgroupError("create", str(self.root), cause.errno or 0) from cause

    def _above(self, directory: Path) -> list[Path]:
        """The directories above this one, nearest first, down to but without the mount."""
        return [
            parent for parent in directory.parents if parent != self._mount and self._mount in parent.parents
        ]

    def _leave_inner_nodes(self) -> None:
        """Move this process into a leaf where it would sit in a directory that gets controllers.

        Source: kernel Documentation/admin-guide/cgroup-v2.rst, "No Internal Process Constraint".
        """
        if self._own not in self._enabling_directories() or is_real_root(self._own):
            return
        leaf = self.root / LEAF
        try:
            if not leaf.exists():
                make_directory(leaf)
                self._made.append(leaf)
            (leaf / "cgroup.procs").write_text(str(os.getpid()))
        except OSError as cause:
            raise CgroupError("move into", str(leaf), cause.errno or 0) from cause

    def _enabling_directories(self) -> list[Path]:
        """Where controllers are enabled, topmost first, so that each next directory has them on offer."""
        path = [self.root, *self._above(self.root), self._mount]
        return path[path.index(self._enable_from) :: -1]

    def _enable_controllers(self) -> None:
        """Those that cannot be enabled above processes come first; the others would make it threaded.

        In a threaded directory the former are refused for a reason that explains nothing, so where they are
        refused the others are not tried. Source: kernel Documentation/admin-guide/cgroup-v2.rst, "Threads".
        """
        for directory in self._enabling_directories():
            offered = _words(directory / "cgroup.controllers") - _words(directory / "cgroup.subtree_control")
            missing = [controller for controller in CONTROLLERS if controller in offered]
            for controller in sorted(missing, key=THREADED.__contains__):
                self._enable(directory, controller)

    def _enable(self, directory: Path, controller: str) -> None:
        """One write for each: a single refused controller would otherwise refuse all."""
        if controller in THREADED and directory in self._crowded:
            self.failures.setdefault(controller, _explain(directory, controller, OSError(errno.EBUSY, "")))
            return
        try:
            (directory / "cgroup.subtree_control").write_text(f"+{controller}")
        except OSError as cause:
            if cause.errno == errno.EBUSY:
                self._crowded.add(directory)
            self.failures.setdefault(controller, _explain(directory, controller, cause))


def _explain(directory: Path, controller: str, cause: OSError) -> str:
    """Why a controller cannot be enabled, in words that say what to do about it."""
    problem = f"cannot enable it in {directory}: {os.strerror(cause.errno or 0)}"
    if cause.errno == errno.EBUSY:
        pids = " ".join(sorted(_words(directory / "cgroup.procs"), key=int))
        return f"{problem} (processes are in that directory: {pids or 'unknown'})"
    if cause.errno == errno.EINVAL and controller == "cpu":
        return f"{problem} (are there real-time processes in cgroups other than the root?)"
    if cause.errno in (errno.EOPNOTSUPP, errno.EINVAL):
        return f"{problem} (is the directory threaded?)"
    return problem


def _words(path: Path) -> frozenset[str]:
    try:
        return frozenset(path.read_text().split())
    except OSError:
        return frozenset()
