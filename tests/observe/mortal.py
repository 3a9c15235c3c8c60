"""A pump that is killed at any of its system calls, with a real SIGKILL, as often as one likes."""

from __future__ import annotations

import asyncio
import fcntl
import mmap
import os
import signal
import struct
import sys
import termios
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blackhole_cg.core.loglines import restore_bytes
from blackhole_cg.core.spec import LogPolicy
from blackhole_cg.core.words import Stream
from blackhole_cg.observe import log_spool
from blackhole_cg.observe.log_file import LogFile
from blackhole_cg.observe.log_pump import LogPump
from blackhole_cg.observe.log_spool import LogSpool
from tests.observe.helpers import make_fifos, rows, until

BOOT_ID = "11111111-2222-3333-4444-555555555555"

Step = tuple[Stream, bytes] | int
"""What the service writes next, or the number of the run that begins next."""

PATIENCE_SECONDS = 60
_write = os.write  # the service's own, never counted


@dataclass(frozen=True)
class Kill:
    """Die at the `at`-th system call: before it, or when it is half done."""

    at: int
    halfway: bool = False


class Mortal:
    """One service's FIFOs, spool and log file, and the lives of the processes that pump it."""

    def __init__(self, directory: Path, steps: Sequence[Step], policy: LogPolicy | None = None) -> None:
        self.log_path = directory / "web.log"
        self._spool_dir = directory / "spool"
        self._policy = policy or LogPolicy()
        self._steps = steps
        self._taken = mmap.mmap(-1, 8)  # shared with the lives: how many steps are done
        paths, self._readers = make_fifos(directory, "web")
        self._writers = {stream: os.open(path, os.O_RDWR | os.O_CLOEXEC) for stream, path in paths.items()}
        for writer in self._writers.values():  # a step must fit, nobody reads while it is written
            fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 1 << 18)

    def live(self, kill: Kill | None = None) -> bool:
        """Pump the rest of the steps; whether this life reached its end."""
        pid = os.fork()
        if pid == 0:
            self._be_child(kill)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert status in (0, -signal.SIGKILL), "the pump failed, see stderr"
        return status == 0

    def bury(self) -> None:
        for descriptor in (*self._readers.values(), *self._writers.values()):
            os.close(descriptor)

    def rows(self) -> list[dict[str, Any]]:
        """All lines in all files, oldest first."""
        return rows(*LogFile(self.log_path, self._policy).younger_than(None))

    def written(self, stream: Stream, run_id: int) -> list[bytes]:
        """The lines that the log files have of a run, over-long ones put together again."""
        lines = [b""]
        for row in self.rows():
            if (row["stream"], row["run_id"]) == (stream, run_id):
                lines[-1] += restore_bytes(row["message"])
                lines += [] if "partial" in row else [b""]
        assert lines.pop() == b""
        return lines

    def expected(self, stream: Stream, run_id: int) -> list[bytes]:
        """The lines that the steps write in a run."""
        data, run = b"", 1
        for step in self._steps:
            if isinstance(step, int):
                run = step
            elif (step[0], run) == (stream, run_id):
                data += step[1]
        lines = data.split(b"\n")
        return lines if lines[-1] else lines[:-1]

    def check(self) -> None:
        """Every line is there, once, whole, in order, in its run."""
        for run_id in (1, *(step for step in self._steps if isinstance(step, int))):
            for stream in Stream:
                assert self.written(stream, run_id) == self.expected(stream, run_id)

    def _be_child(self, kill: Kill | None) -> None:
        code = 70
        signal.alarm(PATIENCE_SECONDS)
        try:
            if kill:
                _arm(kill)
            asyncio.run(self._pump())
            code = 0
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(code)

    async def _pump(self) -> None:
        log = LogFile(self.log_path, self._policy, write=_late_write)
        pump = LogPump("web", self._readers, log, spool=LogSpool(self._spool_dir, "web", BOOT_ID))
        pump.open()
        pump.begin_run(self._run_id())
        while self._taken[0] < len(self._steps):
            step = self._steps[self._taken[0]]
            self._taken[0] += 1
            if isinstance(step, int):
                pump.end_run()
                pump.begin_run(step)
                continue
            stream, data = step
            assert _write(self._writers[stream], data) == len(data)
            await until(lambda reader=self._readers[stream]: not waiting_bytes(reader))
        pump.end_run()
        pump.close()

    def _run_id(self) -> int:
        runs = [step for step in self._steps[: self._taken[0]] if isinstance(step, int)]
        return runs[-1] if runs else 1


def _late_write(descriptor: int, data: bytes | memoryview) -> int:
    return os.write(descriptor, data)  # the deadly one, once it is armed


def waiting_bytes(descriptor: int) -> int:
    """What is left in a FIFO."""
    return int(struct.unpack("i", fcntl.ioctl(descriptor, termios.FIONREAD, b"\0" * 4))[0])


def _arm(kill: Kill) -> None:
    """Make the system calls of this process count themselves, and the one that is meant deadly."""
    calls = 0

    def deadly(function: Callable[..., Any], half: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == kill.at:
                if kill.halfway:
                    half(function, *arguments, **keywords)
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **keywords)

        return call

    def half_data(function: Callable[..., Any], fd: int, data: bytes, *rest: int) -> None:
        function(fd, data[: len(data) // 2], *rest)

    def few_bytes(
        function: Callable[..., Any], source: int, target: int, _count: int, **options: int
    ) -> None:
        function(source, target, 7, **options)

    def whole(function: Callable[..., Any], *arguments: Any, **keywords: Any) -> None:
        function(*arguments, **keywords)

    os.write, os.pwrite = deadly(os.write, half_data), deadly(os.pwrite, half_data)
    os.splice = deadly(os.splice, few_bytes)
    for name in ("open", "ftruncate", "rename", "unlink"):
        setattr(os, name, deadly(getattr(os, name), whole))
    log_spool._punch_hole = deadly(log_spool._punch_hole, whole)
