#!/usr/bin/env python3
"""Runs a command, then checks that no process it started is left.

    tools/run_reaped.py COMMAND [ARGUMENT...]

Whoever outlives the command is named, killed and turned into exit code 1. Ended by SIGTERM or SIGHUP, this
kills all that it started. Processes that left their parents count too: as a child subreaper this one inherits
every orphan below it, and so it never looks at a process of anybody else. Uses the standard library only.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36  # Source: prctl(2)
GRACE_SECONDS = 2.0


class Stopped(BaseException):
    """This process is to end, by a signal of this number."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def stop(number: int, _frame: object) -> None:
    """Handles a signal, once."""
    signal.signal(number, signal.SIG_IGN)
    raise Stopped(number)


def become_subreaper() -> None:
    """From now on orphaned descendants become children of this process."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "cannot become a child subreaper")


def read_parent(stat_path: Path) -> int:
    """The parent of a process, or 0 when it has gone. The command name may hold spaces and brackets."""
    try:
        return int(stat_path.read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def children() -> list[int]:
    """The live children of this process; dead ones are reaped on the way."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return []
    found = ((int(path.parent.name), read_parent(path)) for path in Path("/proc").glob("[0-9]*/stat"))
    return [pid for pid, parent in found if parent == os.getpid()]


def describe(pid: int) -> str:
    """The process as a line of the report."""
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        arguments = "(gone)"
    return f"pid {pid}: {arguments.strip()[:200]}"


def wait_for_children(seconds: float) -> list[int]:
    """The children that are still there after at most so many seconds."""
    deadline = time.monotonic() + seconds
    while (left := children()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def kill_children() -> None:
    """Kills the children, then theirs, which become ours, until there are none."""
    while left := children():
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def main(command: list[str]) -> int:
    """The command's exit code, or 1 when it left a process behind."""
    if not command:
        print(__doc__, file=sys.stderr)
        return 2
    become_subreaper()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    try:
        code = subprocess.call(command)
    except Stopped as stopped:
        kill_children()
        return 128 + stopped.number
    left = wait_for_children(GRACE_SECONDS)
    if left:
        print(
            f"left behind by {command[0]}, and killed now:", *map(describe, left), sep="\n  ", file=sys.stderr
        )
        kill_children()
    return code if code > 0 or not left else 1


if __name__ == "__main__":
    exit_code = main(sys.argv[1:])
    sys.exit(exit_code if exit_code >= 0 else 128 - exit_code)
