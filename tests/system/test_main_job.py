"""The main job, as a user sees it: start in order, look, kill, stop, nothing left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

from tests.support.configs import SLEEP, config, python, shell
from tests.support.live import ROOT, alive, state_times
from tests.support.waiting import eventually


def test_services_start_in_order_each_on_its_own_and_stop_in_reverse(supervise):
    live = supervise(
        config({
            "web": {**SLEEP, "depends_on": ["db"], "resources": {"open_files": 321, "processes": 77}},
            "db": {**SLEEP, "depends_on": {"migrate": {"condition": "completed"}}},
            "migrate": shell("echo migrated; exit 0", type="oneshot"),
            "free": SLEEP,
        })
    )  # fmt: skip
    services = live.services()
    assert {name: info["state"] for name, info in services.items()} == {
        "migrate": "completed",
        "free": "running",
        "db": "running",
        "web": "running",
    }
    started = {name: state_times(live.events(name), "running")[0] for name in services}
    completed = state_times(live.events("migrate"), "completed")[0]
    assert completed <= started["db"] <= started["web"]

    web, db = services["web"], services["db"]
    for info in (web, db):
        pid = info["pid"]
        assert os.getsid(pid) == os.getpgid(pid) == pid
        assert Path(f"/proc/{pid}/cgroup").read_text().splitlines()[-1] == f"0::{info['cgroup']}"
    assert web["cgroup"].endswith("/web")
    assert web["cgroup"] != db["cgroup"]
    limits = Path(f"/proc/{web['pid']}/limits").read_text()
    assert [line.split()[3:5] for line in limits.splitlines() if "open files" in line] == [["321", "321"]]
    assert [line.split()[2:4] for line in limits.splitlines() if "Max processes" in line] == [["77", "77"]]
    assert web["limits"]["nofile"] == {
        "requested": 321,
        "effective": 321,
        "enforced": True,
        "reason": None,
    }

    assert live.interrupt() == 0
    stops = [(event["id"], event["service"]) for event in live_events(live) if event["to"] == "stopped"]
    order = [name for _, name in sorted(stops)]
    assert order.index("web") < order.index("db")
    assert not any(alive(info["pid"]) for info in (web, db))
    assert live.leftovers() == []


def live_events(live) -> list[dict]:
    """Events read from the database of a supervisor that has ended."""
    import sqlite3

    with sqlite3.connect(live.state_dir / "state.db") as connection:
        rows = connection.execute("SELECT id, service, to_state, reason FROM events ORDER BY id").fetchall()
    return [dict(zip(("id", "service", "to", "reason"), row, strict=True)) for row in rows]


def test_a_killed_service_restarts_with_backoff_until_it_is_given_up_and_reset_brings_it_back(supervise):
    live = supervise(
        config({
            "web": {
                **SLEEP,
                "restart": {"max_restarts": 3, "initial_delay": "300ms", "jitter": 0.1},
            },
            "calm": SLEEP,
        })
    )  # fmt: skip
    calm = live.status("calm")["pid"]
    for run_id in range(1, 5):

        def running(run_id: int = run_id) -> int | None:
            info = live.status("web")
            return info["pid"] if (info["state"], info["run_id"]) == ("running", run_id) else None

        os.kill(eventually(running, f"run {run_id}"), signal.SIGKILL)
    failed = live.until("web", "failed")
    assert failed["restarts"] == 3
    assert failed["last_exit"]["reason"] == "signalled"
    assert failed["last_exit"]["signal"] == signal.SIGKILL
    assert "gave up after 3 restarts" in failed["last_error"]

    events = live.events("web")
    path = [event["to"] for event in events if event["kind"] == "state"]
    one_life = ["waiting", "starting", "running"]
    assert path == [*([*one_life, "restarting"]) * 3, *one_life, "failed"]
    waits = zip(state_times(events, "restarting"), state_times(events, "waiting")[1:], strict=True)
    for expected, (before, after) in zip([0.3, 0.6, 1.2], waits, strict=True):
        assert expected * 0.9 <= after - before <= expected * 1.1 + 0.3
    assert all(event["reason"] == "signalled" for event in events if event["to"] == "restarting")

    live.cli("reset", "web")
    assert (live.status("web")["state"], live.status("web")["restarts"]) == ("stopped", 0)
    live.cli("start", "web")
    assert live.status("web")["state"] == "running"
    assert live.status("calm")["pid"] == calm


def test_a_stubborn_service_a_daemon_and_grandchildren_are_all_gone_after_the_stop(supervise):
    daemonize = (
        "import os, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork() == 0:\n"
        "        open('daemon.pid', 'w').write(str(os.getpid()))\n"
        "        time.sleep(1000)\n"
        "    os._exit(0)\n"
        "time.sleep(1000)\n"
    )
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf'); time.sleep(1000)"
    )
    live = supervise(
        config({
            "stubborn": python(stubborn, stop={"timeout": "500ms"}),
            "daemon": python(daemonize, data_dir="daemon", stop={"timeout": "1s"}),
            "parent": shell("sleep 1000 & echo $! > child.pid; wait", data_dir="parent"),
        })
    )  # fmt: skip
    daemon = read_pid(live.directory / "daemon" / "daemon.pid")
    child = read_pid(live.directory / "parent" / "child.pid")
    eventually(lambda: live.log_lines("stubborn"), "stubborn ignores SIGTERM")
    stubborn_pid = live.status("stubborn")["pid"]
    for name in ("stubborn", "daemon", "parent"):
        live.cli("stop", name)
        assert live.status(name)["state"] == "stopped"
    assert live.status("stubborn")["last_exit"]["signal"] == signal.SIGKILL
    assert not any(map(alive, (daemon, child, stubborn_pid)))
    assert live.interrupt() == 0
    assert live.leftovers() == []


def test_a_stop_says_whom_it_would_harm(supervise) -> None:
    live = supervise(
        config({"db": SLEEP, "web": {**SLEEP, "depends_on": ["db"]}, "api": {**SLEEP, "depends_on": ["web"]}})
    )
    refused = live.cli("stop", "db", check=False)
    assert refused.returncode == 1
    assert "cannot stop 'db': 'web' and 'api' depend on it" in refused.stderr
    assert "--cascade stops them too, --force leaves them running" in refused.stderr
    assert live.status("db")["state"] == "running"
    live.cli("stop", "web", "--force")
    assert [live.status(name)["state"] for name in ("db", "web", "api")] == ["running", "stopped", "running"]
    assert live.cli("stop", "db", "--cascade").stdout.splitlines() == ["db: stopped", "api: stopped"]
    assert live.status("api")["state"] == "stopped"


def read_pid(path: Path) -> int:
    return int(eventually(lambda: path.exists() and path.read_text(), f"{path} is written"))


def test_what_a_crashed_main_process_left_behind_is_gone_before_the_next_run(supervise):
    live = supervise(
        config({
            "web": shell(
                "sleep 1000 & echo $! >> children; while :; do sleep 1; done",
                restart={"initial_delay": "100ms"},
            )
        })
    )  # fmt: skip
    children = live.directory / "data" / "children"
    first = read_pid(children)
    os.kill(live.status("web")["pid"], signal.SIGKILL)
    eventually(lambda: live.status("web")["run_id"] == 2, "a second run")
    assert not alive(first)


def test_a_start_that_fails_rolls_back_and_the_run_ends_with_the_reason(supervise):
    live = supervise(
        config({
            "first": SLEEP,
            "second": {**SLEEP, "depends_on": ["first"]},
            "broken": {"command": ["./script"], "data_dir": "data", "depends_on": ["second"]},
        }),
        start=False,
    )  # fmt: skip
    script = live.directory / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    live.start()
    assert live.process.wait(30) == 1
    text = live.text()
    assert f"cannot start 'broken': execute {script}: No such file or directory" in text
    assert "rolled back: second, first" in text
    assert "Traceback" not in text
    stopped = [event["service"] for event in live_events(live) if event["to"] == "stopped"]
    assert stopped == ["second", "first"]
    assert live.leftovers() == []


def test_the_second_interrupt_kills_at_once(supervise):
    deaf = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf'); time.sleep(1000)"
    )
    live = supervise(config({"deaf": python(deaf, stop={"timeout": "600s"})}, shutdown_timeout="600s"))
    eventually(lambda: live.log_lines("deaf"), "it ignores SIGTERM")
    pid = live.status("deaf")["pid"]
    live.process.send_signal(signal.SIGINT)
    eventually(
        lambda: live.cli("status", check=False).returncode != 0 or "stopping" in live.text(), "stopping"
    )
    live.process.send_signal(signal.SIGINT)
    assert live.process.wait(60) == 0, "long before the ten minutes that it may take in order"
    assert not alive(pid)
    assert live.leftovers() == []


def test_a_shutdown_that_takes_too_long_kills_what_is_left(supervise):
    deaf = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf'); time.sleep(1000)"
    )
    live = supervise(
        config({"deaf": python(deaf, stop={"timeout": "60s"}), "after": {**SLEEP}}, shutdown_timeout="1s")
    )
    eventually(lambda: live.log_lines("deaf"), "it ignores SIGTERM")
    assert live.interrupt(signal.SIGTERM) == 0
    assert live.leftovers() == []


def test_a_second_supervisor_says_who_holds_the_lock(supervise):
    live = supervise(config({"web": SLEEP}))
    again = subprocess.run(
        live.process.args, capture_output=True, text=True, timeout=30, cwd=ROOT, env=os.environ, check=False
    )
    assert again.returncode == 1
    assert f"a supervisor with pid {live.pid} already runs" in again.stderr
    assert live.status("web")["state"] == "running"


def test_logs_are_read_back_followed_and_filtered(supervise):
    script = "i=0; while [ $i -lt 5 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done; exec sleep 1000"
    live = supervise(config({"web": shell(script)}))
    eventually(lambda: len(live.log_lines("web")) == 10, "ten lines")
    assert live.cli("logs", "web", "--stream", "stdout").stdout.splitlines() == [f"out {i}" for i in range(5)]
    last = live.cli("logs", "web", "--stream", "stderr", "--tail", "2").stdout.splitlines()
    assert last == ["err 3", "err 4"]
    line = json.loads(live.cli("logs", "web", "--tail", "1", "--json").stdout)
    assert set(line) == {"time", "service", "stream", "run_id", "message"}
    assert live.status("web")["logs"] == {"lines_total": 10, "dropped_total": 0}
    assert "web | out 0" in live.text()


def test_clients_without_a_supervisor_exit_with_3(supervise, tmp_path):
    live = supervise(config({"web": SLEEP}))
    assert live.interrupt() == 0
    done = live.cli("status", check=False)
    assert done.returncode == 3
    assert "no supervisor answers" in done.stderr
