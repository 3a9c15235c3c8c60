"""From a service's two FIFOs to its log file, its console and its followers.

Owns the reading descriptors and the attribution of lines to runs. Nothing is queued: what is not read yet
stays in the FIFO, and a service that writes faster than it is read waits there. What is read and not settled
in the log file is in the spool too, so that a kill at any moment neither loses nor repeats a line.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import struct
import termios
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from blackhole_cg.core.loglines import LineEncoder, Lines, LineSplitter, render_time, skip_lines
from blackhole_cg.core.words import Stream
from blackhole_cg.observe.log_file import LogFile
from blackhole_cg.observe.log_spool import Commit, LogSpool, Mark, SpoolFile

READ_BYTES: Final = 64 * 1024
"""Read from one stream per turn of the loop, so that every other descriptor has its turn too."""

RECOVERY_SECONDS: Final = 5.0
"""A full disk takes a line now and then; only so long without a loss ends the trouble."""

_log = logging.getLogger(__name__)


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
    spool: SpoolFile | None
    encoder: LineEncoder
    splitter: LineSplitter = field(default_factory=LineSplitter)
    mark: Mark = field(default_factory=Mark)
    gap_at: int = 0  # position in the spool where bytes are missing that were read past it

    def spooled_bytes(self) -> int:
        """How many bytes the spool surely has of the unfinished line, counted from the end."""
        return self.spool.end - self.gap_at if self.spool else 0

    def settled(self) -> Mark:
        """The mark when every line found so far is stored."""
        end = self.spool.end if self.spool else 0
        return Mark(end - min(self.splitter.waiting_bytes, self.spooled_bytes()))


class LogPump:
    """Stores what one service writes; everything happens in callbacks of the running loop.

    Args:
        service: the name in the lines.
        streams: non-blocking reading descriptors; from now on the pump's own, closed by `close`.
        log_file: likewise the pump's own.
        spool: likewise; without one, what was read and is not stored yet dies with this process.
    """

    def __init__(
        self,
        service: str,
        streams: Mapping[Stream, int],
        log_file: LogFile,
        *,
        spool: LogSpool | None = None,
        hooks: LogHooks | None = None,
    ) -> None:
        self.service = service
        self.log_file = log_file
        self.lines_total = 0
        self._hooks = hooks or LogHooks()
        self._spool = spool
        self._spool_trouble = False
        # What was waiting is the last run's.
        self._run_id = spool.last.run_id if spool and spool.last else log_file.newest_run_id()
        self._channels = [self._channel(stream, descriptor) for stream, descriptor in streams.items()]
        self._loop: asyncio.AbstractEventLoop | None = None
        self._dropped_before = 0  # dropped_total when the present trouble began
        self._troubled_at: float | None = None  # when the last line was lost; None: no trouble

    @property
    def dropped_total(self) -> int:
        """Lines that could not be written to the log file, of `lines_total`."""
        return self.log_file.dropped_total

    @property
    def run_id(self) -> int:
        """The run that what is read is attributed to; 0 before the first one."""
        return self._run_id

    def open(self) -> None:
        """Begin to read, and open the log file.

        Raises:
            OSError: the log file cannot be opened; lines are read, dropped and counted until it can.
        """
        try:
            self.log_file.open(cut_back=self._spool.last.log if self._spool and self._spool.last else None)
        finally:
            if self._loop is None:
                self._catch_up()
                self._loop = asyncio.get_running_loop()
                for channel in self._channels:
                    self._loop.add_reader(channel.descriptor, self._read, channel)

    def begin_run(self, run_id: int) -> None:
        """Attribute what is read from now on to this run, and what still waits to the one before."""
        if run_id == self._run_id:
            return
        if self._run_id:
            self.end_run()
        self._run_id = run_id
        for channel in self._channels:
            channel.encoder = LineEncoder(self.service, channel.stream, run_id)
        self._commit()

    def read_from(self, streams: Mapping[Stream, int]) -> None:
        """Read these streams from other descriptors from now on, the pump's own like those it had."""
        for channel in self._channels:
            if channel.stream not in streams:
                continue
            self._drain(channel)
            if self._loop is not None:
                self._loop.remove_reader(channel.descriptor)
            os.close(channel.descriptor)
            channel.descriptor = streams[channel.stream]
            if self._loop is not None:
                self._loop.add_reader(channel.descriptor, self._read, channel)

    def lost_spool(self) -> LogSpool | None:
        """The spool, if somebody has deleted its files."""
        return self._spool if self._spool is not None and self._channels and self._spool.is_lost() else None

    def change_spool(self, spool: LogSpool) -> None:
        """Take by way of an empty one from now on, with the beginnings of lines that are not complete yet.

        Raises:
            OSError: these cannot be written; the pump goes on as before, and the new one is not its own.
        """
        for channel in self._channels:
            if channel.spool is not None:
                count = min(channel.splitter.waiting_bytes, channel.spooled_bytes())
                spool.streams[channel.stream].carry(channel.spool, count)
        if self._spool is not None:
            self._spool.close()
        self._spool, self._spool_trouble = spool, False
        for channel in self._channels:
            channel.spool, channel.gap_at = spool.streams[channel.stream], 0
            channel.mark = channel.settled()
        self._commit()

    def end_run(self) -> None:
        """Store all that the run has written, its unfinished last lines too; call it once the run is empty.

        Takes what is in the FIFOs now, bounded by their capacity, not what a stray writer adds meanwhile.
        """
        for channel in self._channels:
            self._drain(channel)
            self._store(channel, channel.splitter.flush())

    def close(self) -> None:
        """Store what is there, stop reading, and close all that is the pump's own; followers end.

        An unfinished line waits in the spool for its end; what no spool has is stored as it is.
        """
        if not self._channels:
            return
        for channel in self._channels:
            self._drain(channel)
            if channel.splitter.waiting_bytes > channel.spooled_bytes():
                self._store(channel, channel.splitter.flush())
            if self._loop is not None:
                self._loop.remove_reader(channel.descriptor)
            os.close(channel.descriptor)
        self._channels = []
        if self._spool is not None:
            self._spool.close()
        self.log_file.close()

    def _channel(self, stream: Stream, descriptor: int) -> _Channel:
        encoder = LineEncoder(self.service, stream, self._run_id)
        spool = self._spool.streams[stream] if self._spool else None
        return _Channel(stream, descriptor, spool, encoder, mark=spool.mark if spool else Mark())

    def _catch_up(self) -> None:
        """Store what an earlier process had taken and not settled."""
        for channel in self._channels:
            if channel.spool is not None:
                found = channel.splitter.feed(channel.spool.unsettled())
                self._store(channel, list(skip_lines(found, channel.mark.lines)))
                channel.mark = channel.settled()
        self._commit()

    def _drain(self, channel: _Channel) -> None:
        """Take in what is in the FIFO now."""
        waiting = _waiting_bytes(channel.descriptor)
        while waiting > 0 and (taken := self._read(channel, min(waiting, READ_BYTES))):
            waiting -= taken

    def _read(self, channel: _Channel, limit_bytes: int = READ_BYTES) -> int:
        """Read once and store; how many bytes were there."""
        try:
            data = self._take(channel, limit_bytes)
        except BlockingIOError:
            return 0
        if data:
            self._store(channel, channel.splitter.feed(data))
        elif self._loop is not None:  # end of file would be "readable" for ever
            self._loop.remove_reader(channel.descriptor)
        return len(data)

    def _take(self, channel: _Channel, limit_bytes: int) -> bytes:
        """Read by way of the spool, past it where it refuses. Raises BlockingIOError when nothing waits."""
        if channel.spool is None:
            return os.read(channel.descriptor, limit_bytes)
        try:
            return channel.spool.take(channel.descriptor, limit_bytes)
        except BlockingIOError:
            raise
        except OSError as error:
            self._warn(error)
        data = os.read(channel.descriptor, limit_bytes)
        channel.gap_at = channel.spool.end
        return data

    def _commit(self) -> None:
        """Settle what is stored: after a kill the next process goes on from here."""
        if self._spool is None or not self._channels:
            return
        marks = tuple(channel.mark for channel in self._channels)
        try:
            self._spool.commit(Commit(self._run_id, self.log_file.position(), marks))
        except OSError as error:
            self._warn(error)

    def _warn(self, error: OSError) -> None:
        if not self._spool_trouble:
            self._spool_trouble = True
            why = error.strerror or str(error)
            _log.warning("%s: a kill of the supervisor may lose log lines: %s", self.service, why)

    def _store(self, channel: _Channel, found: list[Lines]) -> None:
        if not found:
            return
        stamp = render_time(self._hooks.wall_clock())
        batch = b"".join([channel.encoder.encode(lines, stamp) for lines in found])
        self.lines_total += sum(lines.line_count for lines in found)
        before = channel.mark

        def settle(line_count: int) -> None:
            channel.mark = Mark(before.begin, before.lines + line_count)
            self._commit()

        dropped = self.log_file.append(batch, settle)
        channel.mark = channel.settled()
        self._commit()
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
