"""What the next supervisor finds may be anything: every case is decided on purpose (docs/adoption.md)."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess

import pytest

from tests.support.configs import SLEEP, config, python, shell
from tests.support.live import Live, alive, crash
from tests.support.waiting import eventually

COUNTING = (
    "import itertools, os, time\n"
    "for i in itertools.count():\n"
    "    os.write(1, b'%d %d\\n' % (os.getpid(), i))\n"
    "    time.sleep(0.02)\n"
)


@pytest.fixture
def bystander():
    """A process that has nothing to do with any of this."""
    process = subprocess.Popen(["/bin/sleep", "1000"])
    yield process
    process.kill()
    process.wait()


def change_record(live: Live, **changes: object) -> None:
    """Make what is remembered of web's run say something else."""
    with sqlite3.connect(next(live.state_dir.glob("*.db"))) as connection:
        where = "FROM memory WHERE kind = 'run' AND name = 'web'"
        record = json.loads(connection.execute(f"SELECT text {where}").fetchone()[0])
        text = json.dumps(record | changes)
        connection.execute("UPDATE memory SET text = ? WHERE kind = 'run' AND name = 'web'", (text,))
    connection.close()


def cgroup_of(pid: int) -> str:
    with open(f"/proc/{pid}/cgroup") as file:
        return re.findall("^0::(.*)$", file.read(), re.MULTILINE)[0]


def lines_of(live: Live) -> dict[str, list[int]]:
    """The numbers that web has written, by who wrote them."""
    found: dict[str, list[int]] = {}
    for line in live.log_lines("web"):
        writer, number = line["message"].split()
        found.setdefault(writer, []).append(int(number))
    return found


def check_lines(live: Live) -> None:
    for numbers in lines_of(live).values():
        assert numbers == list(range(len(numbers)))


def test_a_number_that_somebody_else_has_by_now_is_left_alone(supervise, bystander):
    live = supervise(config({"web": SLEEP}))
    pid = live.status("web")["pid"]
    crash(live)
    os.kill(pid, signal.SIGKILL)
    change_record(live, pid=bystander.pid)
    live.start().ready()
    after = eventually(lambda: (i := live.status("web"))["run_id"] == 2 and i, "web runs again")
    assert (after["last_exit"]["reason"], after["adopted"]) == ("unknown", False)
    assert alive(bystander.pid)


def test_a_process_that_was_moved_out_of_its_cgroup_is_brought_back(supervise):
    script = "sleep 1000 & echo $! > child; exec sleep 1000"
    live = supervise(config({"web": shell(script, data_dir="web")}))
    before = live.status("web")
    child = int(eventually((live.directory / "web" / "child").read_text, "the child's pid"))
    crash(live)
    elsewhere = live.cgroup_root / "elsewhere"
    elsewhere.mkdir()
    for pid in (before["pid"], child):
        (elsewhere / "cgroup.procs").write_text(str(pid))
    (live.cgroup_root / "web").rmdir()

    live.start().ready()
    after = live.status("web")
    assert (after["pid"], after["run_id"], after["adopted"]) == (before["pid"], 1, True)
    assert [cgroup_of(pid) for pid in (before["pid"], child)] == [before["cgroup"]] * 2
    assert "was moved back" in live.text()
    assert live.cli("cgroups", "--kill", "elsewhere").stdout == "elsewhere: removed, 0 processes killed\n"
    live.cli("stop", "web")
    assert not alive(before["pid"]) and not alive(child)


def test_services_go_on_where_everything_was_forgotten(supervise):
    live = supervise(config({"web": python(COUNTING), "db": SLEEP, "idle": {**SLEEP, "enabled": False}}))
    before = live.services()
    crash(live)
    shutil.rmtree(live.state_dir)
    live.start().ready()
    after = live.services()
    for name in ("web", "db"):
        assert (after[name]["pid"], after[name]["adopted"]) == (before[name]["pid"], True)
        assert after[name]["outdated"], "nobody knows what it was started with"
        assert abs(after[name]["uptime_seconds"] - before[name]["uptime_seconds"]) < 60
    assert after["idle"]["state"] == "stopped"
    os.kill(after["db"]["pid"], signal.SIGKILL)
    again = eventually(lambda: (i := live.status("db"))["run_id"] == 2 and i, "db runs again")
    assert (again["last_exit"]["signal"], again["outdated"]) == (signal.SIGKILL, False)
    live.cli("stop", "web")
    check_lines(live)
    assert live.interrupt() == 0
    assert live.leftovers() == []


def test_a_run_that_only_its_log_knows_is_taken_over_by_its_number(supervise):
    live = supervise(config({"web": python(COUNTING)}))
    crash(live)
    shutil.copytree(live.state_dir, live.directory / "earlier")
    live.start().ready()
    live.cli("restart", "web")
    before = live.status("web")
    assert before["run_id"] == 2
    eventually(lambda: str(before["pid"]) in lines_of(live), "it has written something")
    crash(live)
    # As if the disk of the state had been full since.
    shutil.rmtree(live.state_dir)
    (live.directory / "earlier").rename(live.state_dir)
    shutil.rmtree(live.runtime_dir)
    live.start().ready()
    after = live.status("web")
    assert (after["pid"], after["run_id"], after["adopted"]) == (before["pid"], 2, True)
    live.cli("restart", "web")
    assert live.status("web")["run_id"] == 3
    assert live.interrupt() == 0


