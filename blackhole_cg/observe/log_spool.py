"""What has been taken from a service's FIFOs and is not settled in its log file yet.

Bytes go from FIFO to spool inside the kernel, so that a kill of this process at any moment leaves each of
them in one of the two. A record beside the spool says how far it is settled, and how long the log file was
then: the next process cuts the log file back to that, and handles the rest of the spool again. All of it is
in the runtime directory and is about one boot.
"""

from __future__ import annotations

import ctypes
import os
import struct
import zlib
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from blackhole_cg.core.words import Stream
from blackhole_cg.observe.log_file import LogPosition

DIRECTORY_MODE: Final = 0o700
FREE_BYTES: Final = 16 * 1024
"""So much settled data may wait before its memory is given back."""

_FILE_MODE: Final = 0o600
_PAGE_BYTES: Final = 4096
_KEEP_SIZE_AND_PUNCH_HOLE: Final = 0x01 | 0x02  # linux/falloc.h

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long)


@dataclass(frozen=True, slots=True)
class Mark:
    """How far one stream is settled: all bytes before `begin`, and the first `lines` lines that follow it."""

    begin: int = 0
    lines: int = 0


@dataclass(frozen=True, slots=True)
class Commit:
    """What held at one moment: the current run, the log file, and the mark of each stream, in their order."""

    run_id: int
    log: LogPosition
    marks: tuple[Mark, ...]


class LogSpool:
    """The spool of one service, `NAME.stdout`, `NAME.stderr` and `NAME.commit` below one directory.

    `last` is the newest commit of this boot, if there is one; what the spool had without one is discarded.

    Raises:
        OSError: it cannot be made, or the file system cannot give back the front of a file.
    """

    def __init__(self, directory: Path, service: str, boot_id: str) -> None:
        self._paths = [directory / f"{service}.{part}" for part in (*Stream, "commit")]
        if not directory.is_dir():
            directory.mkdir(DIRECTORY_MODE, parents=True, exist_ok=True)
        with ExitStack() as stack:
            self._record = _Record(self._paths[-1], boot_id)
            stack.callback(self._record.close)
            self.last = self._record.read()
            marks = self.last.marks if self.last else [None] * len(Stream)
            self.streams: dict[Stream, SpoolFile] = {}
            for stream, path, mark in zip(Stream, self._paths[:-1], marks, strict=True):
                self.streams[stream] = SpoolFile(path, mark)
                stack.callback(self.streams[stream].close)
            self._close = stack.pop_all().close

    @staticmethod
    def names(directory: Path) -> set[str]:
        """The services that have spools below a directory."""
        return {path.stem for path in directory.glob("*.commit")}

    def commit(self, commit: Commit) -> None:
        """Make this what holds after a kill. Raises OSError."""
        self._record.write(commit)
        for spool, mark in zip(self.streams.values(), commit.marks, strict=True):
            spool.free(mark.begin)

    def close(self) -> None:
        """Close every descriptor; what is not settled waits for the next process."""
        self._close()

    def is_lost(self) -> bool:
        """Whether somebody has deleted one of the files, so that no later process will find it."""
        return not all(path.exists() for path in self._paths)

    def remove(self) -> None:
        """Delete the files: everything is settled."""
        for path in self._paths:
            path.unlink(missing_ok=True)


