"""Services of type notify under a real supervisor: readiness, watchdog, MAINPID, and a take-over."""

from __future__ import annotations

import os
import signal
import sys

from tests.support.configs import SLEEP, config, python
from tests.support.live import Live, alive, crash, state_times
from tests.support.notifier import SAY
from tests.support.waiting import eventually


def notifier(script: str, name: str = "api", **keys):
    return python(SAY + script, type="notify", data_dir=name, restart={"initial_delay": "100ms"}, **keys)


def touch(live: Live, path: str) -> None:
    (live.directory / path).touch()


def test_a_dependent_starts_when_the_service_says_that_it_is_ready_and_status_shows_what_it_says(supervise):
    script = """
say("STATUS=loading")
until("go")
say("READY=1", "STATUS=serving")
until("more")
for i in range(200): say(f"STATUS=job {i}")
time.sleep(1000)
"""
    services = {"api": notifier(script), "web": {**SLEEP, "depends_on": ["api"]}}
    live = supervise(config(services), start=False).start()
    eventually(live.socket.exists, "the supervisor answers")
    eventually(lambda: live.status("api")["status_text"] == "loading", "it says that it loads")
    assert {name: info["state"] for name, info in live.services().items()} == {
        "api": "starting",
        "web": "waiting",
    }
    touch(live, "api/go")
    live.ready()
    assert state_times(live.events("web"), "running") >= state_times(live.events("api"), "running")
    assert any(each["detail"].endswith("is ready: serving") for each in live.events("api"))
    events = len(live.events("api"))
    touch(live, "api/more")
    eventually(lambda: live.status("api")["status_text"] == "job 199", "the latest that it says")
    assert "job 199" in live.cli("status", "api").stdout
    assert len(live.events("api")) == events
    assert live.services()["web"]["status_text"] is None
    assert live.interrupt() == 0
    assert live.leftovers() == []


def test_a_service_that_hangs_is_restarted_by_its_watchdog(supervise):
    script = """
say("READY=1")
period = int(os.environ["WATCHDOG_USEC"]) / 1e6
while not os.path.exists("hang"):
    say("WATCHDOG=1")
    time.sleep(period / 4)
os.unlink("hang")
time.sleep(1000)
"""
    live = supervise(config({"api": notifier(script, watchdog="2s")}))
    pid = live.status("api")["pid"]
    touch(live, "api/hang")
    again = eventually(lambda: (i := live.status("api"))["run_id"] == 2 and i, "it runs again", 60)
    assert again["last_exit"]["reason"] == "watchdog"
    assert not alive(pid)
    assert any(each["detail"] == "no watchdog message for 2s" for each in live.events("api"))


FORKS = """
child = os.fork()
if child:
    say(f"MAINPID={child}")
    os._exit(0)
say("READY=1")
time.sleep(1000)
"""


def test_a_daemon_that_names_its_main_process_is_followed_also_by_the_next_supervisor(supervise):
    live = supervise(config({"api": notifier(FORKS)}))
    before = live.status("api")
    assert [before["state"], before["run_id"]] == ["running", 1]
    members = (live.cgroup_root / "api" / "cgroup.procs").read_text().split()
    assert members == [str(before["pid"])], "its parent has gone"
    crash(live)
    live.start().ready()
    after = live.status("api")
    assert [after[key] for key in ("pid", "run_id", "adopted")] == [before["pid"], 1, True]
    os.kill(after["pid"], signal.SIGKILL)
    again = eventually(lambda: (i := live.status("api"))["run_id"] == 2 and i, "it runs again")
    assert again["last_exit"]["reason"] == "signalled", "though it was nobody's child here"


def test_a_service_is_heard_again_after_a_take_over_and_is_not_ended_for_its_silence(supervise):
    """One that was on its way when its supervisor died may have said already that it is ready."""
    script = """
def keep(*lines):
    try: say(*lines)
    except OSError: pass
if os.environ["BLACKHOLE_SERVICE"] == "ready": say("READY=1")
until("talk")
while True:
    keep("STATUS=still here", "WATCHDOG=1")
    if os.path.exists("hush"): break
    time.sleep(0.1)
time.sleep(1000)
"""
    services = {
        "ready": notifier(script, "ready", watchdog="3s"),
        "starting": notifier(script, "starting", start_timeout="60s"),
    }
    live = supervise(config(services), start=False).start()
    eventually(live.socket.exists, "the supervisor answers")
    live.until("ready", "running")
    touch(live, "ready/talk")
    before = live.services()
    assert before["starting"]["state"] == "starting"
    crash(live)
    live.start().ready()
    after = live.services()
    for name in services:
        assert [after[name][key] for key in ("pid", "run_id")] == [before[name]["pid"], 1]
        assert after[name]["state"] == "running"
    eventually(lambda: live.status("ready")["status_text"] == "still here", "it is heard again")
    touch(live, "ready/hush")
    again = eventually(
        lambda: (i := live.status("ready"))["run_id"] == 2 and i, "the watchdog holds again", 60
    )
    assert again["last_exit"]["reason"] == "watchdog"
    assert live.status("starting")["run_id"] == 1


def test_the_command_of_a_probe_does_not_get_in_the_way_of_the_service(supervise):
    asked = [sys.executable, "-S", "-c", "import os; assert 'NOTIFY_SOCKET' not in os.environ"]
    script = """
say("READY=1")
for i in range(100000):
    say(f"STATUS={i}")
    time.sleep(0.05)
"""
    probe = {"exec": {"command": asked}, "interval": "200ms", "timeout": "20s"}
    live = supervise(config({"api": notifier(script, health_check=probe)}))
    assert live.status("api")["health"] == "healthy"
    first = int(live.status("api")["status_text"])
    eventually(lambda: int(live.status("api")["status_text"]) > first + 20, "it is still heard")
