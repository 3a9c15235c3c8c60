"""What is answered has been made durable before: seen from outside, by the system calls."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sqlite3
import subprocess

import pytest

from tests.support.configs import SLEEP, config
from tests.support.live import alive, crash
from tests.support.waiting import eventually

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


@pytest.mark.parametrize("survives", [True, False], ids=["it-lives-on", "it-ends-too"])
def test_a_run_that_could_not_be_stored_is_neither_killed_nor_is_its_number_given_again(supervise, survives):
    live = supervise(config({"web": {**SLEEP, "restart": {"initial_delay": "10ms"}}}))
    with sqlite3.connect(live.state_dir / "state.db", isolation_level=None) as nobody_writes:
        nobody_writes.execute("BEGIN IMMEDIATE")
        os.kill(live.status("web")["pid"], signal.SIGKILL)
        eventually(lambda: live.status("web")["run_id"] == 2, "it runs again, which is not stored")
        pid = live.until("web", "running")["pid"]
        crash(live)
        if not survives:
            os.kill(pid, signal.SIGKILL)
            eventually(lambda: not alive(pid), "it has ended")
    nobody_writes.close()
    live.start().ready()
    after = eventually(lambda: (info := live.status("web"))["state"] == "running" and info, "it runs")
    assert (after["run_id"], after["pid"] == pid) == ((2, True) if survives else (3, False))
    assert live.interrupt() == 0
    assert live.leftovers() == []
