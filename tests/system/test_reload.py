"""`reload` and SIGHUP on a real supervisor."""

from __future__ import annotations

import os
import pty
import signal
import sys

import yaml

from blackhole_cg.kernel.scope import started_ticks
from tests.support.configs import SLEEP, config, shell
from tests.support.live import alive, crash
from tests.support.waiting import eventually

STUBBORN = shell("trap '' TERM; while :; do sleep 1; done")


def write(live, services):
    live.config.write_text(yaml.safe_dump(config(services)))


def identities(live):
    """Pid and start time of each service: a number of a process may be used again."""
    pids = {name: info["pid"] for name, info in live.services().items()}
    return {name: (pid, started_ticks(pid)) for name, pid in pids.items()}


def test_a_reload_of_many_touches_exactly_those_that_changed(supervise):
    services = {f"s{number:03}": dict(SLEEP) for number in range(200)}
    settings = config(services)
    settings["runtime"]["orchestrator"]["max_processes"] = 300
    live = supervise(settings)
    before = identities(live)
    changed = [f"s{number:03}" for number in (3, 30, 55, 77, 199)]
    for name in changed:
        services[name]["environment"] = {"VERSION": "2"}
    live.config.write_text(yaml.safe_dump(settings))
    done = live.cli("reload")
    assert [line for line in done.stdout.splitlines() if "changed" in line and "unchanged" not in line] == [
        f"{name}: changed, and restarted where it is wanted up: environment.VERSION" for name in changed
    ]
    assert done.stdout.endswith("195 services unchanged\n")
    after = identities(live)
    assert sorted(name for name in before if before[name] != after[name]) == changed
    environment = open(f"/proc/{after['s030'][0]}/environ").read()  # noqa: SIM115
    assert "VERSION=2" in environment


def test_services_come_and_go_and_a_wrong_file_is_refused_whole(supervise):
    live = supervise(config({"web": SLEEP, "gone": SLEEP}))
    web = live.status("web")["pid"]
    write(live, {"web": SLEEP, "fresh": {**SLEEP, "depends_on": ["web"]}})
    assert live.cli("reload").stdout.splitlines() == ["gone: removed", "fresh: added", "1 service unchanged"]
    assert {name: info["state"] for name, info in live.services().items()} == {
        "web": "running",
        "fresh": "running",
    }
    assert not (live.runtime_dir / "fifo" / "gone.stdout").exists()
    assert (live.log_dir / "gone.log").exists()
    write(live, {"web": {**SLEEP, "depends_on": ["nobody"], "comand": "x"}, "other": SLEEP})
    done = live.cli("reload", check=False)
    assert done.returncode == 78
    assert f"{live.config}:" in done.stderr
    assert "services.web.comand" in done.stderr
    assert "the configuration is invalid: 2 errors" in done.stderr
    assert sorted(live.services()) == ["fresh", "web"]
    assert live.status("web")["pid"] == web


def test_sighup_reloads(supervise):
    live = supervise(config({"web": SLEEP}))
    write(live, {"web": SLEEP, "fresh": SLEEP})
    os.kill(live.pid, signal.SIGHUP)
    eventually(lambda: live.services().get("fresh", {}).get("state") == "running", "fresh runs", 30)
    live.config.write_text("services: [")
    os.kill(live.pid, signal.SIGHUP)
    eventually(lambda: "reload: " in live.text(), "the error is in the log", 30)
    assert live.status("web")["state"] == "running"


def test_a_terminal_that_goes_away_stops_everything_in_order(supervise):
    live = supervise(config({"web": SLEEP}), start=False)
    manager, terminal = pty.openpty()
    # A session leader without a terminal gets the first one it opens.
    take_terminal = (
        "import os, sys\nos.setsid()\nos.open(sys.argv[1], os.O_RDWR)\nos.execv(sys.argv[2], sys.argv[2:])\n"
    )
    live.start((sys.executable, "-c", take_terminal, os.ttyname(terminal)))
    os.close(terminal)
    live.ready()
    os.close(manager)
    assert live.process is not None
    assert live.process.wait(30) == 0
    assert "SIGHUP: stopping every service" in live.text()
    assert live.leftovers() == []


