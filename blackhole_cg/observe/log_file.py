"""NAME.log and its rotated files NAME.log.1 (the youngest), NAME.log.2 and so on.

Owns writing and rotating. Whole lines only: none is split across two files, and what a failed write left torn
is cut off. A line that was accepted survives a crash of this process; a power loss may take the last seconds
(nothing is fsynced).
"""

from __future__ import annotations

import errno
import logging
import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from blackhole_cg.core.loglines import MAX_ENCODED_LINE_BYTES, mend_torn, run_of
from blackhole_cg.core.spec import LogPolicy
from blackhole_cg.observe.bell import Bell

FileId = tuple[int, int]
"""Device and inode: what a file is, whatever its name."""

_LOOK_INTERVAL_SECONDS: Final = 1.0
_MODE: Final = 0o640

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LogPosition:
    """A log file, and how long it is."""

    file_id: FileId
    size_bytes: int


NOWHERE: Final = LogPosition((0, 0), 0)
"""No file is open."""


def _ignore(_lines: int) -> None:
    """Nobody wants to know."""


class LogFile:
    """Appends lines, rotates by size, keeps `policy.max_files` files; no broken disk makes it raise.

    Args:
        path: the current file; its directory is made when missing.
        policy: when to rotate and how many files to keep, the current one included.
        now: monotonic seconds.
        write: as os.write.
    """

    def __init__(
        self,
        path: Path,
        policy: LogPolicy,
        *,
        now: Callable[[], float] = time.monotonic,
        write: Callable[[int, bytes | memoryview], int] = os.write,
    ) -> None:
        self.path = path
        self.policy = policy
        self.dropped_total = 0
        self.error: OSError | None = None  # why the last append dropped lines
        self.changed = Bell()  # rings after every append, closes with the file
        self._now = now
        self._write = write
        self._fd = -1
        self._size_bytes = 0
        self._look_at = 0.0
        self._rotate_at = 0.0  # no rotation before then: the last one failed
        self._cut_back: LogPosition | None = None  # what to cut the first file to that is opened
        self._files: deque[FileId] = deque(maxlen=max(1, policy.max_files))  # oldest first
        self._files.extend(file_id for file_id, _ in self._existing())

    def open(self, cut_back: LogPosition | None = None) -> None:
        """Open the file now rather than at the first append, to learn early that it cannot be.

        Args:
            cut_back: if the first file to be opened is this one, what it has beyond that size is cut off.

        Raises:
            OSError: it cannot be made, read or repaired.
        """
        self._cut_back = cut_back or self._cut_back
        if self._fd < 0:
            self._open()

    def position(self) -> LogPosition:
        """Where the next line will go; asks the file, others may write to it too. Raises OSError."""
        if self._fd < 0:
            return NOWHERE
        status = os.fstat(self._fd)
        return LogPosition((status.st_dev, status.st_ino), status.st_size)

    def newest_run_id(self) -> int:
        """The run that the last line is of; 0 if there is none, or it cannot be read."""
        for path in (self.path, self._numbered(1)):  # a file that has just begun is empty
            try:
                with path.open("rb") as file:
                    file.seek(max(0, os.fstat(file.fileno()).st_size - MAX_ENCODED_LINE_BYTES))
                    lines = file.read().splitlines()
            except FileNotFoundError:
                continue
            except OSError:
                return 0
            if run_id := next(filter(None, map(run_of, reversed(lines))), 0):
                return run_id
        return 0

    def set_policy(self, policy: LogPolicy) -> None:
        """Rotate by another policy from now on."""
        self.policy = policy
        self._files = deque(self._files, maxlen=max(1, policy.max_files))

    def append(self, batch: bytes, settle: Callable[[int], None] = _ignore) -> int:
        """Add whole lines, each with its newline; how many of them could not be written and are lost.

        `settle` is called before and after the file becomes another one, with how many lines of the batch the
        files have: a new file begins empty, so whoever remembers `position` then never needs to know two.
        """
        self.error = None
        position = 0
        try:
            if self._find_place():
                settle(0)
            while position < len(batch) and self.error is None:
                end = self._end_of_fitting(batch, position)
                if end == position:
                    lines = batch.count(b"\n", 0, position)
                    settle(lines)
                    self._rotate()
                    settle(lines)
                else:
                    position = self._put(batch, position, end)
        except OSError as error:
            self.error = error
        if position:
            self.changed.ring()
        dropped = batch.count(b"\n", position) if self.error else 0
        self.dropped_total += dropped
        return dropped

    def close(self) -> None:
        """Close the file and end every follower once it has read the rest."""
        self._close_descriptor()
        self.changed.close()

    def younger_than(self, file_id: FileId | None) -> list[Path]:
        """Paths of the files begun after this one, oldest first; all of them if it is not known."""
        known = list(self._files)
        younger = known[known.index(file_id) + 1 :] if file_id in known else known
        return [path for found, path in self._existing() if found in younger]

    def knows(self, file_id: FileId) -> bool:
        """Whether this file is still one of those kept."""
        return file_id in self._files

    def _existing(self) -> list[tuple[FileId, Path]]:
        """The files that are there, oldest first."""
        found = []
        for number in range(self.policy.max_files - 1, -1, -1):
            path = self._numbered(number)
            try:
                status = path.stat()
            except OSError:
                continue
            found.append(((status.st_dev, status.st_ino), path))
        return found

    def _numbered(self, number: int) -> Path:
        return Path(f"{self.path}.{number}") if number else self.path

    def _find_place(self) -> bool:
        """Open the file if it is not, or if the path leads elsewhere since someone deleted or moved it."""
        now = self._now()
        if self._fd >= 0 and now >= self._look_at:
            self._look_at = now + _LOOK_INTERVAL_SECONDS
            try:
                status = self.path.stat()
                if (status.st_dev, status.st_ino) != self._files[-1]:
                    self._close_descriptor()
                self._size_bytes = status.st_size  # someone may have truncated it
            except FileNotFoundError:
                self._close_descriptor()
            except OSError:
                pass  # what is open can still be written
        if self._fd >= 0:
            return False
        self._open()
        return True

    def _open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not self.path.exists()
        fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _MODE)
        try:
            if is_new:
                os.fchmod(fd, _MODE)  # whatever the umask
            status = os.fstat(fd)
            file_id = (status.st_dev, status.st_ino)
            self._size_bytes = self._mend(fd, self._cut(fd, file_id, status.st_size))
        except OSError:
            os.close(fd)
            raise
        self._fd = fd
        self._look_at = self._now() + _LOOK_INTERVAL_SECONDS
        if file_id in self._files:
            self._files.remove(file_id)
        self._files.append(file_id)

    def _cut(self, fd: int, file_id: FileId, size_bytes: int) -> int:
        """Take back what an earlier process wrote and did not settle; the size afterwards."""
        settled = self._cut_back
        if settled is not None and settled.file_id == file_id and settled.size_bytes < size_bytes:
            os.ftruncate(fd, settled.size_bytes)
            size_bytes = settled.size_bytes
        self._cut_back = None
        return size_bytes

    def _mend(self, fd: int, size_bytes: int) -> int:
        """End the last line if a crash left it without its newline; the size afterwards."""
        begin = max(0, size_bytes - MAX_ENCODED_LINE_BYTES)
        tail = os.pread(fd, size_bytes - begin, begin)
        fragment = tail[tail.rfind(b"\n") + 1 :]
        if not fragment:
            return size_bytes
        keep, ending = mend_torn(fragment)
        kept_size = size_bytes - len(fragment) + keep
        if keep < len(fragment):
            os.ftruncate(fd, kept_size)
        written = self._write(fd, ending)
        if written < len(ending):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return kept_size + written

    def _end_of_fitting(self, batch: bytes, start: int) -> int:
        """Where the lines end that may go into the current file; `start` when it is time to rotate."""
        room = self.policy.max_bytes - self._size_bytes
        if len(batch) - start <= room or self._now() < self._rotate_at:
            return len(batch)
        end = batch.rfind(b"\n", start, start + room) + 1 if room > 0 else 0
        if end > start:
            return end
        return start if self._size_bytes else batch.index(b"\n", start) + 1

    def _put(self, batch: bytes, start: int, end: int) -> int:
        """Write batch[start:end]; up to where whole lines were written, short of `end` after an error."""
        view = memoryview(batch)
        done = start
        try:
            while done < end:
                written = self._write(self._fd, view[done:end])
                if written <= 0:
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
                done += written
        except OSError as error:
            self.error = error
            end = max(start, batch.rfind(b"\n", start, done) + 1)
            if done > end:
                self._cut_to(self._size_bytes + end - start)
        self._size_bytes += end - start
        return end

    def _cut_to(self, size_bytes: int) -> None:
        """Remove the torn end of a failed write; if even that fails, the next opening mends it."""
        try:
            os.ftruncate(self._fd, size_bytes)
        except OSError:
            self._close_descriptor()

    def _rotate(self) -> None:
        """Shift every file by one number and begin a new one; if that is refused, the current one grows."""
        try:
            self._remove_surplus()
            for number in range(self.policy.max_files - 1, 0, -1):
                source = self._numbered(number - 1)
                if source.exists():
                    source.rename(self._numbered(number))
            if self.policy.max_files <= 1:
                self.path.unlink(missing_ok=True)
        except OSError as error:
            self._rotate_at = self._now() + _LOOK_INTERVAL_SECONDS
            logger.warning("cannot rotate %s, it grows past its limit: %s", self.path, error.strerror)
            return
        self._close_descriptor()
        self._open()

    def _remove_surplus(self) -> None:
        """Delete what a policy with more files left behind."""
        number = max(1, self.policy.max_files)
        while (path := self._numbered(number)).exists():
            path.unlink()
            number += 1

    def _close_descriptor(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
