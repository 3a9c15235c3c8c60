"""One cgroup directory: its limits, its processes, its counters, its end.

Everything goes through the directory's descriptor, so a directory of the same name made later is never
mistaken for this one. Knows nothing of services and starts nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from blackhole_cg.core.facts import Usage
from blackhole_cg.errors import CgroupError, CgroupGoneError, ControllerMissingError
from blackhole_cg.kernel.memory import proportional_bytes
from blackhole_cg.kernel.procfs import read_kernel_file

REMOVE_DELAYS_SECONDS: Final = tuple(0.001 * 2**attempt for attempt in range(10))  # about one second in all
KILL_ROUNDS: Final = 100
DIRECTORY_MODE: Final = 0o755


def make_directory(path: str | Path, parent_fd: int | None = None) -> None:
    """Make a cgroup that a service's user can read, whatever our umask: programs look up their own limits."""
    os.mkdir(path, DIRECTORY_MODE, dir_fd=parent_fd)
    os.chmod(path, DIRECTORY_MODE, dir_fd=parent_fd)


class Cgroup:
    """An open cgroup directory. `name` is its name in the directory `parent_fd`, `path` is for messages."""

    def __init__(self, parent_fd: int, name: str, path: str) -> None:
        self.name = name
        self.path = path
        self._parent_fd = parent_fd
        try:
            self._fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=parent_fd)
        except OSError as cause:
            raise CgroupError("open", path, cause.errno or 0) from cause

    @classmethod
    def create(cls, parent_fd: int, name: str, path: str) -> Cgroup:
        """Make the directory and open it. An empty one that is there is replaced: its counters are old.

        Raises:
            CgroupError: it cannot be made; EBUSY when live processes are in the old one.
        """
        try:
            make_directory(name, parent_fd)
        except FileExistsError:
            old = cls(parent_fd, name, path)
            try:
                old.remove_now()
                make_directory(name, parent_fd)
            except OSError as cause:
                raise CgroupError("replace", path, cause.errno or 0) from cause
            finally:
                old.close()
        except OSError as cause:
            raise CgroupError("create", path, cause.errno or 0) from cause
        try:
            return cls(parent_fd, name, path)
        except CgroupError:
            os.rmdir(name, dir_fd=parent_fd)
            raise

    def read(self, file: str) -> str:
        """The whole text of a file.

        Raises:
            ControllerMissingError: the cgroup lives, the file does not exist.
            CgroupGoneError: the cgroup was removed.
            CgroupError: anything else.
        """
        try:
            return read_kernel_file(file, self._fd)
        except OSError as cause:
            raise self._error("read", file, cause) from cause

    def write(self, file: str, text: str) -> None:
        """Write a value in one system call. Raises as `read` does, with the value in the error."""
        try:
            descriptor = os.open(file, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC, dir_fd=self._fd)
            try:
                os.write(descriptor, text.encode())
            finally:
                os.close(descriptor)
        except OSError as cause:
            raise self._error("write", file, cause, text) from cause

    def has(self, file: str) -> bool:
        """Whether the file exists here."""
        return os.access(file, os.F_OK, dir_fd=self._fd)

    def mark(self, name: str) -> None:
        """Set an extended attribute on the directory; it lasts as long as that. Raises CgroupError."""
        try:
            os.setxattr(self._fd, name, b"1")
        except OSError as cause:
            raise CgroupError("mark", self.path, cause.errno or 0) from cause

    def is_marked(self, name: str) -> bool:
        """Whether such a mark is there; False where there can be none."""
        try:
            return name in os.listxattr(self._fd)
        except OSError:
            return False

    def unmark(self, name: str) -> None:
        """Take a mark away; nothing happens when it is not there. Raises CgroupError."""
        try:
            os.removexattr(self._fd, name)
        except OSError as cause:
            if cause.errno != errno.ENODATA:
                raise CgroupError("unmark", self.path, cause.errno or 0) from cause

    def open_file(self, file: str, flags: int) -> int:
        """A descriptor of a file, for the caller to close: to join the cgroup by, or to watch it."""
        try:
            return os.open(file, flags | os.O_CLOEXEC, dir_fd=self._fd)
        except OSError as cause:
            raise self._error("open", file, cause) from cause

    def populated(self) -> bool:
        """Whether a live process is in this cgroup or below it; False when the cgroup is gone."""
        try:
            return parse_populated(self.read("cgroup.events"))
        except CgroupGoneError:
            return False

    def processes(self) -> list[int]:
        """The live processes of this cgroup and of those below it."""
        found: list[int] = []
        for directory in self._directories():
            try:
                text = self.read(os.path.join(directory, "cgroup.procs"))  # noqa: PTH118
            except (CgroupGoneError, ControllerMissingError):
                continue  # removed while we looked
            found += map(int, text.split())
        return found

    def signal_all(self, number: int) -> None:
        """Send a signal to every process that is here, each through a pidfd.

        A number read from cgroup.procs may belong to someone else by the time it is opened, so membership
        is read again once the pidfds hold the processes.
        """
        held: dict[int, int] = {}
        try:
            for pid in self.processes():
                try:
                    held[pid] = os.pidfd_open(pid)
                except OSError:
                    continue  # it has ended
            for pid in set(self.processes()) & held.keys():
                try:
                    signal.pidfd_send_signal(held[pid], number)
                except ProcessLookupError:
                    continue
        finally:
            for descriptor in held.values():
                os.close(descriptor)

    def kill(self) -> None:
        """Kill every process here and below, those that fork meanwhile included.

        Source: kernel Documentation/admin-guide/cgroup-v2.rst, cgroup.kill (5.14).
        """
        try:
            self.write("cgroup.kill", "1")
        except CgroupGoneError:
            return
        except ControllerMissingError:
            self._kill_frozen()

    def oom_kills(self) -> int | None:
        """Processes of this cgroup that the kernel killed for want of memory; None where nobody counts."""
        counters = self._counters("memory.events")
        return None if counters is None else counters.get("oom_kill")

    def usage(self) -> Usage:
        """What is used here and below; where a controller is absent, the processes themselves are asked."""
        cpu = self._counters("cpu.stat")
        cpu_usec = None if cpu is None else cpu.get("usage_usec")
        memory_bytes, pids = self._number("memory.current"), self._number("pids.current")
        if memory_bytes is None or pids is None:
            processes = self._processes_or_none()
            if memory_bytes is None and processes is not None:
                memory_bytes = proportional_bytes(processes)
            if pids is None and processes is not None:
                pids = len(processes)
        return Usage(None if cpu_usec is None else cpu_usec / 1e6, memory_bytes, pids)

    def _processes_or_none(self) -> list[int] | None:
        try:
            return self.processes()
        except CgroupError:
            return None

    def remove_now(self) -> None:
        """Remove the directory and those below it, leaves first. Raises OSError, EBUSY while populated."""
        with contextlib.suppress(FileNotFoundError):
            if not self._remove_alone():
                self._remove_tree()

    def _remove_alone(self) -> bool:
        """Remove the directory if there is none below it, as nearly always; this takes no descriptor."""
        try:
            os.rmdir(self.name, dir_fd=self._parent_fd)
        except OSError as cause:
            if cause.errno not in (errno.EBUSY, errno.ENOTEMPTY):
                raise
            return False
        return True

    def _remove_tree(self) -> None:
        for directory in self._directories():
            if directory != ".":
                os.rmdir(directory, dir_fd=self._fd)
        os.rmdir(self.name, dir_fd=self._parent_fd)

    async def remove(self) -> None:
        """Remove the directory, waiting out for about a second what still holds on to it.

        Raises:
            CgroupError: it is still in use after that.
        """
        for delay_seconds in REMOVE_DELAYS_SECONDS:
            if self._fd < 0:
                return None  # somebody else has removed and closed it meanwhile
            try:
                return self.remove_now()
            except OSError as cause:
                if cause.errno not in (errno.EBUSY, errno.ENOTEMPTY, errno.EAGAIN):
                    raise CgroupError("remove", self.path, cause.errno or 0) from cause
            await asyncio.sleep(delay_seconds)
        try:
            return self.remove_now()
        except OSError as cause:
            raise CgroupError("remove", self.path, cause.errno or 0) from cause

    def close(self) -> None:
        """Close the directory's descriptor; the directory stays."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _directories(self) -> Iterator[str]:
        """The directories below, deepest first, then this one as "."."""
        yield from _below(self._fd, "")
        yield "."

    def _kill_frozen(self) -> None:
        """Freeze, so that nothing can fork past us, then kill what is there until nothing is new."""
        self.write("cgroup.freeze", "1")
        try:
            killed: set[int] = set()
            for _ in range(KILL_ROUNDS):
                fresh = set(self.processes()) - killed
                if not fresh:
                    return
                self.signal_all(signal.SIGKILL)
                killed |= fresh
        finally:
            self.write("cgroup.freeze", "0")

    def _counters(self, file: str) -> dict[str, int] | None:
        try:
            return parse_counters(self.read(file))
        except CgroupError:
            return None

    def _number(self, file: str) -> int | None:
        try:
            return int(self.read(file))
        except (CgroupError, ValueError):
            return None

    def _error(self, operation: str, file: str, cause: OSError, value: str | None = None) -> CgroupError:
        """ENOENT is ambiguous: the cgroup is gone, or it lives and the file's controller is off."""
        kind = CgroupError if self._fd >= 0 else CgroupGoneError
        if cause.errno in (errno.ENOENT, errno.ENODEV):
            alive = os.access("cgroup.controllers", os.F_OK, dir_fd=self._fd)
            kind = ControllerMissingError if alive else CgroupGoneError
        return kind(operation, f"{self.path}/{file}", cause.errno or 0, value)


def parse_counters(text: str) -> dict[str, int]:
    """A flat keyed file such as memory.events or cpu.stat."""
    return {key: int(value) for key, value in (line.split() for line in text.splitlines())}


def parse_populated(events: str) -> bool:
    """Whether the text of cgroup.events says that live processes are left."""
    return parse_counters(events).get("populated") == 1


def _below(parent_fd: int, prefix: str) -> Iterator[str]:
    try:
        descriptor = os.open(prefix or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=parent_fd)
    except FileNotFoundError:
        return
    try:
        with os.scandir(descriptor) as entries:
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    finally:
        os.close(descriptor)
    for name in names:
        path = f"{prefix}/{name}" if prefix else name
        yield from _below(parent_fd, path)
        yield path