def test_plan_shows_apply_does_and_rollback_returns(supervise):
    live = supervise(config({"db": SLEEP, "web": {**SLEEP, "depends_on": ["db"]}}))
    other = live.config.with_name("other.yaml")
    secret = {"environment": {"TOKEN": "hunter2"}}
    other.write_text(yaml.safe_dump(config({"db": {**SLEEP, **secret}, "fresh": SLEEP, "web": SLEEP})))
    before = live.services()
    shown = live.cli("plan", "--config", str(other)).stdout
    assert shown.splitlines() == [
        "db: to be restarted, if it is wanted up",
        "  environment.TOKEN: (not set) -> ***",
        "fresh: to be added",
        "web: to be changed without a restart",
        "  depends_on.db: started -> (not set)",
        "0 services unchanged",
    ]
    assert {name: info["pid"] for name, info in live.services().items()} == {
        name: info["pid"] for name, info in before.items()
    }
    live.cli("apply", "--config", str(other))
    after = live.services()
    assert (sorted(after), after["web"]["pid"]) == (["db", "fresh", "web"], before["web"]["pid"])
    assert after["db"]["pid"] != before["db"]["pid"]
    other.unlink()
    assert "fresh: removed" in live.cli("rollback").stdout
    assert sorted(live.services()) == ["db", "web"]
    live.cli("rollback", "2")
    assert sorted(live.services()) == ["db", "fresh", "web"]
    hows = [line.split()[3] for line in live.cli("config", "history").stdout.splitlines()]
    assert hows == ["run", "apply", "rollback", "rollback"]
    live.cli("reload")
    assert sorted(live.services()) == ["db", "web"]


def test_a_wrong_file_is_refused_by_plan_and_apply(supervise, tmp_path):
    live = supervise(config({"web": SLEEP}))
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("services: {web: {comand: x}}")
    for command in ("plan", "apply"):
        done = live.cli(command, "--config", str(wrong), check=False)
        assert done.returncode == 78
        assert "services.web.comand" in done.stderr
    done = live.cli("rollback", check=False)
    assert (done.returncode, "no configuration before" in done.stderr) == (1, True)
    assert live.status("web")["state"] == "running"


def test_files_that_change_are_reloaded_and_a_broken_one_is_told_once(supervise):
    settings = config({"web": SLEEP})
    settings["runtime"]["orchestrator"]["watch"] = True
    live = supervise(settings)
    web = live.status("web")["pid"]
    live.config.write_text("services: [")
    eventually(lambda: "reload: " in live.text(), "the error is in the log", 30)
    new = live.config.with_suffix(".new")
    settings["services"]["fresh"] = SLEEP
    new.write_text(yaml.safe_dump(settings))
    new.rename(live.config)
    eventually(lambda: live.services().get("fresh", {}).get("state") == "running", "fresh runs", 30)
    assert live.text().count("reload: ") == 1
    assert live.status("web")["pid"] == web
    del settings["runtime"]["orchestrator"]["watch"], settings["services"]["web"]
    live.config.write_text(yaml.safe_dump(settings))
    eventually(lambda: "web" not in live.services(), "web has gone", 30)


def test_fragments_are_taken_in_without_a_command(supervise):
    settings = config({"web": SLEEP})
    settings["include"] = ["conf.d/*.yaml"]
    settings["runtime"]["orchestrator"]["watch"] = True
    live = supervise(settings)
    web = live.status("web")["pid"]
    fragment = live.config.parent / "conf.d" / "apps.yaml"
    fragment.parent.mkdir()
    template = {"app": {**SLEEP, "data_dir": "app-{id}"}}
    fragment.write_text(
        yaml.safe_dump({"templates": template, "instances": [{"id": "shop", "template": "app"}]})
    )
    eventually(lambda: live.services().get("shop", {}).get("state") == "running", "shop runs", 60)
    fragment.rename(fragment.with_suffix(".off"))
    eventually(lambda: "shop" not in live.services(), "shop has gone", 60)
    assert live.status("web")["pid"] == web


def test_a_supervisor_killed_in_the_middle_of_a_reload_leaves_it_to_the_next_one(supervise):
    live = supervise(config({"web": SLEEP, "slow": {**STUBBORN, "stop": {"timeout": "30s"}}}))
    before = live.services()
    write(live, {"web": SLEEP, "fresh": SLEEP})
    os.kill(live.pid, signal.SIGHUP)
    live.until("slow", "stopping")
    live.until("fresh", "running")
    fresh = live.status("fresh")["pid"]
    crash(live)
    live.start()
    live.ready()
    after = live.services()
    assert {name: info["pid"] for name, info in after.items()} == {
        "web": before["web"]["pid"],
        "fresh": fresh,
    }
    assert not alive(before["slow"]["pid"])
