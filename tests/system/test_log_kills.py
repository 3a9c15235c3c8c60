"""Log lines over many kills of the supervisor, and while there is none."""

from __future__ import annotations

import fcntl
import os
import random
import re
import struct
import termios
from pathlib import Path

import pytest

from blackhole_cg.core.spec import LogPolicy
from blackhole_cg.observe.log_file import LogFile
from tests.support.configs import config, python
from tests.support.live import Live, alive, crash
from tests.support.waiting import eventually

KILLS = 20
LINES = 1_000_000
PART = LINES // KILLS
LINE_BYTES = 95  # at least so many in the log file
WRITER = f"""
import os, time
for part in range({KILLS}):
    while not os.path.exists(f"go-{{part}}"): time.sleep(0.002)
    text = b"".join(b"%d\\n" % number for number in range(part * {PART}, (part + 1) * {PART}))
    begin = 0
    while begin < len(text): begin += os.write(1, text[begin : begin + 3001])
open("done", "w").close()
time.sleep(1000)
"""


def log_files(live: Live) -> list[Path]:
    """Oldest first."""
    return LogFile(live.log_dir / "web.log", LogPolicy(max_files=100)).younger_than(None)


def logged_bytes(live: Live) -> int:
    return sum(path.stat().st_size for path in log_files(live))


@pytest.mark.timeout(400)
def test_a_million_lines_over_twenty_kills_are_all_there_in_order_and_once(supervise) -> None:
    logs = {"max_size": "10M", "max_files": 100}
    live = supervise(config({"web": python(WRITER, data_dir="web", logs=logs)}))
    dice = random.Random(20)
    for part in range(KILLS):
        before = logged_bytes(live)
        if part % 4 == 3:  # written while nobody is there
            crash(live)
            (live.directory / "web" / f"go-{part}").touch()
        else:
            (live.directory / "web" / f"go-{part}").touch()
            enough = before + dice.uniform(0.0, 0.9) * PART * LINE_BYTES
            eventually(lambda enough=enough: logged_bytes(live) >= enough, f"a piece of part {part}", 60)
            crash(live)
        live.start()
    live.ready()
    eventually((live.directory / "web" / "done").exists, "the last line is written", 60)
    live.cli("stop", "web")
    numbers: list[int] = []
    files = log_files(live)
    for path in files:
        numbers += map(int, re.findall(rb'"message": ?"(\d+)"}\n', path.read_bytes()))
    assert len(files) > 5, "it was rotated in between"
    assert numbers == list(range(LINES))


def test_a_writer_without_a_supervisor_waits_once_the_fifo_is_full_and_goes_on_later(supervise) -> None:
    script = (
        "import os, time\n"
        "while not os.path.exists('go'): time.sleep(0.01)\n"
        "for number in range(30000): os.write(1, b'%099d\\n' % number)\n"
        "time.sleep(1000)\n"
    )
    live = supervise(config({"web": python(script, data_dir="web")}))
    pid = live.status("web")["pid"]
    crash(live)
    (live.directory / "web" / "go").touch()
    fifo = os.open(live.runtime_dir / "fifo" / "web.stdout", os.O_RDWR | os.O_NONBLOCK)
    try:
        largest = int(Path("/proc/sys/fs/pipe-max-size").read_text())
        assert fcntl.fcntl(fifo, fcntl.F_GETPIPE_SZ) == largest

        def waiting_bytes() -> int:
            return int(struct.unpack("i", fcntl.ioctl(fifo, termios.FIONREAD, b"\0" * 4))[0])

        # A line never straddles two pages, so that a full pipe holds somewhat less than its size.
        eventually(lambda: waiting_bytes() >= largest * 0.95, "the FIFO is full", 60)
        assert alive(pid)
    finally:
        os.close(fifo)
    live.start().ready()
    eventually(lambda: live.status("web")["logs"]["lines_total"] >= 30000, "the rest", 60)
    assert [int(line["message"]) for line in live.log_lines("web")] == list(range(30000))
    assert live.status("web")["pid"] == pid
