"""Reading what a child writes while the loop goes on. asyncio's own way to run a child may start a thread."""

from __future__ import annotations

import asyncio
import os
import subprocess
from typing import Final

_READ_BYTES: Final = 1 << 20


async def read_output(child: subprocess.Popen[bytes]) -> bytes:
    """All that a child writes to the pipe that is its stdout; its end is waited for, too.

    Whoever stops waiting ends the child. Its exit status may be lost to whoever reaps strangers.
    """
    assert child.stdout is not None
    text = bytearray()
    os.set_blocking(child.stdout.fileno(), False)
    try:
        while chunk := await _next_chunk(child.stdout.fileno()):
            text += chunk
    except asyncio.CancelledError:
        child.kill()
        raise
    finally:
        child.stdout.close()
        child.wait()
    return bytes(text)


async def _next_chunk(descriptor: int) -> bytes:
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(descriptor, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(descriptor)
    return os.read(descriptor, _READ_BYTES)
