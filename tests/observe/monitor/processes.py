"""Real processes that do one thing each, ready when they say so."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator

LEAK = "hoard = []\nwhile True: hoard.append(b'x' * 2**19); time.sleep(0.1)"  # 5 MiB a second
DESCRIPTORS = "held = [os.open('/dev/null', os.O_RDONLY) for _ in range({count})]"
THREADS = "[threading.Thread(target=time.sleep, args=(1000,), daemon=True).start() for _ in range({count})]"
SPIN = "while True: pass"
LISTEN = "held = [socket.create_server(('127.0.0.1', 0)) for _ in range({count})]"
WRITE = (
    "file = open({path!r}, 'wb', buffering=0)\n"
    "while True: file.write(b'x' * 2**20); os.fsync(file.fileno()); file.seek(0); time.sleep(0.05)"
)

_FRAME = (
    "import os, socket, sys, threading, time\n{before}print('ready', flush=True)\n{after}\ntime.sleep(1000)\n"
)


@contextlib.contextmanager
def process(before: str = "", after: str = "") -> Iterator[subprocess.Popen[str]]:
    """A Python process that has done `before` and does `after` from now on."""
    script = _FRAME.format(before=before + "\n", after=after)
    made = subprocess.Popen([sys.executable, "-S", "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert made.stdout is not None
        assert made.stdout.readline() == "ready\n"
        yield made
    finally:
        made.kill()
        made.communicate()
