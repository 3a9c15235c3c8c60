"""The supervisor dies; its services do not notice, and the next one carries on."""

from __future__ import annotations

import json
import os
import signal

import pytest

from tests.support.configs import SLEEP, config, python, shell
from tests.support.live import alive, crash
from tests.support.waiting import eventually


def test_a_killed_supervisor_leaves_its_services_running_and_the_next_takes_over(supervise):
    live = supervise(
        config({
            "web": {**SLEEP, "depends_on": {"migrate": {"condition": "completed"}}},
            "db": SLEEP,
            "idle": SLEEP,
            "migrate": shell("exit 0", type="oneshot"),
        })
    )  # fmt: skip
    live.cli("stop", "idle")
    before = live.services()
    crash(live)
    assert all(alive(before[name]["pid"]) for name in ("web", "db"))

    live.start().ready()
    after = live.services()
    for name in ("web", "db"):
        for key in ("pid", "run_id", "cgroup", "restarts", "started_wall", "limits"):
            assert after[name][key] == before[name][key]
        assert (after[name]["adopted"], after[name]["outdated"]) == (True, False)
        assert after[name]["uptime_seconds"] >= before[name]["uptime_seconds"]
    assert (after["idle"]["state"], after["idle"]["desired"]) == ("stopped", "down")
    assert (after["migrate"]["state"], after["migrate"]["run_id"]) == ("completed", 1)

    os.kill(after["web"]["pid"], signal.SIGKILL)
    again = eventually(lambda: (i := live.status("web"))["run_id"] == 2 and i, "web runs again")
    assert (again["last_exit"]["reason"], again["last_exit"]["signal"]) == ("signalled", signal.SIGKILL)
    live.cli("stop", "db", "--force")
    assert not alive(before["db"]["pid"])
    assert live.interrupt() == 0
    assert live.leftovers() == []


@pytest.mark.every_kernel
def test_how_a_service_ends_that_was_taken_over_is_known_and_its_policy_goes_by_it(supervise):
    endings = {
        "done": ("sys.exit(0)", {"code": 0, "signal": None, "reason": "exited"}),
        "seven": ("sys.exit(7)", {"code": 7, "signal": None, "reason": "exited"}),
        "segv": ("os.kill(os.getpid(), signal.SIGSEGV)", {"code": None, "signal": 11, "reason": "signalled"}),
    }
    script = (
        "import os, signal, sys, time\n"
        "if os.path.exists('again'): time.sleep(1000)\n"
        "open('again', 'w').close()\n"
        "while not os.path.exists('go'): time.sleep(0.02)\n"
    )
    restart = {"policy": "on_failure", "initial_delay": "100ms"}
    live = supervise(
        config(
            {name: python(script + end, data_dir=name, restart=restart) for name, (end, _) in endings.items()}
        )
    )
    for name in endings:
        eventually(lambda name=name: (live.directory / name / "again").exists(), f"{name} waits")
    crash(live)
    live.start().ready()
    assert all(info["adopted"] for info in live.services().values())
    for name in endings:
        (live.directory / name / "go").touch()
    assert live.until("done", "completed")["run_id"] == 1
    for name in ("seven", "segv"):
        eventually(lambda name=name: live.status(name)["run_id"] == 2, f"{name} runs again")
    for name, (_, expected) in endings.items():
        last_exit = live.status(name)["last_exit"]
        assert {key: last_exit[key] for key in expected} == expected
    assert live.interrupt() == 0
    assert live.leftovers() == []


@pytest.mark.needs_kernel
def test_a_service_that_was_taken_over_and_runs_out_of_memory_is_told_so(supervise):
    script = (
        "import os, time\n"
        "while not os.path.exists('go'): time.sleep(0.02)\n"
        "hoard = [bytearray(b'x' * (1 << 20)) for _ in range(500)]\n"
    )
    # Without memory_high: at that the kernel slows it down, for minutes on a busy machine.
    resources = {"memory_mb": 48, "memory_high": "max"}
    eater = python(script, data_dir="eater", resources=resources, restart={"policy": "never"})
    live = supervise(config({"eater": eater}))
    crash(live)
    live.start().ready()
    (live.directory / "eater" / "go").touch()
    last_exit = live.until("eater", "failed", 120)["last_exit"]
    assert (last_exit["reason"], last_exit["signal"]) == ("oom", signal.SIGKILL)


