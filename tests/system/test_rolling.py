"""Rolling changes of real HTTP servers, asked all the time; and over kill -9 of the supervisor."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import yaml

from tests.support.configs import config
from tests.support.live import Live, alive, crash
from tests.support.servicehosts import MODULE, SERVICEHOST
from tests.support.waiting import eventually

PORTS = range(42200, 42230)
NAMES = ["web-1", "web-2", "web-3"]


def hosts(version: str, wasm: str = str(MODULE), **keys: Any) -> dict[str, Any]:
    web = {
        "instances": 3,
        "command": [
            str(SERVICEHOST),
            "-wasm",
            wasm,
            "-dbPath",
            f"{version}-{{index}}",
            "-port",
            "{tcp_port}",
        ],
        "tcp_port": "auto",
        "data_dir": "data/{name}",
        "readiness_probe": {"http": {"path": "/api/status"}, "period": "200ms"},
        "restart": {"initial_delay": "100ms", "max_restarts": 1},
        **keys,
    }
    needing = {"command": ["/bin/sleep", "infinity"], "data_dir": "data/user", "depends_on": ["web"]}
    return config({"web": web, "user": needing}, ports={"range": f"{PORTS[0]}-{PORTS[-1]}"})


def write(live: Live, settings: dict[str, Any]) -> None:
    live.config.write_text(yaml.safe_dump(settings))


def recorded(live: Live) -> dict[str, Any]:
    """What the next supervisor would find."""
    path = live.state_dir / "rollouts.json"
    try:
        return json.loads(path.read_text())[0]
    except FileNotFoundError:
        return {}


def refusals(ports: list[int]) -> int:
    """How many of these nobody listens on."""
    count = 0
    for port in ports:
        with socket.socket() as caller:
            count += caller.connect_ex(("127.0.0.1", port)) != 0
    return count


class Callers:
    """Calls every instance again and again; `worst` is how many of them refused at once."""

    def __init__(self, infos: dict[str, dict[str, Any]]) -> None:
        self._ports = [infos[name]["tcp_port"] for name in NAMES]
        self.worst = 0
        self.calls = 0

    def call(self) -> None:
        # Twice: between two calls of one round one may come up and the next go down.
        refused = refusals(self._ports)
        self.worst = max(self.worst, min(refused, refusals(self._ports)) if refused > 1 else refused)
        self.calls += len(self._ports)

    def during(self, process: subprocess.Popen[str]) -> tuple[str, str]:
        """For as long as a command takes; what it said."""
        while True:
            self.call()
            with suppress(subprocess.TimeoutExpired):
                return process.communicate(timeout=0.01)


def versions(infos: dict[str, dict[str, Any]]) -> dict[str, str]:
    found = {}
    for name, info in infos.items():
        if name in NAMES and info["pid"]:
            with open(f"/proc/{info['pid']}/cmdline") as file:
                found[name] = file.read().split("\0-dbPath\0")[1].partition("\0")[0]
    return found


def all_of(version: str) -> dict[str, str]:
    return {name: f"{version}-{index}" for index, name in enumerate(NAMES, 1)}


def test_a_new_version_comes_one_by_one_and_a_bad_one_goes_back(supervise: Callable[..., Live]) -> None:
    live = supervise(hosts("v1"))
    first = live.services()
    callers = Callers(first)
    assert versions(first) == all_of("v1")
    assert {first[name]["instance_of"] for name in NAMES} == {"web"}
    write(live, hosts("v2"))
    said, progress = callers.during(live.background("reload"))
    assert progress.splitlines() == [f"web-{turn}: replaced: {turn} of 3 of 'web'" for turn in (1, 2, 3)]
    assert "web-3: changed, and restarted where it is wanted up: command" in said
    before = live.services()
    assert versions(before) == all_of("v2")
    assert callers.worst == 1
    assert callers.calls > 30
    assert before["user"]["run_id"] == 1

    write(live, hosts("v3", wasm="/nonexistent.wasm"))
    _, told = callers.during(live.background("reload"))
    assert "the rollout of 'web' is taken back: cannot start 'web-1'" in told
    assert callers.worst == 1
    after = live.services()
    assert versions(after) == all_of("v2")
    assert [after[name]["pid"] for name in NAMES[1:]] == [before[name]["pid"] for name in NAMES[1:]]
    assert all(after[name]["outdated"] for name in NAMES)
    assert "rollout of 'web' was taken back: cannot start 'web-1'" in live.cli("status").stdout
    assert "rollout of 'web' goes back" in live.cli("why", "web-1").stdout
    shown = live.cli("plan", "--config", str(live.config)).stdout
    assert "web-1: to be restarted, if it is wanted up" in shown

    smaller = hosts("v2", instances=2)
    write(live, smaller)
    live.cli("reload")
    now = live.services()
    assert sorted(now) == ["user", *NAMES[:2]]
    assert {name: now[name]["pid"] for name in NAMES[:2]} == {name: after[name]["pid"] for name in NAMES[:2]}
    assert not any(info["outdated"] for info in now.values())
    assert recorded(live) == {}


SURGE: dict[str, Any] = {"rollout": {"max_unavailable": 0, "max_surge": "25%"}}  # of three: one


def test_an_additional_one_stands_in_for_whoever_is_replaced(supervise: Callable[..., Live]) -> None:
    slowly = {"rollout": {**SURGE["rollout"], "min_ready": "5s"}}  # so that it is there when it is looked for
    live = supervise(hosts("v1", **slowly))
    first = live.services()
    write(live, hosts("v2", **slowly))
    shown = live.cli("plan", "--config", str(live.config)).stdout
    assert "web: web-4 in addition while it is replaced" in shown
    reload = live.background("reload")

    def is_listed() -> dict[str, Any]:
        return json.loads((live.runtime_dir / "endpoints.json").read_text())["endpoints"].get("web-4") or {}

    eventually(is_listed, "web-4 is there", 30)
    assert "web-4" in live.services()
    assert "with web-4 in addition" in live.cli("status").stdout
    said, progress = reload.communicate()
    assert progress.splitlines() == [
        "web-4: up: additional instance of 'web'",
        *(f"web-{turn}: replaced: {turn} of 3 of 'web'" for turn in (1, 2, 3)),
        "web-4: additional instance of 'web': to be removed",
    ]
    assert "web-4" not in said
    after = live.services()
    assert sorted(after) == ["user", *NAMES]
    assert versions(after) == all_of("v2")
    assert after["user"]["pid"] == first["user"]["pid"]
    assert not is_listed()
    assert sorted(each.name for each in live.cgroup_root.iterdir() if each.is_dir()) == ["user", *NAMES]

    write(live, hosts("v3", wasm="/nonexistent.wasm", **slowly))
    told = live.cli("reload", check=False).stderr
    assert "the rollout of 'web' is taken back: cannot start 'web-4'" in told
    untouched = live.services()
    assert {name: untouched[name]["pid"] for name in untouched} == {
        name: after[name]["pid"] for name in after
    }


@pytest.mark.parametrize("bad", [False, True])
def test_after_kill_9_no_additional_one_is_left(supervise: Callable[..., Live], bad: bool) -> None:
    live = supervise(hosts("v1", **SURGE))
    # A bad one is only the second that is replaced.
    wasm = str(live.directory / "{index}.wasm")
    for index in (1, 2, 3, 4):
        if not (bad and index == 2):
            (live.directory / f"{index}.wasm").write_bytes(MODULE.read_bytes())
    write(live, hosts("v2", wasm=wasm, **SURGE))
    reload = live.background("reload")

    def reached() -> bool:
        found = recorded(live)
        return found.get("phase") == "back" if bad else len(found.get("released", [])) == 2

    eventually(reached, "the middle of it", 30)
    crash(live)
    reload.communicate()
    live.start()
    live.ready()

    def over() -> bool:
        found = recorded(live)
        return found.get("phase") == "failed" if bad else not found

    eventually(over, "the rollout is over", 60)
    infos = live.services()
    assert sorted(infos) == ["user", *NAMES]
    assert versions(infos) == all_of("v1" if bad else "v2")
    assert all(alive(infos[name]["pid"]) and infos[name]["health"] == "healthy" for name in NAMES)
    assert infos["user"]["run_id"] == 1
    assert sorted(each.name for each in live.cgroup_root.iterdir() if each.is_dir()) == ["user", *NAMES]


@pytest.mark.parametrize("point", [(1, "forward"), (1, "back")])
def test_after_kill_9_the_next_supervisor_does_what_was_recorded(
    supervise: Callable[..., Live], point: tuple[int, str]
) -> None:
    live = supervise(hosts("v1"))
    callers = Callers(live.services())
    bad = point[1] == "back"
    write(live, hosts("v2", **({"wasm": "/nonexistent.wasm"} if bad else {})))
    reload = live.background("reload")

    def reached() -> bool:
        callers.call()
        found = recorded(live)
        released = found.get("released", [])
        return found.get("phase") == point[1] and (bad or len(released) == point[0])

    eventually(reached, f"{point}", 30)
    crash(live)
    reload.communicate()
    live.start()
    live.ready()

    def over() -> bool:
        callers.call()
        found = recorded(live)
        return found.get("phase") == "failed" if bad else not found

    try:
        eventually(over, "the rollout is over", 40)
    except AssertionError as error:
        error.add_note(f"{recorded(live).get('phase')} {recorded(live).get('reason')}\n{live.text()}")
        raise
    assert callers.worst <= 1
    infos = live.services()
    assert versions(infos) == all_of("v1" if bad else "v2")
    assert all(alive(infos[name]["pid"]) and infos[name]["health"] == "healthy" for name in NAMES)
    assert all(infos[name]["outdated"] is bad for name in NAMES)
    # Whoever was replaced before is not replaced again, and whoever stays was never touched.
    assert infos["user"]["run_id"] == 1
    assert live.interrupt() == 0
    assert recorded(live) == {}
