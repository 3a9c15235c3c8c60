"""From a service's two FIFOs to its log file, its console and its followers.

Owns the reading descriptors and the attribution of lines to runs. Nothing is queued: what is not read yet
stays in the FIFO, and a service that writes faster than it is read waits there.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
import termios
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from blackhole_cg.core.loglines import LineEncoder, Lines, LineSplitter, render_time
from blackhole_cg.core.words import Stream
from blackhole_cg.observe.log_file import LogFile

READ_BYTES: Final = 64 * 1024
"""Read from one stream per turn of the loop, so that every other descriptor has its turn too."""

RECOVERY_SECONDS: Final = 5.0
"""A full disk takes a line now and then; only so long without a loss ends the trouble."""


@dataclass(frozen=True, slots=True)
class LogTrouble:
    """Lines are being lost (`cause` says why), or were and no longer are (`cause` is None).

    `dropped_lines` is how many so far in this bout of trouble.
    """

    service: str
    cause: str | None
    dropped_lines: int


@dataclass(frozen=True, slots=True)
class LogHooks:
    """Who else wants to know: `lines` gets every line once stored, `trouble` the begin and the end of losses.

    `wall_clock` (aware) stamps the lines, `now` is monotonic seconds.
    """

    lines: Callable[[Stream, Lines], None] | None = None
    trouble: Callable[[LogTrouble], None] | None = None
    wall_clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    now: Callable[[], float] = time.monotonic


@dataclass(slots=True)
class _Channel:
    stream: Stream
    descriptor: int
    encoder: LineEncoder
    splitter: LineSplitter = field(default_factory=LineSplitter)


class LogPump:
    """Stores what one service writes; everything happens in callbacks of the running loop.

    Args:
        service: the name in the lines.
        streams: non-blocking reading descriptors; from now on the pump's own, closed by `close`.
        log_file: likewise the pump's own.
        run_id: what lines belong to that come before the first `begin_run`: a backlog of an earlier run.
    """

    def __init__(
        self,
        service: str,
        streams: Mapping[Stream, int],
        log_file: LogFile,
        *,
        run_id: int = 0,
        hooks: LogHooks | None = None,
    ) -> None:
        self.service = service
        self.log_file = log_file
        self.lines_total = 0
        self._hooks = hooks or LogHooks()
        self._channels = [
            _Channel(stream, descriptor, LineEncoder(service, stream, run_id))
            for stream, descriptor in streams.items()
        ]
        self._loop: asyncio.AbstractEventLoop | None = None
        self._dropped_before = 0  # dropped_total when the present trouble began
        self._troubled_at: float | None = None  # when the last line was lost; None: no trouble

    @property
    def dropped_total(self) -> int:
        """Lines that could not be written to the log file, of `lines_total`."""
        return self.log_file.dropped_total

    def open(self) -> None:
        """Begin to read, and open the log file.

        Raises:
            OSError: the log file cannot be opened; lines are read, dropped and counted until it can.
        """
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            for channel in self._channels:
                self._loop.add_reader(channel.descriptor, self._read, channel)
        self.log_file.open()

    def begin_run(self, run_id: int) -> None:
        """Attribute everything that is read from now on to this run."""
        for channel in self._channels:
            channel.encoder = LineEncoder(self.service, channel.stream, run_id)

    def end_run(self) -> None:
        """Store all that the run has written, its unfinished last lines too; call it once the run is empty.

        Takes what is in the FIFOs now, bounded by their capacity, not what a stray writer adds meanwhile.
        """
        for channel in self._channels:
            waiting = _waiting_bytes(channel.descriptor)
            while waiting > 0 and (taken := self._read(channel, min(waiting, READ_BYTES))):
                waiting -= taken
            self._store(channel, channel.splitter.flush())

    def close(self) -> None:
        """End the run, stop reading, and close the descriptors and the log file; its followers end."""
        if not self._channels:
            return
        self.end_run()
        for channel in self._channels:
            if self._loop is not None:
                self._loop.remove_reader(channel.descriptor)
            os.close(channel.descriptor)
        self._channels = []
        self.log_file.close()

    def _read(self, channel: _Channel, limit_bytes: int = READ_BYTES) -> int:
        """Read once and store; how many bytes were there."""
        try:
            data = os.read(channel.descriptor, limit_bytes)
        except BlockingIOError:
            return 0
        if data:
            self._store(channel, channel.splitter.feed(data))
        elif self._loop is not None:  # end of file would be "readable" for ever
            self._loop.remove_reader(channel.descriptor)
        return len(data)

    def _store(self, channel: _Channel, found: list[Lines]) -> None:
        if not found:
            return
        stamp = render_time(self._hooks.wall_clock())
        batch = b"".join([channel.encoder.encode(lines, stamp) for lines in found])
        self.lines_total += sum(lines.line_count for lines in found)
        dropped = self.log_file.append(batch)
        if dropped or self._troubled_at is not None:
            self._judge(dropped)
        if self._hooks.lines is not None:
            for lines in found:
                self._hooks.lines(channel.stream, lines)

    def _judge(self, dropped: int) -> None:
        """Report the first loss, and the end of losses."""
        now = self._hooks.now()
        if dropped:
            began = self._troubled_at is None
            self._troubled_at = now
            if began:
                self._dropped_before = self.dropped_total - dropped
                error = self.log_file.error
                why = error.strerror or str(error) if error else "unknown error"
                self._report(f"cannot write {self.log_file.path}: {why}")
        elif self._troubled_at is not None and now - self._troubled_at >= RECOVERY_SECONDS:
            self._troubled_at = None
            self._report(None)

    def _report(self, cause: str | None) -> None:
        if self._hooks.trouble is not None:
            self._hooks.trouble(LogTrouble(self.service, cause, self.dropped_total - self._dropped_before))


def _waiting_bytes(descriptor: int) -> int:
    """What can be read from a FIFO at once. Source: ioctl_pipe FIONREAD, pipe(7)."""
    answer = fcntl.ioctl(descriptor, termios.FIONREAD, b"\0" * 4)
    return int(struct.unpack("i", answer)[0])
