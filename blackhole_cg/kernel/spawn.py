"""Parent side of a spawn: fork one child with nothing left to chance, and learn how far it got.

The child waits before it does anything of its own until it is allowed to go on, which is once it is known
who it is; it ends by itself when the parent ends before. It answers over a close-on-exec pipe: a mark just
before exec, a (step, errno, reason) record when a step fails. End of file with the mark and no record means
that exec succeeded; without the mark, that it died.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import signal
import struct
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from blackhole_cg.errors import SpawnError
from blackhole_cg.kernel.inherited import lift
from blackhole_cg.kernel.preexec import Step, perform

MARK: Final = b"."
RECORD: Final = struct.Struct("=BHi")
RECORD_TAG: Final = ord("!")
_READ_BYTES: Final = 1024
MAX_DETAIL: Final = 512
"""Bytes of a reason in words: with the record less than what a pipe takes as one."""


class Permission:
    """The pipe over which the child is allowed to go on."""

    def __init__(self) -> None:
        self._read_fd, self._write_fd = os.pipe2(os.O_CLOEXEC)

    def wait(self) -> None:
        """Child side: return when it is given. Raises OSError when nobody is left to give it."""
        os.close(self._write_fd)  # or it would never see the end of file
        if not os.read(self._read_fd, 1):
            raise OSError(errno.ECANCELED, "the supervisor has ended")

    def give(self) -> None:
        """Parent side. Only the first time counts."""
        if self._write_fd >= 0:
            with contextlib.suppress(BrokenPipeError):  # it has ended; the report will say why
                os.write(self._write_fd, MARK)
        self.close()

    def close(self) -> None:
        """Parent side: refuse it, if it was not given."""
        for descriptor in (self._read_fd, self._write_fd):
            if descriptor >= 0:
                os.close(descriptor)
        self._read_fd = self._write_fd = -1


class Report:
    """The pipes between a child and its parent: over one the child says how far it got.

    `floor`: the lowest number of the child's end of that one.
    """

    def __init__(self, floor: int = 0) -> None:
        self._read_fd = self._write_fd = -1
        self._loop: asyncio.AbstractEventLoop | None = None
        self.permission = Permission()
        try:
            self._read_fd, self._write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            self._write_fd = lift(self._write_fd, floor)
        except OSError:
            self.close()
            raise
        self._text = b""
        self._done = asyncio.Event()

    def announce(self) -> None:
        """Child side: exec is next."""
        os.write(self._write_fd, MARK)

    def fail(self, index: int, code: int, detail: str = "") -> None:
        """Child side: the step of this index failed with this errno, or with 0 for the reason in `detail`."""
        os.write(self._write_fd, RECORD.pack(RECORD_TAG, index, code) + os.fsencode(detail)[:MAX_DETAIL])

    def listen(self) -> None:
        """Parent side, after the fork: leave the writing end to the child and wait for the outcome."""
        os.close(self._write_fd)
        self._write_fd = -1
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._read_fd, self._on_readable)

    async def outcome(self) -> tuple[bool, tuple[int, int, str] | None]:
        """Wait for the end of file: whether exec was reached, and the failed step if any.

        Of that its index, and the errno, or 0 and the reason in words.
        """
        await self._done.wait()
        record = self._text.removeprefix(MARK)
        failure = None
        if len(record) >= RECORD.size:
            _, index, code = RECORD.unpack(record[: RECORD.size])
            failure = (index, code, os.fsdecode(record[RECORD.size :]))
        return self._text.startswith(MARK), failure

    def close(self) -> None:
        """Stop listening and close what is open; whoever still waits gets what is known by now.

        A child that was not allowed to go on ends.
        """
        self.permission.close()
        if self._loop is not None and self._read_fd >= 0:
            self._loop.remove_reader(self._read_fd)
            with contextlib.suppress(BlockingIOError):
                self._text += os.read(self._read_fd, _READ_BYTES)
            self._done.set()
        for descriptor in (self._read_fd, self._write_fd):
            if descriptor >= 0:
                os.close(descriptor)
        self._read_fd = self._write_fd = -1

    def _on_readable(self) -> None:
        if self._read_fd < 0:
            return
        try:
            piece = os.read(self._read_fd, _READ_BYTES)
        except BlockingIOError:
            return
        self._text += piece
        if not piece:
            self.close()


@dataclass(frozen=True, slots=True)
class Spawned:
    """A child that exists; it may not have reached exec yet."""

    pid: int
    pidfd: int


def assert_single_threaded(service: str, tasks: Path = Path("/proc/self/task")) -> None:
    """Refuse to fork beside other threads: a lock that one holds would stay locked in the child for ever.

    Raises:
        SpawnError: there are other threads, of Python or of a library.
    """
    names = [thread.name for thread in threading.enumerate()]
    if len(names) > 1 or sum(1 for _ in tasks.iterdir()) > 1:
        detail = f"this process has more than one thread ({', '.join(names)}), which makes forking unsafe"
        raise SpawnError(service, "fork", detail=detail)


def fork_child(service: str, steps: Sequence[Step], report: Report, caught: Sequence[int]) -> Spawned:
    """Fork a child that performs the steps.

    `caught` are the signals that have handlers here: they stay blocked in the child until its own step has
    reset them, so that none of our handlers ever runs there.

    Raises:
        SpawnError: there are other threads, or no process or descriptor is to be had; nothing is left behind.
    """
    assert_single_threaded(service)
    pid = _fork(service, caught, lambda: perform(steps, report.fail))
    try:
        return Spawned(pid, os.pidfd_open(pid))
    except OSError as cause:
        os.kill(pid, signal.SIGKILL)  # our own child, not yet reaped: the number is still its own
        os.waitpid(pid, 0)
        raise SpawnError(service, "open a pidfd", cause.errno or 0) from cause


def _fork(service: str, caught: Sequence[int], child: Callable[[], NoReturn]) -> int:
    """A collection in the child would touch, and so copy, every page of the parent's heap."""
    was_collecting = gc.isenabled()
    gc.disable()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, caught)
    try:
        pid = os.fork()
        if pid == 0:
            child()
        return pid
    except OSError as cause:
        raise SpawnError(service, "fork", cause.errno or 0) from cause
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if was_collecting:
            gc.enable()
