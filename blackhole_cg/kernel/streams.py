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
from collections.abc import Sequence
from pathlib import Path

from blackhole_cg.core.words import Stream
from blackhole_cg.kernel.identity import Identity
from blackhole_cg.kernel.stored_streams import StoredStreams

DIRECTORY_MODE = 0o711
FIFO_MODE = 0o600
_DELETED = " (deleted)"  # Source: proc_pid_fd(5)


class StreamFiles:
    """The FIFOs below one directory, `NAME.stdout` and `NAME.stderr` for each service.

    `stored` has those that outlived an earlier supervisor, and is given those that runs write to.
    """

    def __init__(self, directory: Path, stored: StoredStreams, proc: Path = Path("/proc")) -> None:
        self._directory = directory
        self._stored = stored
        self._proc = proc
        self._pipe_bytes = _largest_pipe(proc)
        self._readers: dict[str, tuple[int, int, int]] = {}  # who reads what has this name: descriptor, FIFO

    def open_reader(self, name: str, stream: Stream, owner: Identity) -> int:
        """A non-blocking descriptor for reading; makes the FIFO and enlarges its buffer. Raises OSError."""
        stored = self._stored.take(self.path(name, stream), name, stream)
        if stored is not None:  # with what nobody has read, and maybe nobody else has open
            os.set_blocking(stored, False)
            self._note_reader(self.path(name, stream), stored)
            return stored
        descriptor = self._open(name, stream, owner, os.O_NONBLOCK)
        with contextlib.suppress(OSError):  # past the user's share of pipe memory: the usual size will do
            # One that is taken over has its size, and to set it again would copy what is in it.
            if fcntl.fcntl(descriptor, fcntl.F_GETPIPE_SZ) < self._pipe_bytes:
                fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, self._pipe_bytes)
        self._note_reader(self.path(name, stream), descriptor)
        return descriptor

    def open_writer(self, name: str, stream: Stream, owner: Identity) -> int:
        """A blocking descriptor for the service's own use, of the FIFO that is read. Raises OSError.

        Whatever has become of its name: another FIFO that has it by now would be read by nobody.
        """
        reader = self._find_reader(self.path(name, stream))
        if reader is None:
            return self._open(name, stream, owner, 0)
        descriptor = os.open(f"{self._proc}/self/fd/{reader}", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        return _prepare(descriptor, self.path(name, stream), owner, 0)

    def keep(self, name: str) -> None:
        """A run is to write to what is read of a service: let it outlast us."""
        self._stored.keep(name, self._readers_of(name))

    def find_lost(self, name: str, pids: Sequence[int]) -> dict[Stream, int]:
        """Non-blocking descriptors of the FIFOs that a service's processes have, and that lost their names.

        Somebody has cleaned the directory up while nobody supervised; a process still leads to what it has
        open. Writers opened from now on are of the same FIFOs. Whoever has an own output is not looked at.
        """
        found: dict[Stream, int] = {}
        for number, stream in enumerate(Stream, start=1):
            path = self.path(name, stream)
            if pids and self._is_read(f"{self._proc}/{pids[0]}/fd/{number}", path):
                continue  # nothing is lost: that is nearly always so
            real = f"{self._directory.resolve()}/{name}.{stream}"
            links = (f"{self._proc}/{pid}/fd/{number}" for pid in pids)
            link = next((link for link in links if _had_path(link, real)), None)
            descriptor = _open_fifo(link) if link and not _is_same_file(link, path) else None
            if descriptor is not None:
                found[stream] = descriptor
                self._note_reader(path, descriptor)
        if pids:
            self._stored.note_adopted(name, self._readers_of(name), are_others=bool(found))
        return found

    def names(self) -> set[str]:
        """The services that have FIFOs here."""
        try:
            found = {path.stem for path in self._directory.iterdir() if path.suffix[1:] in tuple(Stream)}
        except OSError:
            found = set()
        return found | self._stored.names()

    def remove(self, name: str) -> None:
        """Delete a service's FIFOs; open descriptors stay valid."""
        for stream in Stream:
            Path(self.path(name, stream)).unlink(missing_ok=True)
            self._readers.pop(self.path(name, stream), None)
        self._stored.drop(name)

    def _is_read(self, link: str, path: str) -> bool:
        """Whether a descriptor in /proc is of what has this path, or of what is read in its place."""
        if _is_same_file(link, path):
            return True
        reader = self._find_reader(path)
        return reader is not None and _is_same_file(link, f"{self._proc}/self/fd/{reader}")

    def _readers_of(self, name: str) -> list[int]:
        readers = [self._find_reader(self.path(name, stream)) for stream in Stream]
        return [reader for reader in readers if reader is not None]

    def _note_reader(self, path: str, descriptor: int) -> None:
        found = os.fstat(descriptor)
        self._readers[path] = (descriptor, found.st_dev, found.st_ino)

    def _find_reader(self, path: str) -> int | None:
        """The descriptor, if it has not been closed by its owner: the number may mean another file by now."""
        descriptor, *fifo = self._readers.get(path, (-1, 0, 0))
        try:
            found = os.fstat(descriptor)
        except OSError:
            return None
        return descriptor if [found.st_dev, found.st_ino] == fifo else None

    def path(self, name: str, stream: Stream) -> str:
        """Where a FIFO is."""
        return f"{self._directory}/{name}.{stream}"

    def _open(self, name: str, stream: Stream, owner: Identity, flags: int) -> int:
        path = self.path(name, stream)
        made = self._make(path)
        descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        return _prepare(descriptor, path, owner, flags, made=made)

    def _make(self, path: str) -> bool:
        try:
            os.mkfifo(path, FIFO_MODE)
        except FileExistsError:
            return False
        except FileNotFoundError:
            self._directory.mkdir(DIRECTORY_MODE, parents=True, exist_ok=True)
            os.mkfifo(path, FIFO_MODE)
        return True


def _prepare(descriptor: int, path: str, owner: Identity, flags: int, *, made: bool = False) -> int:
    """The descriptor, of a FIFO that is the owner's; closed where it is not. Raises OSError."""
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


def _had_path(link: str, path: str) -> bool:
    """Whether a descriptor in /proc is of a file that has or had this path."""
    try:
        return str(Path(link).readlink()).removesuffix(_DELETED) == path
    except OSError:
        return False


def _is_same_file(link: str, path: str) -> bool:
    """Whether a descriptor in /proc is of what has this path now."""
    try:
        return os.path.samefile(link, path)  # noqa: PTH121  (500 times this: pathlib is ten times slower)
    except OSError:
        return False


def _open_fifo(link: str) -> int | None:
    """The FIFO behind a descriptor in /proc."""
    try:
        descriptor = os.open(link, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    return None


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
