"""`logs -f`, `events -f` and `monitor` over the ends of supervisors."""

from __future__ import annotations

import json
import subprocess
import time

import pytest

from tests.support.configs import config, python
from tests.support.live import COMMAND, ROOT, crash
from tests.support.waiting import eventually

NUMBERS = """
import itertools, os, sys, time
for number in itertools.count():
    print(number, flush=True)
    print(number, file=sys.stderr, flush=True)
    if os.path.exists("enough"):
        break
    time.sleep(0.002)
print("last", flush=True)
time.sleep(1000)
"""


@pytest.fixture
def follow(tmp_path):
    """Runs followers, whose output goes to files."""
    begun: list[subprocess.Popen[bytes]] = []

    def begin(live, *arguments: str):
        path = tmp_path / f"follower-{len(begun)}"
        with path.open("wb") as output:
            command = [*COMMAND, *arguments, "--runtime-dir", str(live.runtime_dir)]
            begun.append(subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT))
        return begun[-1], path

    yield begin
    for process in begun:
        process.kill()
        process.wait()


def test_followers_go_on_over_upgrades_and_kills_with_every_line_once(supervise, follow):
    numbers = python(NUMBERS, data_dir="numbers", monitor={"interval": "500ms"})
    live = supervise(config({"numbers": numbers}))
    both, lines = follow(live, "logs", "numbers", "--follow", "--since", "1h", "--json")
    errors, error_lines = follow(live, "logs", "numbers", "--follow", "--since", "1h", "--stream", "stderr")
    events, event_lines = follow(live, "events", "--follow", "--tail", "100", "--json")
    samples, sample_lines = follow(live, "monitor", "--json")
    files = (lines, error_lines, event_lines, sample_lines)
    eventually(lambda: all(path.stat().st_size for path in files), "all follow", 60)
    live.cli("upgrade")
    crash(live)
    time.sleep(0.5)  # they find nobody there
    live.start()
    live.ready()
    count = len(sample_lines.read_text().splitlines())
    eventually(lambda: len(sample_lines.read_text().splitlines()) > count + 1, "samples go on", 60)
    (live.directory / "numbers" / "enough").touch()
    eventually(lambda: b'"last"' in lines.read_bytes(), "the last line has come", 60)
    live.cli("stop", "numbers")
    stored = live.events()
    assert live.interrupt() == 0
    for follower in (both, errors, events, samples):
        assert follower.wait(60) == 0
    found = [json.loads(line) for line in lines.read_bytes().splitlines()]
    said = [each["message"] for each in found if each["stream"] == "stdout"]
    assert said == [*map(str, range(len(said) - 1)), "last"]
    assert error_lines.read_text().split() == said[:-1]
    ids = [json.loads(line)["id"] for line in event_lines.read_text().splitlines()]
    assert ids == sorted(set(ids))
    assert {each["id"] for each in stored} <= set(ids)
    times = [json.loads(line)["at_wall"] for line in sample_lines.read_text().splitlines()]
    assert times == sorted(set(times))


def test_a_follower_says_so_where_no_supervisor_comes_again(supervise, follow):
    live = supervise(config({"numbers": python(NUMBERS, data_dir="numbers")}))
    follower, lines = follow(live, "logs", "numbers", "--follow")
    eventually(lambda: lines.stat().st_size, "it follows", 60)
    crash(live)
    assert follower.wait(60) == 1
    assert "the supervisor went away, and no other came within 10 seconds" in lines.read_text()
    live.start()
    live.ready()
