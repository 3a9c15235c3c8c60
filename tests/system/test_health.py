"""Health on a real supervisor: servers that answer, that fail, and that never answer."""

from __future__ import annotations

import os
import signal
import time

from tests.support.configs import SLEEP, config, python, shell
from tests.support.live import crash
from tests.support.neighbour import Neighbour, seconds_until, why
from tests.support.ports import free_port
from tests.support.waiting import eventually

SERVER = """
import http.server, os, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        while os.path.exists('deaf'):
            time.sleep(0.1)
        broken = os.path.exists('broken')
        self.send_response(500 if broken else 200)
        self.end_headers()
        self.wfile.write(b'out of order' if broken else b'fine')
    def log_message(self, *_):
        pass
http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), Handler).serve_forever()
"""

DEAF = """
import socket, sys, time
listener = socket.create_server(('127.0.0.1', int(sys.argv[1])), backlog=16)
time.sleep(1000)
"""


def server(script, port, check, **fields):
    service = python(script, **fields)
    service["command"] = [*service["command"], "{tcp_port}"]
    return {**service, "tcp_port": port, "health_check": check}


CHECK = {"interval": "200ms", "timeout": "2s", "retries": 2}
DETECTION_SECONDS = 2 * (0.2 + 2) + 10  # each failure takes the timeout at most; the rest is for a busy host


def test_a_server_that_fails_is_restarted_with_the_reason_and_neighbours_are_not(supervise):
    live = supervise(
        config({
            "web": server(SERVER, free_port(), {"http": {"path": "/status"}, **CHECK}, data_dir="web",
                          restart={"initial_delay": "100ms"}),
            "calm": server(SERVER, free_port(), {"http": {"path": "/"}, **CHECK}, data_dir="calm"),
            "mute": server(SERVER, free_port(), {"http": {"path": "/"}, **CHECK}, data_dir="mute",
                           restart={"initial_delay": "100ms"}),
            "after": {**SLEEP, "depends_on": {"web": {"condition": "healthy"}}},
        })
    )  # fmt: skip
    neighbours = [Neighbour(live, name) for name in ("calm", "after")]
    before = live.services()
    assert before["web"]["health"] == "healthy"
    assert before["after"]["state"] == "running"
    for name, trouble in (("web", "broken"), ("mute", "deaf")):
        began = time.time()
        (live.directory / name / trouble).touch()
        eventually(lambda name=name: live.status(name)["restarts"] >= 1, f"{name} is restarted", 60)
        assert seconds_until(live, name, "stopping", began) < DETECTION_SECONDS
        (live.directory / name / trouble).unlink()
        eventually(lambda name=name: live.status(name)["health"] == "healthy", f"{name} is well again", 60)
    restarted = [event for event in live.events("web") if event["to"] == "stopping"]
    assert restarted[0]["reason"] == "probe_failed"
    assert "liveness probe failed 2 times in a row" in restarted[0]["detail"]
    assert "500 Internal Server Error: out of order" in restarted[0]["detail"]
    assert live.status("web")["last_exit"]["reason"] == "probe_failed"
    assert "500 Internal Server Error: out of order" in why(live, "web")
    assert "/: no answer within 2s" in why(live, "mute")
    for neighbour in neighbours:
        neighbour.assert_untouched()
    shown = live.cli("health", "web").stdout
    assert "healthy" in shown
    assert "200 OK" in shown
    assert live.interrupt() == 0
    assert live.leftovers() == []


def test_a_server_that_never_answers_fails_the_start_which_is_rolled_back(supervise):
    port = free_port()
    live = supervise(
        config({
            "deaf": server(DEAF, port, {"http": {"path": "/"}, **CHECK, "timeout": "300ms"},
                           start_timeout="2s"),
            "first": SLEEP,
        }),
        start=False,
    )  # fmt: skip
    live.start()
    eventually(live.ended, "the supervisor gives up", 60)
    text = live.text()
    assert "cannot start 'deaf': not healthy within 2s (startup probe: GET " in text
    assert f"127.0.0.1:{port}" in text
    assert "rolled back: first" in text
    assert live.process is not None
    assert live.process.returncode == 1
    assert live.leftovers() == []


def test_a_command_asks_beside_the_service(supervise):
    check = {"exec": {"command": ["/bin/sh", "-c", "test ! -e broken || { echo it broke; exit 3; }"]}}
    live = supervise(
        config({
            "web": {**SLEEP, "data_dir": "web", "restart": {"policy": "never"},
                    "liveness_probe": {**check, "period": "200ms", "failure_threshold": 2}},
        })
    )  # fmt: skip
    info = live.status("web")
    assert (info["health"], info["usage"]["pids"]) == ("healthy", 1)
    (live.directory / "web" / "broken").touch()
    info = live.until("web", "failed", 60)
    assert "it broke" in info["last_error"]


def test_health_goes_on_across_a_crash_of_the_supervisor(supervise):
    live = supervise(
        config({"web": server(SERVER, free_port(), {"http": {"path": "/"}, **CHECK}, data_dir="web")})
    )
    pid = live.status("web")["pid"]
    crash(live)
    live.start().ready()
    info = live.status("web")
    assert (info["pid"], info["health"], info["adopted"]) == (pid, "healthy", True)
    (live.directory / "web" / "broken").touch()
    eventually(lambda: live.status("web")["restarts"] >= 1, "it is still asked", 60)


def test_an_unhealthy_service_does_not_keep_the_next_supervisor_from_taking_over(supervise):
    probe = {"exec": {"command": ["/bin/sh", "-c", "test ! -e broken"]}, "period": "200ms"}
    live = supervise(
        config({
            "sick": {**SLEEP, "data_dir": "sick", "readiness_probe": probe, "start_timeout": "2s"},
            "other": {**SLEEP, "restart": {"initial_delay": "100ms"}},
        })
    )  # fmt: skip
    before = live.services()
    (live.directory / "sick" / "broken").touch()
    eventually(lambda: live.status("sick")["health"] == "unhealthy", "it is sick", 60)
    crash(live)
    os.kill(before["other"]["pid"], signal.SIGKILL)
    live.start()
    eventually(lambda: "not healthy within 2s" in live.text(), "the reason is told", 60)
    eventually(lambda: live.status("other")["state"] == "running", "the other one runs again", 60)
    sick = live.status("sick")
    assert (sick["pid"], sick["state"], sick["health"]) == (before["sick"]["pid"], "running", "unhealthy")
    assert not live.ended()


def test_a_dependency_that_gives_up_suspends_the_restarts_of_its_dependents(supervise):
    policy = {"initial_delay": "100ms", "max_restarts": 1}
    live = supervise(
        config({
            "db": shell("test ! -e broken && exec sleep 1000", data_dir="db", restart=policy),
            "web": {**SLEEP, "depends_on": ["db"], "restart": policy},
            "calm": SLEEP,
        })
    )  # fmt: skip
    calm = Neighbour(live, "calm")
    before = live.services()
    (live.directory / "db" / "broken").touch()
    os.kill(before["db"]["pid"], signal.SIGKILL)
    live.until("db", "failed", 60)
    os.kill(before["web"]["pid"], signal.SIGKILL)
    info = live.until("web", "waiting", 60)
    assert (info["restarts"], info["desired"]) == (1, "up")
    told = why(live, "web")
    assert "db" in told.partition("now")[2]
    assert "gave up after 1 restarts" in told
    (live.directory / "db" / "broken").unlink()
    live.cli("start", "db")
    info = live.until("web", "running", 60)
    assert (info["run_id"], info["restarts"]) == (before["web"]["run_id"] + 1, 1)
    calm.assert_untouched()