@pytest.mark.parametrize("others", [{"db": SLEEP}, {}], ids=["beside another", "alone"])
def test_where_it_cannot_be_told_who_the_main_process_is_nothing_is_killed_nor_started(supervise, others):
    live = supervise(config({**others, "web": shell("(setsid sleep 1000 &) ; exec sleep 1000")}))
    pid = live.status("web")["pid"]
    procs = live.cgroup_root / "web" / "cgroup.procs"
    before = eventually(lambda: len(found := procs.read_text().split()) == 2 and found, "both are there")
    crash(live)
    shutil.rmtree(live.state_dir)
    live.start()
    eventually(lambda: "cannot be told" in live.text(), "it is told", 90)
    eventually(lambda: "it exists and processes are in it" in live.text(), "the start is refused", 90)
    assert procs.read_text().split() == before and alive(pid)
    assert live.status("web")["state"] == "failed"
    unknown = json.loads(live.cli("cgroups", "--json").stdout)["unknown"]
    assert [(each["name"], each["pids"]) for each in unknown] == [("web", sorted(map(int, before)))]
    live.cli("cgroups", "--kill", "web")
    assert not alive(pid)
    live.cli("start", "web")
    assert live.status("web")["state"] == "running"


def test_no_line_is_lost_where_the_runtime_directory_was_deleted(supervise):
    live = supervise(config({"web": python(COUNTING, restart={"initial_delay": "10ms"})}))
    pid = live.status("web")["pid"]

    def lines_total() -> int:
        return live.status("web")["logs"]["lines_total"]

    for _ in range(2):
        eventually(lambda: lines_total() > 20, "some lines")
        os.kill(pid, signal.SIGSTOP)  # what is being stored at the moment of a kill goes with the directory
        eventually(lambda: lines_total() == lines_total(), "everything is stored")
        crash(live)
        os.kill(pid, signal.SIGCONT)
        shutil.rmtree(live.runtime_dir)
        live.start().ready()
        assert live.status("web")["pid"] == pid
    assert "its FIFOs were deleted" in live.text()
    eventually(lambda: lines_total() > 20, "some lines of the old run")
    live.cli("restart", "web")
    newer = live.status("web")["pid"]
    eventually(lambda: str(newer) in lines_of(live), "lines of the new run, in the same FIFOs")
    crash(live)
    live.start().ready()
    eventually(lambda: lines_total() > 20, "some lines of the new run")
    live.cli("stop", "web")
    assert list(lines_of(live)) == [str(pid), str(newer)]
    check_lines(live)
    assert live.interrupt() == 0
    assert live.leftovers() == []


def test_a_service_that_was_removed_meanwhile_is_asked_to_end_and_its_last_words_are_kept(supervise):
    script = "trap 'echo farewell; exit' TERM; echo ready; while :; do sleep 0.1; done"
    live = supervise(config({"web": SLEEP, "old": shell(script)}))
    eventually(lambda: live.status("old")["logs"]["lines_total"], "it is ready")
    pid = live.status("old")["pid"]
    crash(live)
    live.config.write_text(json.dumps(config({"web": SLEEP})))
    live.start().ready()
    assert not alive(pid)
    assert "old: it is not configured any more" in live.text()
    words = [line["message"] for line in live.log_lines("old") if line["stream"] == "stdout"]
    assert words == ["ready", "farewell"]
    assert not list(live.runtime_dir.rglob("old.*"))
    assert list(live.services()) == ["web"]
    assert live.interrupt() == 0
    assert live.leftovers() == []


def test_what_belongs_to_no_service_is_shown_and_ended_only_on_request(supervise, bystander):
    live = supervise(config({"web": SLEEP}))
    assert live.cli("cgroups").stdout == "every cgroup belongs to a service\n"
    crash(live)
    strange = live.cgroup_root / "strange"
    strange.mkdir()
    (strange / "cgroup.procs").write_text(str(bystander.pid))
    live.start().ready()
    assert f"the cgroup strange, with processes {bystander.pid}, belongs to no service" in live.text()
    assert live.cli("cgroups").stdout.split()[-3:] == ["strange", str(bystander.pid), str(strange)]
    refused = live.cli("cgroups", "--kill", "web", check=False)
    assert refused.returncode == 1 and "use `stop`" in refused.stderr
    assert bystander.poll() is None
    assert live.cli("cgroups", "--kill", "strange").stdout == "strange: removed, 1 process killed\n"
    assert bystander.wait(10) == -signal.SIGKILL
    assert not strange.exists()


def test_the_second_supervisor_says_who_is_there(supervise):
    live = supervise(config({"web": SLEEP}))
    pid = live.status("web")["pid"]
    same = Live(live.directory, config({"web": SLEEP}))
    same.cgroup_root, same.output = live.cgroup_root, live.directory / "second"
    assert same.start().process.wait(60) == 1
    since = r"since \d{4}-\d\d-\d\dT[\d:.]+Z"
    assert re.search(
        f"a supervisor with pid {live.pid} already runs on {same.runtime_dir}, {since}", same.text()
    )

    directory = live.directory / "other"
    directory.mkdir()
    other = Live(directory, config({"web": SLEEP}))
    other.cgroup_root = live.cgroup_root
    assert other.start().process.wait(60) == 1
    assert f"a supervisor with pid {live.pid} already uses the cgroup {live.cgroup_root}" in other.text()
    assert live.status("web")["pid"] == pid and alive(pid)
