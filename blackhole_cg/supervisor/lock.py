"""One supervisor per runtime directory: a lock that the kernel gives back when its holder dies."""

from __future__ import annotations

import contextlib
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

    def acquire(self, inherited: int | None = None) -> None:
        """Take the lock or say who has it. Raises LockHeldError.

        `inherited` is a descriptor by which the program before this one, in the same process, holds it.
        """
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        if inherited is not None:
            descriptor = _prefer(inherited, descriptor)
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

    def renew(self) -> bool:
        """Take the lock once more where its file is not there any more; whether that was so.

        Raises:
            LockHeldError: somebody else has it by now.
            OSError: the file cannot be made.
        """
        before = self._descriptor
        assert before is not None, "acquire() comes first"
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(before), self._path.stat()):
                return False
        self.acquire()
        os.close(before)
        return True

    def share(self) -> int:
        """Another descriptor that holds the lock: it is given back when both are closed."""
        assert self._descriptor is not None, "acquire() comes first"
        return fcntl.fcntl(self._descriptor, fcntl.F_DUPFD_CLOEXEC, 0)

    def release(self) -> None:
        """Give the lock back. The file stays: deleting it would let two holders in."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _prefer(inherited: int, opened: int) -> int:
    """The inherited one where it is of the same file, which somebody may have replaced; closes the other."""
    is_same = os.path.sameopenfile(inherited, opened)
    os.close(opened if is_same else inherited)
    return inherited if is_same else opened
