"""Waiting for files to change, by inotify, through one descriptor of the event loop.

Watches their directories: an editor puts a new file in the place of the old one.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from blackhole_cg.errors import KernelError

# Source: inotify(7); include/uapi/linux/inotify.h.
_CLOSE_WRITE: Final = 0x08
_MOVED_FROM: Final = 0x40
_MOVED_TO: Final = 0x80
_DELETE: Final = 0x200
_Q_OVERFLOW: Final = 0x4000
_EVENTS: Final = _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _DELETE
_HEAD: Final = struct.Struct("iIII")  # watch, mask, cookie, length of the name that follows
_READ_BYTES: Final = 64 * 1024

_libc = ctypes.CDLL(None, use_errno=True)


class FileWatch:
    """Calls `changed` whenever one of the watched files was written, replaced or removed."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._fd: int | None = None
        self._wanted: set[tuple[int, bytes]] = set()

    def watch(self, paths: Iterable[str]) -> None:
        """Watch these files, and no others any more; needs a running event loop.

        Raises:
            KernelError: a directory cannot be watched; nothing is watched then.
        """
        self.close()
        self._fd = _call("open", "inotify", _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        asyncio.get_running_loop().add_reader(self._fd, self._read)
        try:
            for path in paths:
                directory, name = os.path.split(Path(path).absolute())
                number = _libc.inotify_add_watch(self._fd, os.fsencode(directory), _EVENTS)
                self._wanted.add((_call("watch", directory, number), os.fsencode(name)))
        except KernelError:
            self.close()
            raise

    def close(self) -> None:
        """Watch nothing any more."""
        if self._fd is not None:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = None
        self._wanted.clear()

    def _read(self) -> None:
        if self._fd is None:
            return
        try:
            data = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return
        position, hit = 0, False
        while position < len(data):
            watch, mask, _, length = _HEAD.unpack_from(data, position)
            position += _HEAD.size
            name = data[position : position + length].rstrip(b"\0")
            position += length
            hit |= bool(mask & _Q_OVERFLOW) or (watch, name) in self._wanted
        if hit:
            self._changed()


def _call(operation: str, path: str, result: int) -> int:
    if result < 0:
        raise KernelError(operation, path, ctypes.get_errno())
    return result
