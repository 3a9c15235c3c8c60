"""Waiting for files to change, to come and to go, by inotify, through one descriptor of the event loop.

Watches their directories: an editor puts a new file in the place of the old one.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import glob
import os
import stat
import struct
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from blackhole_cg.errors import KernelError

# Source: inotify(7); include/uapi/linux/inotify.h.
_ATTRIB: Final = 0x04
_CLOSE_WRITE: Final = 0x08
_MOVED_FROM: Final = 0x40
_MOVED_TO: Final = 0x80
_CREATE: Final = 0x100
_DELETE: Final = 0x200
_Q_OVERFLOW: Final = 0x4000
_EVENTS: Final = _ATTRIB | _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE
_HEAD: Final = struct.Struct("iIII")  # watch, mask, cookie, length of the name that follows
_READ_BYTES: Final = 64 * 1024
_PASSING: Final = (errno.ENOENT, errno.ENOTDIR, errno.EACCES)
"""A directory that is searched may go or be closed to us at any time; then nothing is found in it."""

_MAGIC: Final = frozenset("*?[")

_libc = ctypes.CDLL(None, use_errno=True)


class _Watched:
    """One inotify descriptor, and which names matter in each directory that it watches."""

    def __init__(self) -> None:
        self.fd = _call("open", "inotify", _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        self._directories: dict[int, str] = {}
        self._patterns: dict[int, set[str]] = {}

    def follow(self, path: Path) -> None:
        """Watch one file; while its directory is missing, that too. Raises KernelError."""
        try:
            self._add(str(path.parent), glob.escape(path.name))
        except KernelError as error:
            if error.errno not in _PASSING:
                raise
            self.search(glob.escape(str(path)))

    def search(self, pattern: str) -> None:
        """Watch for what a pattern finds. Raises KernelError."""
        for directory, name in _places(pattern):
            try:
                self._add(directory, name)
            except KernelError as error:
                if error.errno not in _PASSING:
                    raise

    def has_news(self) -> bool:
        """Whether something that matters has happened since this was asked last."""
        try:
            data = os.read(self.fd, _READ_BYTES)
        except BlockingIOError:
            return False
        position, hit = 0, False
        while position < len(data):
            watch, mask, _, length = _HEAD.unpack_from(data, position)
            position += _HEAD.size
            name = os.fsdecode(data[position : position + length].rstrip(b"\0"))
            position += length
            hit |= bool(mask & _Q_OVERFLOW) or self._matters(watch, mask, name)
        return hit

    def _add(self, directory: str, pattern: str) -> None:
        number = _libc.inotify_add_watch(self.fd, os.fsencode(directory), _EVENTS)
        number = _call("watch", directory, number)
        self._directories[number] = directory
        self._patterns.setdefault(number, set()).add(pattern)

    def _matters(self, watch: int, mask: int, name: str) -> bool:
        if not any(_matches(name, pattern) for pattern in self._patterns.get(watch, ())):
            return False
        return not mask & _CREATE or _is_whole(os.path.join(self._directories[watch], name))  # noqa: PTH118


class FileWatch:
    """Calls `changed` when a watched file was written, replaced or removed, or one came that a glob finds."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._watched: _Watched | None = None

    def watch(self, paths: Iterable[str], globs: Iterable[str] = ()) -> None:
        """Watch these files and what these patterns find, and no others any more; needs a running loop.

        Nothing is missed in between: what happened up to now is told of by the watch from before. A directory
        that comes is itself a change; what is in it is watched from the next call on.

        Raises:
            KernelError: the kernel watches no more; nothing is watched then.
        """
        try:
            watched = _Watched()
            try:
                for path in paths:
                    watched.follow(Path(path).absolute())
                for pattern in globs:
                    watched.search(pattern)
            except KernelError:
                os.close(watched.fd)
                raise
        except KernelError:
            self.close()
            raise
        self._read()
        self.close()
        self._watched = watched
        asyncio.get_running_loop().add_reader(watched.fd, self._read)

    def close(self) -> None:
        """Watch nothing any more."""
        if self._watched is not None:
            asyncio.get_running_loop().remove_reader(self._watched.fd)
            os.close(self._watched.fd)
            self._watched = None

    def _read(self) -> None:
        if self._watched is not None and self._watched.has_news():
            self._changed()


def _places(pattern: str) -> Iterator[tuple[str, str]]:
    """Each directory in which something may come that changes what a pattern finds, and how that is called.

    Where a directory is missing, it is waited for in the one above.
    """
    parts = Path(pattern).parts
    fixed = next((depth for depth, part in enumerate(parts) if _MAGIC & set(part)), len(parts) - 1)
    while fixed > 1 and not os.path.isdir(Path(*parts[:fixed])):  # noqa: PTH112  is_dir() may raise
        fixed -= 1
    if fixed > 1:
        yield str(Path(*parts[: fixed - 1])), parts[fixed - 1]
    for depth in range(fixed, len(parts)):
        above = Path(*map(glob.escape, parts[:fixed]), *parts[fixed:depth])
        for directory in glob.glob(str(above)):  # noqa: PTH207  Path.glob refuses absolute patterns
            yield directory, parts[depth]


def _matches(name: str, pattern: str) -> bool:
    """Whether glob would find it: what begins with a dot has to be asked for."""
    return fnmatchcase(name, pattern) and (not name.startswith(".") or pattern.startswith("."))


def _is_whole(path: str) -> bool:
    """Whether what came is there at once, as a directory or link is; a file has yet to be written."""
    try:
        status = os.lstat(path)
    except OSError:
        return True
    return not stat.S_ISREG(status.st_mode) or status.st_nlink > 1


def _call(operation: str, path: str, result: int) -> int:
    if result < 0:
        raise KernelError(operation, path, ctypes.get_errno())
    return result
