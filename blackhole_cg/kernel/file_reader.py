"""Reading files of a configuration safely. Without what reads a configuration: a start may not need that."""

from __future__ import annotations

import errno
import glob
import os
import stat
from typing import Final

from blackhole_cg.core.reading import MAX_FILE_BYTES
from blackhole_cg.core.units import format_size

_KINDS: Final = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


class FileReader:
    """Reads regular files of a bounded size; never waits, whatever the path turns out to be."""

    def __init__(self, max_bytes: int = MAX_FILE_BYTES) -> None:
        self._max_bytes = max_bytes

    def read_bytes(self, path: str) -> bytes:
        """The whole file. Raises OSError, whose strerror says why in words."""
        # O_NONBLOCK: opening a FIFO would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
                raise OSError(errno.EINVAL, f"it is {kind}, not a file")
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                data = file.read(self._max_bytes + 1)
        finally:
            os.close(descriptor)
        if len(data) > self._max_bytes:
            size = format_size(max(status.st_size, len(data)))
            bound = format_size(self._max_bytes)
            raise OSError(errno.EFBIG, f"it is too large: {size} (accepted: up to {bound})")
        return data

    def glob(self, pattern: str) -> list[str]:
        """The paths that match, sorted."""
        return sorted(glob.glob(pattern))  # noqa: PTH207  Path.glob refuses absolute patterns
