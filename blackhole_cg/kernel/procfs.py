"""Reading small kernel files without the cost of a text stream: on the path of every launch this counts."""

from __future__ import annotations

import os
from typing import Final

READ_BYTES: Final = 65536


def read_kernel_file(path: str, directory_fd: int | None = None) -> str:
    """The whole text of a file of /proc, /sys or a cgroup. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory_fd)
    try:
        pieces = []
        while piece := os.read(descriptor, READ_BYTES):
            pieces.append(piece)
    finally:
        os.close(descriptor)
    return b"".join(pieces).decode(errors="replace")
