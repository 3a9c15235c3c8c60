"""One supervisor per runtime directory: a lock that the kernel gives back when its holder dies."""

from __future__ import annotations

import fcntl
import os
from datetime import UTC, datetime
from pathlib import Path

from blackhole_cg.errors import LockHeldError
from blackhole_cg.runner.clock import wall_text


class RuntimeLock:
    """An flock on a file that names its holder, and since when it holds it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock or say who has it. Raises LockHeldError."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder, _, since = os.pread(descriptor, 64, 0).decode(errors="replace").strip().partition(" ")
            os.close(descriptor)
            who = f"a supervisor with pid {holder or 'unknown'} already runs on {self._path.parent}"
            raise LockHeldError(f"cannot start: {who}" + (f", since {since}" if since else "")) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()} {wall_text(datetime.now(UTC))}\n".encode(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the lock back. The file stays: deleting it would let two holders in."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
