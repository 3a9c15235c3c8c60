"""Sockets that the supervisor holds: whoever connects is served, whatever becomes of the service."""

from __future__ import annotations

import json
import os
import pwd
import signal
import socket
import sys
from pathlib import Path

import yaml

from blackhole_cg.control.client import ControlClient
from tests.support.configs import SLEEP, config, python, shell
from tests.support.live import Live, alive, crash
from tests.support.load import Load
from tests.support.ports import free_port
from tests.support.sockets import ask, is_refused
from tests.support.waiting import eventually

SERVER = Path(__file__).parents[1] / "support" / "held_server.py"


def server(port: int, **keys: object) -> dict:
    return {
        "command": [sys.executable, "-S", str(SERVER)],
        "data_dir": "data",
        "sockets": {"http": {"tcp": port}},
        "restart": {"initial_delay": "100ms", "max_restarts": 1000, "backoff_factor": 1},
        **keys,
    }


def held(live: Live, name: str = "web") -> dict[str, bool]:
    return {socket: facts["held"] for socket, facts in live.status(name)["sockets"].items()}


def test_a_hundred_restarts_under_load_refuse_nobody(supervise):
    port = free_port()
    live = supervise(config({"web": server(port)}))
    client = ControlClient(live.runtime_dir)
    with Load(port) as load:
        for _ in range(100):
            client.change("restart", ["web"])
            ask(port)
    info = live.status("web")
    assert (info["run_id"], info["restarts"]) == (101, 0)
    assert set(load.counts) == {"answered"}, load.counts
    assert load.counts["answered"] > 800, "those who waited for each run, at the least"


def test_the_load_does_see_a_service_that_binds_for_itself_refuse(supervise):
    port = free_port()
    program = (
        "import os, socket, sys\n"
        "listener = socket.socket()\n"
        "listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n"
        f"listener.bind(('127.0.0.1', {port}))\n"
        "listener.listen(4096)\n"
        "os.dup2(listener.fileno(), 4)\n"
        "os.dup2(4, 3)\n"
        "os.environ |= {'LISTEN_PID': str(os.getpid()), 'LISTEN_FDNAMES': 'http'}\n"
        f"os.execv(sys.executable, [sys.executable, '-S', {str(SERVER)!r}])\n"
    )
    live = supervise(config({"web": python(program, health_check={"tcp": {"port": port}, "interval": "1s"})}))
    live.until("web", "running")
    with Load(port) as load:
        for _ in range(3):
            live.cli("restart", "web")
    assert load.counts["refused"] > 0
    assert load.counts["answered"] > 0


def test_crashes_under_load_refuse_nobody_and_break_only_what_was_accepted(supervise):
    port, callers, crashes = free_port(), 8, 10
    live = supervise(config({"web": server(port)}))
    client = ControlClient(live.runtime_dir)
    with Load(port, callers) as load:
        for number in range(crashes):
            os.kill(ask(port), signal.SIGKILL)
            eventually(lambda number=number: client.service("web")["run_id"] == number + 2, "the next run")
    assert live.status("web")["restarts"] == crashes
    assert load.counts["answered"] > 4 * crashes
    assert set(load.counts) <= {"answered", "reset", "cut"}, load.counts
    assert sum(load.counts.values()) - load.counts["answered"] <= callers * crashes


def test_a_service_gets_its_sockets_and_nothing_else(supervise, tmp_path):
    ports = [free_port(), free_port()]
    program = (
        "import json, os, socket, stat\n"
        "numbers = [n for n in range(20) if os.path.exists(f'/proc/self/fd/{n}')]\n"
        "sockets = [socket.socket(fileno=n) for n in range(3, 7)]\n"
        "facts = {name: os.environ.get(name) for name in ('LISTEN_FDS', 'LISTEN_FDNAMES')}\n"
        "facts['mine'] = os.environ['LISTEN_PID'] == str(os.getpid())\n"
        "facts['numbers'] = [n for n in numbers if os.path.exists(f'/proc/self/fd/{n}')]\n"
        "names = [s.getsockname() for s in sockets]\n"
        "facts['bound'] = [name if isinstance(name, str) else name[1] for name in names]\n"
        "facts['blocking'] = [s.getblocking() for s in sockets]\n"
        "print(json.dumps(facts))\n"
        "for s in sockets: s.setblocking(False)\n"
        "signal = __import__('signal'); signal.pause()\n"
    )
    sockets = {
        "http": {"tcp": f"[::1]:{ports[0]}"},
        "dns": {"udp": "localhost:{tcp_port}"},
        "api": {"unix": "{data_dir}/sub/api.sock", "mode": "0600", "owner": "nobody"},
        "plain": {"tcp": "127.0.0.1:{tcp_port}", "backlog": 5},
    }
    web = python(program, sockets=sockets, tcp_port=ports[1], resources={"open_files": 8})
    live = supervise(yaml.safe_dump(config({"web": web}), sort_keys=False))
    path = live.directory / "data/sub/api.sock"
    for number in (1, 2):
        eventually(lambda number=number: len(live.log_lines("web")) == number, "what it found")
        assert json.loads(live.log_lines("web")[-1]["message"]) == {
            "LISTEN_FDS": "4",
            "LISTEN_FDNAMES": "http:dns:api:plain",
            "mine": True,
            "numbers": [0, 1, 2, 3, 4, 5, 6],
            "bound": [ports[0], ports[1], str(path), ports[1]],
            "blocking": [True] * 4,
        }
        if number == 1:
            live.cli("restart", "web")
    found = path.stat()
    assert (oct(found.st_mode & 0o777), found.st_uid) == ("0o600", pwd.getpwnam("nobody").pw_uid)
    assert live.status("web")["sockets"]["api"] == {"kind": "unix", "address": str(path), "held": True}
    shown = live.cli("status", "web").stdout
    assert f"tcp [::1]:{ports[0]} (held)" in shown
    live.cli("stop", "web")
    assert not path.exists(), "nobody can connect any more"
    assert not any(held(live).values())
    assert live.interrupt() == 0
    assert live.leftovers() == []


