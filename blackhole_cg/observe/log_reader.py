"""Reading a service's log files back: the newest lines, those since a moment, and those to come.

Readers go by file position, not by a queue: a slow one loses nothing and costs no memory. They run in the
process that writes the log, which is how they are woken; a line may be read as soon as it was appended.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from blackhole_cg.core.loglines import LINE_START, MAX_ENCODED_LINE_BYTES, render_time, stream_mark
from blackhole_cg.core.words import Stream
from blackhole_cg.observe.log_file import FileId, LogFile

BLOCK_BYTES: Final = 256 * 1024
"""Read at once, between two turns of the loop; more than any line."""

assert BLOCK_BYTES > MAX_ENCODED_LINE_BYTES

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LogQuery:
    """Lines of `stream`, stamped at or after `since` (aware), and the newest `tail` of those; None: all."""

    tail: int | None = None
    since: datetime | None = None
    stream: Stream | None = None


class LogReader:
    """Answers queries on one service's log."""

    def __init__(self, log_file: LogFile) -> None:
        self._log = log_file

    async def read(self, query: LogQuery, *, follow: bool = False) -> AsyncIterator[bytes]:
        """Blocks of whole JSON lines, each line with its newline, oldest first.

        Without `follow` it ends with what was there at the time of the call; with it, when the log is closed.
        A follower goes on through rotations; it misses only files that retention deleted before it got to
        them, with a warning. Close the generator (contextlib.aclosing) when leaving it early.
        """
        line_filter = _Filter(query)
        sources = self._open(None)
        try:
            first = await _find_start(sources, query, line_filter)
            for passed in sources[:first]:
                passed.close()
            del sources[:first]
            while sources:
                is_last = len(sources) == 1
                end = sources[0].size_bytes if is_last else None
                async for block in _read_blocks(sources[0], line_filter, end):
                    yield block
                if is_last:
                    break
                sources.pop(0).close()
            if follow:
                async for block in self._follow(sources, line_filter):
                    yield block
        finally:
            for source in sources:
                source.close()

    async def _follow(self, sources: list[_Source], line_filter: _Filter) -> AsyncIterator[bytes]:
        """What comes after the only source; replaces it in the caller's list, who closes it."""
        while True:
            for source in sources:
                async for block in _read_blocks(source, line_filter, None):
                    yield block
            # From the end of the file to the wait nothing is awaited: no line and no rotation slips through.
            if successors := self._open(sources[0].file_id if sources else None, only_next=True):
                for source in sources:
                    source.close()
                sources[:] = successors
            elif self._log.changed.closed:
                return
            else:
                await self._log.changed.wait()

    def _open(self, after: FileId | None, *, only_next: bool = False) -> list[_Source]:
        """The files begun after one, oldest first."""
        if after is not None and not self._log.knows(after):
            logger.warning("a reader of %s was so slow that rotated files may be gone unread", self._log.path)
        sources = []
        for path in self._log.younger_than(after):
            try:
                sources.append(_Source(path))
            except OSError as error:
                logger.warning("cannot read %s: %s", path, error.strerror)
            if sources and only_next:
                break
        return sources


class _Source:
    """One open log file, and how far it was read."""

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        status = os.fstat(self.descriptor)
        self.file_id = (status.st_dev, status.st_ino)
        self.size_bytes = status.st_size
        self.offset = 0

    def read(self, begin: int, end: int) -> bytes:
        return os.pread(self.descriptor, end - begin, begin)

    def close(self) -> None:
        os.close(self.descriptor)


class _Filter:
    """Picks the lines of a block that a query asks for, and only log lines at all."""

    def __init__(self, query: LogQuery) -> None:
        self.since = LINE_START + render_time(query.since).encode("ascii") if query.since else b""
        self._mark = stream_mark(query.stream) if query.stream else b""

    def matches(self, line: bytes) -> bool:
        return (
            line.startswith(LINE_START) and line.endswith(b"}") and line >= self.since and self._mark in line
        )

    def pick(self, block: bytes) -> list[bytes]:
        return [line for line in block.split(b"\n") if self.matches(line)]


async def _read_blocks(source: _Source, line_filter: _Filter, end: int | None) -> AsyncIterator[bytes]:
    """The matching lines from the source's offset to `end`, or to the end of the file."""
    while end is None or source.offset < end:
        stop = source.offset + BLOCK_BYTES
        block = source.read(source.offset, stop if end is None else min(stop, end))
        whole = block.rfind(b"\n") + 1
        if not whole:
            if len(block) == BLOCK_BYTES:  # no line of ours: none is that long
                source.offset += len(block)
                continue
            if not block and os.fstat(source.descriptor).st_size < source.offset:
                source.offset = 0  # truncated by someone else: it begins anew
                continue
            return
        source.offset += whole
        if lines := line_filter.pick(block[:whole]):
            lines.append(b"")
            yield b"\n".join(lines)
        await asyncio.sleep(0)


async def _find_start(sources: list[_Source], query: LogQuery, line_filter: _Filter) -> int:
    """Go back from the end to where reading forward has to begin: the source's index; its offset is set."""
    wanted = query.tail
    if wanted is None and query.since is None:
        return 0
    for index in range(len(sources) - 1, -1, -1):
        found, wanted = await _find_start_in(sources[index], wanted, line_filter)
        if found:
            return index
    return 0


async def _find_start_in(
    source: _Source, wanted: int | None, line_filter: _Filter
) -> tuple[bool, int | None]:
    """Whether reading begins in this file, at its offset now set; if not, how many lines are wanted still."""
    position = source.size_bytes
    rest = b""  # the end of a line that begins before `position`
    while position > 0:
        begin = max(0, position - BLOCK_BYTES)
        block = source.read(begin, position) + rest
        head = block.find(b"\n") + 1 if begin else 0
        if begin and not head:
            head = len(block)
        rest, whole = block[:head], block[head : block.rfind(b"\n") + 1]
        if wanted is not None:
            matching = len(line_filter.pick(whole))
            if matching >= wanted:
                source.offset = begin + head + _offset_of_newest(whole, wanted, line_filter)
                return True, 0
            wanted -= matching
        if whole.startswith(LINE_START) and whole < line_filter.since:
            source.offset = begin + head
            return True, wanted
        if len(rest) > BLOCK_BYTES:
            rest = b""  # no line of ours
        position = begin
        await asyncio.sleep(0)
    return False, wanted


def _offset_of_newest(block: bytes, wanted: int, line_filter: _Filter) -> int:
    """Where in the block the newest `wanted` matching lines begin; there are that many."""
    end = len(block)
    while wanted > 0:
        begin = block.rfind(b"\n", 0, end - 1) + 1
        if line_filter.matches(block[begin : end - 1]):
            wanted -= 1
        end = begin
    return end
