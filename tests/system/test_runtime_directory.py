"""Somebody cleans the runtime directory up under a live supervisor, which makes all of it again."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.support.configs import config, python
from tests.support.live import Live, alive, crash
from tests.support.notifier import SAY
from tests.support.waiting import eventually

COUNTING = (
    "import itertools, os, time\n"
    "for i in itertools.count():\n"
    "    os.write(1, b'%d %d\\n' % (os.getpid(), i))\n"
    "    time.sleep(0.01)\n"
)
TALKING = SAY + (
    "say('READY=1')\n"
    "while True:\n"
    "    time.sleep(0.05)\n"
    "    try: say('STATUS=' + open('status').read())\n"
    "    except OSError: pass\n"
)


@pytest.fixture
def live(supervise) -> Live:
    services = {
        "web": python(
            COUNTING, tcp_port="auto", config={"colour": "green"}, restart={"initial_delay": "10ms"}
        ),
        "talker": python(TALKING, type="notify", data_dir="talker"),
    }
    return supervise(config(services))


def heal(live: Live) -> None:
    """Wait for the control socket, which comes last but one."""
    eventually(live.socket.exists, "the control socket is there again")
    eventually((live.runtime_dir / "endpoints.json").exists, "the endpoints are told again")


def check_lines(live: Live, *pids: int) -> None:
    """Every line that these have written is there, in order, once."""
    found: dict[int, list[int]] = {}
    for line in live.log_lines("web"):
        writer, number = map(int, line["message"].split())
        found.setdefault(writer, []).append(number)
    assert tuple(found) == pids
    for numbers in found.values():
        assert numbers == list(range(len(numbers)))


def lines_total(live: Live) -> int:
    return live.status("web")["logs"]["lines_total"]


def test_a_runtime_directory_that_is_deleted_is_made_again(live):
    before = live.services()
    handed = live.runtime_dir / "config" / "web.json"
    told = (live.runtime_dir / "endpoints.json").read_bytes()
    for _ in range(2):
        shutil.rmtree(live.runtime_dir, ignore_errors=True)  # it may be written to just now
        heal(live)
        after = live.services()
        assert {name: info["pid"] for name, info in after.items()} == {
            name: info["pid"] for name, info in before.items()
        }
    assert json.loads(handed.read_text()) == {"colour": "green"}
    assert handed.stat().st_mode & 0o777 == 0o600
    assert live.runtime_dir.stat().st_mode & 0o777 == 0o711
    assert (live.runtime_dir / "endpoints.json").read_bytes() == told
    (live.directory / "talker" / "status").write_text("well")
    eventually(lambda: live.status("talker")["status_text"] == "well", "it is heard, as it asks for the path")

    events = [event for event in live.events() if event["kind"] == "runtime"]
    assert len(events) == 2 and "made again: the directory, the lock" in events[0]["detail"]
    assert events[0]["detail"] in live.text()
    with (live.runtime_dir / "lock").open() as lock, pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    live.cli("restart", "web")
    newer = live.status("web")["pid"]
    eventually(lambda: live.log_lines("web")[-1]["message"].startswith(f"{newer} "), "its lines are read")
    live.cli("stop", "web")
    check_lines(live, before["web"]["pid"], newer)
    assert live.interrupt() == 0
    assert live.leftovers() == []


def test_a_run_that_begins_before_anybody_has_noticed_writes_to_who_reads(live):
    first = live.status("web")["pid"]
    for _ in range(3):  # the moment differs
        shutil.rmtree(live.runtime_dir, ignore_errors=True)  # it may be written to just now
        os.kill(first, signal.SIGKILL)
        heal(live)
        again = eventually(
            lambda old=first: (pid := live.status("web")["pid"]) not in (None, old) and pid, "it runs again"
        )
        eventually(
            lambda again=again: live.log_lines("web")[-1]["message"].startswith(f"{again} "),
            "its lines are read",
        )
        first = again
    assert live.interrupt() == 0
    assert live.leftovers() == []


def test_a_kill_after_the_directory_was_made_again_loses_no_line(live):
    pid = live.status("web")["pid"]
    for round_number in range(3):
        shutil.rmtree(live.runtime_dir, ignore_errors=True)  # it may be written to just now
        if round_number < 2:
            heal(live)
            count = lines_total(live)
            eventually(lambda count=count: lines_total(live) > count + 20, "some lines more")
        crash(live)
        assert alive(pid)
        live.start().ready()
        assert live.status("web")["pid"] == pid
        assert json.loads((live.runtime_dir / "config" / "web.json").read_text()) == {"colour": "green"}
    (live.directory / "talker" / "status").write_text("well")
    eventually(lambda: live.status("talker")["status_text"] == "well", "it is heard")
    live.cli("stop", "web")
    check_lines(live, pid)
    assert live.interrupt() == 0
    assert live.leftovers() == []


def test_a_lock_that_somebody_else_has_meanwhile_is_told_and_waited_for(live):
    shutil.rmtree(live.runtime_dir, ignore_errors=True)  # it may be written to just now
    live.runtime_dir.mkdir()
    lock: Path = live.runtime_dir / "lock"
    with lock.open("w") as taken:
        fcntl.flock(taken, fcntl.LOCK_EX | fcntl.LOCK_NB)
        taken.write("4711 2026-01-01T00:00:00Z")
        taken.flush()
        eventually(lambda: "a supervisor with pid 4711" in live.text(), "it says who has it")
        assert not live.socket.exists()
    heal(live)
    assert live.status("web")["state"] == "running"
    assert live.interrupt() == 0
    assert live.leftovers() == []