def test_stop_refuses_at_once_and_what_waits_for_a_restart_does_not(supervise):
    port = free_port()
    live = supervise(
        config({
            "web": server(port, health_check={"exec": {"command": ["/bin/true"]}, "interval": "1s"}),
            "broken": {**shell("exit 3"), "sockets": {"http": {"tcp": free_port()}}, "required": False,
                       "restart": {"initial_delay": "1h", "max_delay": "1h"}},
        })
    )  # fmt: skip
    assert ask(port) == live.status("web")["pid"]
    assert live.status("web")["health"] == "healthy", "a probe's command is not handed the sockets"
    live.cli("stop", "web")
    assert is_refused(port)
    live.cli("start", "web")
    assert ask(port) == live.status("web")["pid"]
    live.until("broken", "restarting")
    assert held(live, "broken") == {"http": True}
    waiting = live.status("broken")["sockets"]["http"]["address"].rpartition(":")[2]
    assert not is_refused(int(waiting))
    live.cli("stop", "broken")
    assert is_refused(int(waiting))


def test_an_address_in_use_is_an_error_of_the_start_and_leaves_nothing_bound(supervise):
    first, second = free_port(), free_port()
    sockets = {"one": {"tcp": first}, "two": {"tcp": second}}
    live = supervise(config({"web": {**SLEEP, "sockets": sockets, "enabled": False}, "other": SLEEP}))
    with socket.create_server(("127.0.0.1", second)):
        done = live.cli("start", "web", check=False)
        assert done.returncode == 1
        why = f"cannot start 'web': listen on tcp 127.0.0.1:{second} (socket two): Address already in use"
        assert why in done.stderr
        assert is_refused(first)
    live.cli("start", "web")
    assert held(live) == {"one": True, "two": True}


def test_a_reload_that_moves_a_socket_rebinds_it_and_one_that_does_not_leaves_it(supervise):
    port, other = free_port(), free_port()
    live = supervise(config({"web": server(port)}))
    moved = server(port, environment={"NEW": "1"})
    moved["sockets"]["more"] = {"tcp": other}
    live.config.write_text(json.dumps(config({"web": moved})))
    with Load(port, 2) as load:
        live.cli("reload")
    assert live.status("web")["run_id"] == 2
    assert held(live) == {"http": True, "more": True}
    assert set(load.counts) == {"answered"}, load.counts
    moved["sockets"] = {"http": {"tcp": other}}
    live.config.write_text(json.dumps(config({"web": moved})))
    live.cli("reload")
    assert is_refused(port)
    assert ask(other) == live.status("web")["pid"]
    live.config.write_text(json.dumps(config({"other": SLEEP})))
    live.cli("reload")
    assert is_refused(other)


def test_the_next_supervisor_takes_sockets_back_from_the_service_that_has_them(supervise):
    port = free_port()
    server_and_socket = server(port)
    server_and_socket["sockets"]["api"] = {"unix": "api.sock"}
    live = supervise(config({"web": server_and_socket}))
    before = live.status("web")
    crash(live)
    with Load(port) as load:
        live.start().ready()
        assert held(live) == {"http": True, "api": True}
        assert live.status("web")["pid"] == before["pid"]
        for _ in range(3):
            live.cli("restart", "web")
    assert set(load.counts) == {"answered"}, load.counts
    live.cli("stop", "web")
    assert is_refused(port)
    assert not (live.directory / "api.sock").exists()


def test_a_service_that_died_with_its_supervisor_listens_again(supervise):
    port = free_port()
    service = server(port)
    service["sockets"]["api"] = {"unix": "api.sock"}
    live = supervise(config({"web": service}))
    pid = live.status("web")["pid"]
    crash(live)
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not alive(pid), "it has died")
    live.start().ready()
    eventually(lambda: live.status("web")["run_id"] == 2, "the next run")
    assert ask(port) == live.until("web", "running")["pid"]


def test_a_port_that_is_assigned_is_handed_over_bound(supervise):
    port = free_port()
    web = server(port, tcp_port="auto", sockets={"http": {"tcp": "{tcp_port}"}})
    other = {**web, "data_dir": "other", "enabled": False}
    options = {"ports": {"range": f"{port}-{port + 1}"}}
    live = supervise(config({"web": web, "other": other}, **options))
    client = ControlClient(live.runtime_dir)
    assert live.status("web")["tcp_port"] == port
    assert live.status("other")["sockets"]["http"]["address"] == "127.0.0.1:auto"
    with Load(port, 2) as load:
        for _ in range(3):
            client.change("restart", ["web"])
            ask(port)
        crash(live)
        live.start().ready()
        client.change("restart", ["web"])
        info = live.status("web")
        assert ask(port) == info["pid"]
    assert set(load.counts) == {"answered"}, load.counts
    assert (info["tcp_port"], info["run_id"]) == (port, 5)
    assert info["sockets"]["http"] == {"kind": "tcp", "address": f"127.0.0.1:{port}", "held": True}
    live.cli("start", "other")
    assert live.status("other")["tcp_port"] == port + 1
    live.cli("stop", "web")
    assert is_refused(port)
