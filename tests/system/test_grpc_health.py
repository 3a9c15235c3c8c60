"""A server of another's making: grpcio's health servicer, which says SERVING and NOT_SERVING on demand."""

from __future__ import annotations

import importlib.util
import sys
import time
from pathlib import Path

import pytest

from tests.support.configs import config
from tests.support.live import Live
from tests.support.neighbour import Neighbour, seconds_until, why
from tests.support.ports import free_port
from tests.support.waiting import eventually

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("grpc_health") is None, reason="grpcio-health-checking is not installed"
)

SERVER = """
import os, sys, time
from concurrent import futures
import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

servicer = health.HealthServicer()
server = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
assert server.add_insecure_port('127.0.0.1:' + sys.argv[1])
server.start()
Status = health_pb2.HealthCheckResponse
while True:
    sick = os.path.exists('sick')
    servicer.set(os.environ['BLACKHOLE_SERVICE'], Status.NOT_SERVING if sick else Status.SERVING)
    time.sleep(0.05)
"""
PROBE = {"grpc": {}, "period": "500ms", "timeout": "5s", "failure_threshold": 2}
DETECTION_SECONDS = 2 * 0.5 + 10  # two failures in a row; the rest is for a busy host


def service(name: str, **probes: object) -> dict[str, object]:
    return {
        "command": [sys.executable, "-u", "-c", SERVER, "{tcp_port}"],
        "data_dir": name,
        "tcp_port": free_port(),
        "restart": {"initial_delay": "100ms"},
        "startup_probe": {**PROBE, "failure_threshold": 100},
        **probes,
    }


@pytest.fixture
def live(supervise) -> Live:
    return supervise(
        config({
            "lives": service("lives", liveness_probe=PROBE),
            "ready": service("ready", readiness_probe=PROBE),
            "calm": service("calm", liveness_probe=PROBE, readiness_probe=PROBE),
        })
    )  # fmt: skip


def sick(live: Live, name: str) -> Path:
    return live.directory / name / "sick"


@pytest.mark.timeout(240)
def test_liveness_restarts_after_the_threshold_and_readiness_changes_health_only(live: Live) -> None:
    calm = Neighbour(live, "calm")
    before = live.services()
    assert {info["health"] for info in before.values()} == {"healthy"}
    began = time.time()
    sick(live, "ready").touch()
    sick(live, "lives").touch()
    eventually(lambda: live.status("lives")["restarts"] >= 1, "lives is restarted", 60)
    assert 0.4 < seconds_until(live, "lives", "stopping", began) < DETECTION_SECONDS
    eventually(lambda: live.status("ready")["health"] == "unhealthy", "ready is unhealthy", 60)
    sick(live, "lives").unlink()
    eventually(lambda: live.status("lives")["health"] == "healthy", "lives is healthy again", 60)
    ended = [event for event in live.events("lives") if event["to"] == "stopping"]
    assert {event["reason"] for event in ended} == {"probe_failed"}
    assert ended[0]["detail"].startswith("liveness probe failed 2 times in a row: gRPC health of lives at ")
    assert ended[0]["detail"].endswith(": NOT_SERVING")
    assert "liveness probe failed 2 times in a row: gRPC health of lives" in why(live, "lives")
    sick(live, "ready").unlink()
    eventually(lambda: live.status("ready")["health"] == "healthy", "ready is healthy again", 60)
    after = live.status("ready")
    assert (after["pid"], after["restarts"]) == (before["ready"]["pid"], 0)
    health = [(event["from"], event["to"]) for event in live.events("ready") if event["kind"] == "health"]
    assert health == [("unknown", "healthy"), ("healthy", "unhealthy"), ("unhealthy", "healthy")]
    assert "NOT_SERVING" in why(live, "ready")
    calm.assert_untouched()