class SpoolFile:
    """The bytes of one stream in their order.

    A position counts from the first byte ever: what is settled gives its memory back and leaves a hole.
    """

    def __init__(self, path: Path, mark: Mark | None) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | (0 if mark else os.O_TRUNC)
        self._fd = os.open(path, flags, _FILE_MODE)
        try:
            self.end = os.fstat(self._fd).st_size
            self.mark = Mark(min(mark.begin, self.end), mark.lines) if mark else Mark()
            self._freed = 0
            _punch_hole(self._fd, self.end + _PAGE_BYTES, _PAGE_BYTES)  # frees nothing: asks whether it can
        except OSError:
            os.close(self._fd)
            raise

    def take(self, fifo: int, limit_bytes: int) -> bytes:
        """Move what waits in a FIFO to the end, and return it; empty at end of file.

        Raises:
            BlockingIOError: nothing waits.
            OSError: the file system is full, or files there cannot be spliced to; what waits still does.
        """
        count = os.splice(fifo, self._fd, limit_bytes, offset_dst=self.end, flags=os.SPLICE_F_NONBLOCK)
        data = os.pread(self._fd, count, self.end)
        self.end += count
        return data

    def unsettled(self) -> bytes:
        """Everything from the mark on."""
        return os.pread(self._fd, self.end - self.mark.begin, self.mark.begin)

    def carry(self, before: SpoolFile, count: int) -> None:
        """Begin with the last bytes of another one. Raises OSError."""
        data = os.pread(before._fd, count, before.end - count)
        self.end += os.pwrite(self._fd, data, self.end)

    def free(self, position: int) -> None:
        """Give back the memory of what is before this position. Raises OSError."""
        page = position // _PAGE_BYTES * _PAGE_BYTES
        if page - self._freed >= FREE_BYTES:
            _punch_hole(self._fd, self._freed, page - self._freed)
            self._freed = page

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._fd)


class _Record:
    """The last commits, in two slots used in turn: one that a kill left half written does not count."""

    _FORMAT: Final = struct.Struct("<Q36sQ" + "QQQ" + "QQ" * len(Stream))
    _CHECKSUM: Final = struct.Struct("<I")
    _SLOT_BYTES: Final = 256

    def __init__(self, path: Path, boot_id: str) -> None:
        self._boot_id = boot_id.encode("ascii").ljust(36, b"\0")
        self._sequence = 0
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, _FILE_MODE)
        try:
            if os.fstat(self._fd).st_size == 0:  # take the memory now: later commits find no full file system
                os.pwrite(self._fd, bytes(2 * self._SLOT_BYTES), 0)
        except OSError:
            os.close(self._fd)
            raise

    def read(self) -> Commit | None:
        newest = None
        for slot in range(2):
            data = os.pread(self._fd, self._FORMAT.size + self._CHECKSUM.size, slot * self._SLOT_BYTES)
            body, checksum = data[: self._FORMAT.size], data[self._FORMAT.size :]
            if checksum != self._sum(body):
                continue
            sequence, boot_id, *values = self._FORMAT.unpack(body)
            if boot_id == self._boot_id and sequence > self._sequence:
                self._sequence, newest = sequence, _from_numbers(values)
        return newest

    def write(self, commit: Commit) -> None:
        self._sequence += 1
        body = self._FORMAT.pack(self._sequence, self._boot_id, *_to_numbers(commit))
        os.pwrite(self._fd, body + self._sum(body), self._sequence % 2 * self._SLOT_BYTES)

    def close(self) -> None:
        os.close(self._fd)

    def _sum(self, body: bytes) -> bytes:
        return self._CHECKSUM.pack(zlib.crc32(body))


def _to_numbers(commit: Commit) -> list[int]:
    numbers = [commit.run_id, *commit.log.file_id, commit.log.size_bytes]
    for mark in commit.marks:
        numbers += (mark.begin, mark.lines)
    return numbers


def _from_numbers(numbers: Sequence[int]) -> Commit:
    run_id, device, inode, size_bytes, *pairs = numbers
    marks = tuple(Mark(*pair) for pair in zip(pairs[::2], pairs[1::2], strict=True))
    return Commit(run_id, LogPosition((device, inode), size_bytes), marks)


def _punch_hole(descriptor: int, begin: int, length: int) -> None:
    """Free a part of a file; it reads as zeros then, and the size stays. Source: fallocate(2)."""
    if _libc.fallocate(descriptor, _KEEP_SIZE_AND_PUNCH_HOLE, begin, length):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
