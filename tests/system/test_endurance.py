"""What must not grow, and what must not get lost."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.support.configs import SLEEP, config, python, shell
from tests.support.footprint import cgroups, children, memory_kib, open_descriptors
from tests.support.waiting import eventually


@pytest.mark.timeout(900)
def test_a_thousand_restarts_leave_nothing_behind(supervise):
    live = supervise(
        config({
            "flapping": shell(
                "exit 1",
                restart={"max_restarts": "max", "initial_delay": "1ms", "max_delay": "1ms"},
            ),
            "calm": SLEEP,
        })
    )  # fmt: skip

    def restarted(times: int) -> bool:
        return live.status("flapping")["restarts"] >= times

    def settle() -> tuple[tuple[int, int, set[str]], int]:
        """Count while nothing is being spawned: pages are shared with a child until it reaches exec."""
        live.cli("stop", "flapping")
        counted = open_descriptors(live), len(children(live)), cgroups(live)
        memory = memory_kib(live)
        live.cli("start", "flapping")
        return counted, memory

    eventually(lambda: restarted(10), "10 restarts", 60)
    # The files that are read for a sample are opened for the first one, and kept.
    eventually(lambda: live.cli("monitor", "calm", "--once", "--json").stdout, "calm has been sampled")
    before, memory_before = settle()
    eventually(lambda: restarted(1010), "1000 more restarts", 600)
    after, memory_after = settle()
    assert after == before
    assert memory_after < memory_before + 3 * 1024
    assert live.status("calm")["run_id"] == 1


@pytest.mark.timeout(900)
def test_a_flood_of_output_loses_nothing_starves_nobody_and_costs_no_memory(supervise):
    lines, width = 300_000, 100
    flood = f"import sys\nfor i in range({lines}): sys.stdout.write('%0{width}d\\n' % i)\n"
    live = supervise(
        config({
            "flood": python(flood, type="oneshot", logs={"max_size": "1GiB", "max_files": 2}, required=False),
            "quiet": shell("while read line; do echo heard $line; done < pipe", data_dir="quiet"),
        }),
        start=False,
    )  # fmt: skip
    (live.directory / "quiet").mkdir()
    os.mkfifo(live.directory / "quiet" / "pipe")
    live.start()
    eventually(lambda: "flood | 0000" in live.text(), "the flood has begun", 120)
    memory_before = memory_kib(live)
    with (live.directory / "quiet" / "pipe").open("w") as pipe:
        pipe.write("me\n")
        pipe.flush()
        eventually(lambda: live.log_lines("quiet"), "the quiet one is heard meanwhile", 60)
        live.until("flood", "completed", 600)
        assert memory_kib(live) < memory_before + 8 * 1024
        info = live.status("flood")
        assert info["logs"] == {"lines_total": lines, "dropped_total": 0}
    with (live.log_dir / "flood.log").open() as log:
        for number, line in enumerate(log):
            assert int(json.loads(line)["message"]) == number
    assert number == lines - 1


def test_a_full_disk_drops_counts_and_recovers(supervise):
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed")
    script = "i=0; while :; do echo line $i $(printf %0900d 0); i=$((i+1)); sleep 0.02; done"
    live = supervise(config({"web": shell(script, logs={"max_size": "1GiB"})}), start=False)
    live.log_dir.mkdir()
    # A mount namespace of its own: the tmpfs exists for this supervisor alone.
    mounted = f'mount -t tmpfs -o size=256k none "{live.log_dir}" && exec "$@"'
    live.start(("unshare", "--mount", "--propagation", "private", "sh", "-c", mounted, "sh")).ready()
    eventually(lambda: live.status("web")["logs"]["dropped_total"] > 20, "lines are dropped", 60)
    info = live.status("web")
    assert info["state"] == "running"
    assert info["logs"]["lines_total"] > info["logs"]["dropped_total"]
    assert any("No space left on device" in event["detail"] for event in live.events("web"))
    visible = Path(f"/proc/{live.pid}/root{live.log_dir}")
    stored = visible / "web.log"
    assert all(json.loads(line)["message"].startswith("line ") for line in stored.read_text().splitlines())
    for path in visible.iterdir():
        os.truncate(path, 0)
    eventually(lambda: stored.read_text().count("\n") > 3, "lines are stored again")
    for line in stored.read_text().splitlines():
        assert json.loads(line)["service"] == "web"
