"""Real FIFOs and files for the tests of observe."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from blackhole_cg.core.loglines import LineEncoder, Lines, restore_bytes
from blackhole_cg.core.spec import LogPolicy
from blackhole_cg.core.words import Stream
from blackhole_cg.observe.log_file import LogFile
from blackhole_cg.observe.log_pump import LogHooks, LogPump

TIME = "2025-11-21T04:02:00.000001Z"
PATIENCE_SECONDS = 60.0


def make_fifos(directory: Path, name: str) -> tuple[dict[Stream, Path], dict[Stream, int]]:
    """Both FIFOs of a service, and reading descriptors as the host opens them."""
    paths = {stream: directory / f"{name}.{stream}" for stream in Stream}
    for path in paths.values():
        os.mkfifo(path, 0o600)
    return paths, {
        stream: os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC) for stream, path in paths.items()
    }


@dataclass
class Rig:
    """One pumped service and the writing ends of its FIFOs."""

    pump: LogPump
    log: LogFile
    paths: dict[Stream, Path]
    writers: dict[Stream, int]

    def write(self, data: bytes, stream: Stream = Stream.STDOUT) -> None:
        assert os.write(self.writers[stream], data) == len(data)


@contextlib.contextmanager
def pumped(
    directory: Path, name: str = "web", *, log: LogFile | None = None, hooks: LogHooks | None = None
) -> Iterator[Rig]:
    """A pump that is open and in run 1; needs a running loop."""
    paths, descriptors = make_fifos(directory, name)
    log = log or LogFile(directory / f"{name}.log", LogPolicy(max_bytes=1 << 30, max_files=2))
    pump = LogPump(name, descriptors, log, hooks=hooks)
    pump.open()
    pump.begin_run(1)
    writers = {stream: os.open(path, os.O_RDWR) for stream, path in paths.items()}
    try:
        yield Rig(pump, log, paths, writers)
    finally:
        pump.close()
        for descriptor in writers.values():
            os.close(descriptor)


def encode(*messages: str, stream: Stream = Stream.STDOUT, time: str = TIME) -> bytes:
    """Log lines as the pump writes them."""
    encoder = LineEncoder("web", stream, 1)
    return b"".join(encoder.encode(Lines(message.encode()), time) for message in messages)


def rows(*paths: Path) -> list[dict[str, Any]]:
    """The log lines of these files; fails on anything else in them."""
    return [json.loads(line) for path in paths for line in path.read_bytes().splitlines()]


def messages(*paths: Path) -> list[bytes]:
    return [restore_bytes(row["message"]) for row in rows(*paths)]


async def until(condition: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> None:
    """Let the loop run until something holds that cannot be awaited."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def collect(blocks: AsyncIterator[bytes], until_count: int | None = None) -> list[bytes]:
    """The messages of a reader's lines, all or at least so many."""
    found: list[bytes] = []
    async with contextlib.aclosing(blocks) as closing:  # type: ignore[type-var]
        async for block in closing:
            assert block.endswith(b"\n")
            found += [restore_bytes(json.loads(line)["message"]) for line in block.splitlines()]
            if until_count is not None and len(found) >= until_count:
                break
    return found


async def run_python(code: str, *args: object) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(sys.executable, "-c", code, *map(str, args))


@dataclass
class Disk:
    """A `write` for LogFile with so many bytes free; at the end of them a write is short, then refused."""

    free_bytes: int | None = None  # None: plenty
    error: int = errno.ENOSPC
    calls: list[int] = field(default_factory=list)

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        if self.free_bytes is None:
            written = os.write(descriptor, data)
        elif self.free_bytes == 0:
            raise OSError(self.error, os.strerror(self.error))
        else:
            written = os.write(descriptor, data[: self.free_bytes])
            self.free_bytes -= written
        self.calls.append(written)
        return written
