"""Ports of the range, with real programs that listen on them and others that are in the way."""

from __future__ import annotations

import json
import os
import signal
import socket
from typing import Any

from blackhole_cg.control.client import ControlClient
from blackhole_cg.kernel.ports import find_port_holder
from tests.support.configs import config, python
from tests.support.live import crash
from tests.support.ports import Occupant, free_ports
from tests.support.waiting import eventually

LISTENER = """
import os, socket, sys, time
port = int(os.environ["BLACKHOLE_PORT"])
assert sys.argv[1:] == [f"--port={port}"], sys.argv
while os.path.exists("wait"): time.sleep(0.02)
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, os.path.basename(os.getcwd()) != "rude")
listener.bind(("127.0.0.1", port))
listener.listen()
while True:
    connection, _ = listener.accept()
    connection.send(str(os.getpid()).encode())
    connection.close()
"""
"""Named "rude" it does not set SO_REUSEADDR, so that what is left of its connections is in its own way."""


def listener(name: str, **keys: Any) -> dict[str, Any]:
    command = [*python(LISTENER)["command"], "--port={tcp_port}"]
    restart = {"initial_delay": "100ms"}
    service = {"command": command, "data_dir": name, "tcp_port": "auto", "restart": restart}
    return {**service, "health_check": {"tcp": {}, "interval": "1s"}, **keys}


def status(live: Any, name: str) -> dict[str, Any]:
    """Without a process for each question, of which there are many here."""
    return ControlClient(live.runtime_dir).service(name)


def services(live: Any) -> dict[str, dict[str, Any]]:
    return {info["name"]: info for info in ControlClient(live.runtime_dir).services()}


def pid_at(port: int) -> int:
    """Who answers on a port. The server closes first, so that the kernel keeps the connection on its port."""
    with socket.create_connection(("127.0.0.1", port), 60) as connection, connection.makefile() as answer:
        return int(answer.read())


def details(live: Any, name: str) -> list[str]:
    events = ControlClient(live.runtime_dir).events(name)
    return [event["detail"] for event in events if event["kind"] == "port"]


def until_healthy(live: Any, name: str, run_id: int) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        info: dict[str, Any] = status(live, name)
        return info if (info["run_id"], info["health"]) == (run_id, "healthy") else None

    found = eventually(look, f"run {run_id} of {name} is healthy")
    assert found is not None
    return found


def endpoints_of(live: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((live.runtime_dir / "endpoints.json").read_text())["endpoints"]
    return found


def test_services_share_a_range_with_a_stranger_and_one_too_many_fails_alone(supervise):
    ports = free_ports(3)
    with Occupant(ports[0]) as stranger:
        listeners = {name: listener(name) for name in ("a", "b", "c")}
        live = supervise(config(listeners, ports={"range": f"{ports[0]}-{ports[-1]}"}))
        found = services(live)
        given = {found[name]["tcp_port"] for name in ("a", "b", "c")}
        assert given == {ports[1], ports[2], None}
        (short,) = (name for name in found if found[name]["tcp_port"] is None)
        error = f"no port of runtime.orchestrator.ports.range {ports[0]}-{ports[-1]} is left"
        assert error in found[short]["last_error"]
        assert "2 with services, 1 with other programs" in live.text()
        for name in {"a", "b", "c"} - {short}:
            assert pid_at(found[name]["tcp_port"]) == found[name]["pid"]
            assert details(live, name) == [
                f"conflict: pid {stranger.pid} ({stranger.command}) has port {ports[0]}: another is tried",
                f"assigned {found[name]['tcp_port']}",
            ]
            assert f"assigned {found[name]['tcp_port']}" in live.cli("why", name).stdout
    live.cli("start", short)
    assert status(live, short)["tcp_port"] == ports[0]
    told = live.cli("endpoints").stdout.splitlines()
    assert [line.split()[:2] for line in told[1:]] == [
        [name, f"127.0.0.1:{info['tcp_port']}"] for name, info in services(live).items()
    ]


def test_a_port_is_kept_through_restarts_and_supervisors_until_the_service_is_stopped(supervise):
    ports = free_ports(3)
    keys = {"ports": {"range": f"{ports[0]}-{ports[-1]}"}}
    live = supervise(config({"web": listener("web")}, **keys))
    port, pid = status(live, "web")["tcp_port"], status(live, "web")["pid"]
    assert pid_at(port) == pid
    os.kill(pid, signal.SIGKILL)
    again = until_healthy(live, "web", 2)
    assert (again["tcp_port"], pid_at(port)) == (port, again["pid"])

    crash(live)
    live.config.write_text(json.dumps(config({"new": listener("new"), "web": listener("web")}, **keys)))
    live.start().ready()
    after = services(live)
    assert (after["web"]["pid"], after["web"]["adopted"]) == (again["pid"], True)
    assert (after["web"]["tcp_port"], after["new"]["tcp_port"]) == (port, ports[1])
    eventually(lambda: endpoints_of(live)["web"]["ready"], "the file tells it")
    assert endpoints_of(live)["web"]["tcp"] == f"127.0.0.1:{port}"

    live.cli("restart", "web")
    assert status(live, "web")["tcp_port"] == port
    live.cli("stop", "web")
    assert (status(live, "web")["tcp_port"], find_port_holder(port)) == (None, None)
    eventually(lambda: endpoints_of(live)["web"]["tcp"] is None, "the file tells it")
    assert live.interrupt() == 0
    assert live.leftovers() == []


def test_who_is_in_the_way_at_a_start_is_told_and_avoided(supervise):
    """`late` binds only when a stranger has done so; `rude` leaves connections in its own way."""
    ports = free_ports(4)
    services = {"late": listener("late", health_check=None), "rude": listener("rude", depends_on=["late"])}
    live = supervise(config(services, ports={"range": f"{ports[0]}-{ports[-1]}"}), start=False)
    data_dir = live.directory / "late"
    data_dir.mkdir()
    (data_dir / "wait").touch()
    live.start().ready()
    assert [status(live, name)["tcp_port"] for name in ("late", "rude")] == [ports[0], ports[1]]
    with Occupant(ports[0], "0.0.0.0") as stranger:
        (data_dir / "wait").unlink()
        eventually(lambda: status(live, "late")["tcp_port"] == ports[2], "another port is tried")
    known = f"pid {stranger.pid} ({stranger.command}) has port {ports[0]}"
    told = details(live, "late")
    assert told[:2] == [f"assigned {ports[0]}", f"conflict: {known}: another is tried at the next start"]
    assert told[-1] == f"assigned {ports[2]}"
    assert known in live.text()
    eventually(lambda: find_port_holder(ports[2]), "the service listens")
    assert pid_at(ports[2]) == status(live, "late")["pid"]

    os.kill(pid_at(ports[1]), signal.SIGKILL)
    again = until_healthy(live, "rude", 2)
    assert again["tcp_port"] != ports[1]
    assert pid_at(again["tcp_port"]) == again["pid"]
    closing = f"conflict: a connection that the kernel is still closing has port {ports[1]}: another is tried"
    assert closing in details(live, "rude")
