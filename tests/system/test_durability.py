"""What is answered has been made durable before: seen from outside, by the system calls."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from tests.support.configs import SLEEP, config

CALLS = "pwrite64,write,fdatasync,fsync,sendto,sendmsg"


def can_trace() -> bool:
    strace = shutil.which("strace")
    return (
        strace is not None
        and subprocess.run([strace, "true"], capture_output=True, check=False).returncode == 0
    )


def test_a_command_is_answered_after_its_one_sync_and_not_before(supervise, tmp_path):
    if not can_trace():
        pytest.skip("strace is not installed, or may not trace")
    trace = tmp_path / "trace"
    live = supervise(config({f"s{number}": SLEEP for number in range(5)}), start=False)
    # -D: the supervisor, not strace, is our child.
    live.start(wrapper=("strace", "-D", "-y", "-s", "60", "-o", str(trace), "-e", f"trace={CALLS}")).ready()
    for command in ("stop", "start", "restart"):
        before = len(trace.read_text().splitlines())
        live.cli(command, "--all")
        lines = trace.read_text(errors="replace").splitlines()[before:]
        answer = find(lines, r"^(sendto|write|sendmsg)\(\d+<(socket|UNIX).*HTTP/1.1 200")[0]
        written = find(lines[:answer], r"^pwrite64\(\d+<.*/state\.db-wal>")
        synced = find(lines, r"^fdatasync\(\d+<.*/state\.db-wal>\) += 0")
        assert len(written) >= 10, "the states of five services were stored"
        assert [line for line in synced if written[-1] < line < answer], "the last of it was made durable"
        assert len(synced) == 1, "once for all of them"


def find(lines: list[str], pattern: str) -> list[int]:
    """Which lines match."""
    return [number for number, line in enumerate(lines) if re.search(pattern, line)]
