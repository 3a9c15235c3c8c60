"""The FIFOs that a service writes its output to.

Both sides open them for reading and writing: nobody ever sees end of file, and a writer never gets EPIPE,
because each holder is its own reader. What is written while nobody reads waits in the kernel.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from pathlib import Path

from blackhole_cg.core.words import Stream
from blackhole_cg.kernel.identity import Identity

DIRECTORY_MODE = 0o711
FIFO_MODE = 0o600


class StreamFiles:
    """The FIFOs below one directory, `NAME.stdout` and `NAME.stderr` for each service."""

    def __init__(self, directory: Path, proc: Path = Path("/proc")) -> None:
        self._directory = directory
        self._pipe_bytes = _largest_pipe(proc)

    def open_reader(self, name: str, stream: Stream, owner: Identity) -> int:
        """A non-blocking descriptor for reading; makes the FIFO and enlarges its buffer. Raises OSError."""
        descriptor = self._open(name, stream, owner, os.O_NONBLOCK)
        with contextlib.suppress(OSError):  # past the user's share of pipe memory: the usual size will do
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, self._pipe_bytes)
        return descriptor

    def open_writer(self, name: str, stream: Stream, owner: Identity) -> int:
        """A blocking descriptor for the service's own use. Raises OSError."""
        return self._open(name, stream, owner, 0)

    def remove(self, name: str) -> None:
        """Delete a service's FIFOs; open descriptors stay valid."""
        for stream in Stream:
            Path(self.path(name, stream)).unlink(missing_ok=True)

    def path(self, name: str, stream: Stream) -> str:
        """Where a FIFO is."""
        return f"{self._directory}/{name}.{stream}"

    def _open(self, name: str, stream: Stream, owner: Identity, flags: int) -> int:
        path = self.path(name, stream)
        made = self._make(path)
        descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISFIFO(found.st_mode):
                raise FileExistsError(errno.EEXIST, "exists and is no FIFO", path)
            if made or (found.st_uid, found.st_gid) != (owner.uid, owner.gid):
                _give(descriptor, owner, found)
            os.set_blocking(descriptor, not flags & os.O_NONBLOCK)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _make(self, path: str) -> bool:
        try:
            os.mkfifo(path, FIFO_MODE)
        except FileExistsError:
            return False
        except FileNotFoundError:
            self._directory.mkdir(DIRECTORY_MODE, parents=True, exist_ok=True)
            os.mkfifo(path, FIFO_MODE)
        return True


def _give(descriptor: int, owner: Identity, found: os.stat_result) -> None:
    """The service must be able to re-open its /dev/stdout, so the FIFO is its user's."""
    if (found.st_uid, found.st_gid) != (owner.uid, owner.gid):
        os.fchown(descriptor, owner.uid, owner.gid)
    os.fchmod(descriptor, FIFO_MODE)


def _largest_pipe(proc: Path) -> int:
    try:
        return int((proc / "sys/fs/pipe-max-size").read_text())
    except (OSError, ValueError):
        return 65536