def test_no_line_is_lost_or_doubled_while_nobody_supervises(supervise):
    script = (
        "import itertools, os, time\n"
        "for i in itertools.count():\n"
        "    print(i)\n"
        "    if i % 200 == 0:\n"
        "        if os.path.exists('enough'): break\n"
        "        time.sleep(0.02)\n"
        "print('the end')\n"
        "time.sleep(1000)\n"
    )
    live = supervise(config({"web": python(script, data_dir="web")}))
    for _ in range(3):
        eventually(lambda: live.status("web")["logs"]["lines_total"] > 100, "some lines")
        crash(live)
        live.start().ready()
    (live.directory / "web" / "enough").touch()
    eventually(lambda: live.cli("logs", "web", "--tail", "1").stdout == "the end\n", "the last line")
    *lines, _ = live.cli("logs", "web", "--json").stdout.splitlines()
    assert [int(json.loads(line)["message"]) for line in lines] == list(range(len(lines)))


def test_a_line_that_is_half_written_when_the_supervisor_dies_comes_out_whole(supervise):
    script = (
        "import os, time\n"
        "os.write(1, b'begin\\nfirst half,')\n"
        "while not os.path.exists('go'): time.sleep(0.02)\n"
        "os.write(1, b' second half\\n')\n"
        "time.sleep(1000)\n"
    )
    live = supervise(config({"web": python(script, data_dir="web")}))
    eventually(lambda: live.status("web")["logs"]["lines_total"] == 1, "the first line")
    crash(live)
    (live.directory / "web" / "go").touch()
    live.start().ready()
    eventually(lambda: len(live.log_lines("web")) == 2, "the second line")
    found = [(line["run_id"], line["message"]) for line in live.log_lines("web")]
    assert found == [(1, "begin"), (1, "first half, second half")]
    assert live.interrupt() == 0
    assert live.leftovers() == []


def test_a_service_that_ended_while_nobody_watched_is_restarted_by_its_policy(supervise):
    live = supervise(
        config({
            "gone": {**SLEEP, "restart": {"initial_delay": "100ms"}},
            "never": {**SLEEP, "restart": {"policy": "never"}},
            "parent": shell("sleep 1000 & echo $! > child; wait", data_dir="parent",
                            restart={"initial_delay": "100ms"}),
        })
    )  # fmt: skip
    child_file = live.directory / "parent" / "child"
    child = int(eventually(lambda: child_file.exists() and child_file.read_text(), "the child's pid"))
    services = live.services()
    crash(live)
    for name in services:
        os.kill(services[name]["pid"], signal.SIGKILL)
    eventually(lambda: not alive(services["gone"]["pid"]), "gone is gone")
    live.start().ready()
    eventually(lambda: live.status("gone")["run_id"] == 2, "gone runs again")
    live.until("gone", "running")
    assert live.status("never")["state"] == "failed"
    assert live.until("parent", "running")["run_id"] == 2
    assert not alive(child), "what it left behind was killed"


def test_a_changed_configuration_marks_a_run_outdated_and_does_not_restart_it(supervise):
    live = supervise(config({"web": SLEEP, "removed": SLEEP}))
    before = live.services()
    crash(live)
    text = json.dumps(config({"web": {**SLEEP, "environment": {"NEW": "1"}}}))
    live.config.write_text(text)
    live.start().ready()
    web = live.status("web")
    assert (web["pid"], web["outdated"]) == (before["web"]["pid"], True)
    assert not alive(before["removed"]["pid"])
    live.cli("restart", "web")
    assert live.status("web")["outdated"] is False
