"""What people look at, of a real supervisor: samples, single processes, and the story of a service."""

from __future__ import annotations

import json
import os
import subprocess
from datetime import datetime, timedelta

from blackhole_cg.control.client import ControlClient
from tests.support.configs import SLEEP, config, python, shell
from tests.support.live import COMMAND, ROOT
from tests.support.waiting import eventually

OFTEN = {"monitor": {"interval": "500ms"}}


def test_samples_are_followed_and_kept_and_processes_are_told_apart(supervise):
    live = supervise(
        config({"web": python("import time\nwhile True: time.sleep(0.01)", **OFTEN), "calm": SLEEP})
    )
    environment = {**os.environ, "BLACKHOLE_CG_RUNTIME_DIR": str(live.runtime_dir)}
    with subprocess.Popen(
        [*COMMAND, "monitor", "web", "--json"], stdout=subprocess.PIPE, cwd=ROOT, env=environment
    ) as monitor:
        assert monitor.stdout is not None
        samples = [json.loads(monitor.stdout.readline()) for _ in range(4)]
        monitor.kill()
    assert {sample["service"] for sample in samples} == {"web"}
    times = [sample["at_wall"] for sample in samples]
    assert times == sorted(set(times))
    assert samples[-1]["cpu_percent"] is not None
    assert samples[-1]["run_id"] == live.status("web")["run_id"]

    client = ControlClient(live.runtime_dir)
    found = client.samples(["web"], history=True)["web"]
    # A wall time is worked out from the monotonic one when it is asked for.
    latest = datetime.fromisoformat(found["latest"]["at_wall"])
    assert latest > datetime.fromisoformat(times[-1]) - timedelta(milliseconds=100)
    assert found["history"]["points"]
    (process,) = client.processes("web")
    assert process["pid"] == live.status("web")["pid"]
    assert "time.sleep(0.01)" in process["command"]
    assert process["memory_rss_bytes"] > 0


def test_why_tells_of_a_crash_loop_and_what_comes_next(supervise):
    flaky = shell("exit 3", required=False, restart={"max_restarts": 1, "initial_delay": "10ms"})
    live = supervise(config({"flaky": flaky}), start=False).start()
    eventually(lambda: live.cli("status", check=False).returncode == 0, "it answers", 60)
    live.until("flaky", "failed")
    text = live.cli("why", "flaky").stdout
    assert "its main process exited: exit 3; restart 1 of 1 in" in text
    assert "exit 3; gave up after 1 restarts within" in text
    assert text.endswith("`blackhole-cg reset flaky` and `blackhole-cg start flaky` try again\n")
    runs = json.loads(live.cli("why", "flaky", "--json").stdout)["runs"]
    assert [run["run_id"] for run in runs][-2:] == [1, 2]
    assert "run 2" not in live.cli("why", "flaky", "--run", "1").stdout


def test_why_tells_whom_a_service_waits_for(supervise):
    never = {"exec": {"command": ["/bin/false"]}, "period": "200ms"}
    web = {**SLEEP, "depends_on": {"db": {"condition": "healthy"}}}
    live = supervise(config({"db": {**SLEEP, "readiness_probe": never}, "web": web}), start=False).start()
    eventually(lambda: live.cli("status", check=False).returncode == 0, "it answers", 60)
    line = "waiting for 'db': running, unhealthy (readiness probe: exec false: exit 1), until it is healthy"
    eventually(lambda: line in live.cli("why", "web").stdout, "it says whom it waits for", 60)
