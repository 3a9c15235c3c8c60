"""Metrics of a real supervisor: fetched as Prometheus does, while services run, crash and are reset."""

from __future__ import annotations

import http.client
import time
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.control.test_metrics import free_address
from tests.support.configs import SLEEP, config, shell
from tests.support.footprint import memory_kib
from tests.support.live import Live
from tests.support.waiting import eventually

Values = dict[tuple[str, ...], float]  # name, service and other labels' values


def parse(text: str) -> Values:
    return {
        (
            sample.name,
            *(sample.labels[name] for name in sorted(sample.labels, key=lambda n: n != "service")),
        ): (sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def scrape(live: Live) -> Values:
    return parse(live.cli("metrics").stdout)


def threads_of(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def test_the_listener_and_the_command_tell_of_what_runs(supervise):
    address = free_address()
    live = supervise(
        config(
            {"web": {**SLEEP, "monitor": {"interval": "1s"}}, "idle": {**SLEEP, "enabled": False}},
            metrics={"listen": str(address)},
        )
    )
    known = "blackhole_process_cpu_percent", "web"
    values = eventually(
        lambda: (found := scrape(live)) and known in found and found, "web was sampled twice", 30
    )
    assert values["blackhole_processes", "running"] == 1
    assert values["blackhole_process_state", "web", "running"] == 1
    assert values["blackhole_process_uptime_seconds", "web"] > 0
    assert values["blackhole_process_memory_bytes", "web"] > 4096
    assert values["blackhole_process_restarts_total", "idle"] == 0
    assert ("blackhole_process_memory_bytes", "idle") not in values

    connection = http.client.HTTPConnection(address.host, address.port, timeout=30)
    connection.request("GET", "/metrics")
    response = connection.getresponse()
    fetched = parse(response.read().decode())
    connection.close()
    assert response.status == 200
    assert fetched.keys() >= values.keys()
    assert threads_of(live.pid) == 1
    assert live.interrupt() == 0


def test_restarts_are_never_taken_back(supervise):
    live = supervise(
        config({"flaky": shell("sleep 0.2; exit 3", restart={"max_restarts": 2, "initial_delay": "0s"})})
    )
    live.until("flaky", "failed")
    live.cli("reset", "flaky")
    assert live.status("flaky")["restarts"] == 0
    values = scrape(live)
    assert values["blackhole_process_restarts_total", "flaky"] == 2
    assert values["blackhole_process_exits_total", "flaky", "exited"] == 3
    live.cli("start", "flaky")
    live.until("flaky", "failed")
    assert scrape(live)["blackhole_process_restarts_total", "flaky"] == 4


def test_a_reload_does_not_move_the_listener(supervise):
    address, other = free_address(), free_address()
    live = supervise(config({"web": SLEEP}, metrics={"listen": str(address)}))
    live.config.write_text(live.config.read_text().replace(str(address), str(other)))
    assert (
        "metrics.listen will change when the supervisor itself is started again" in live.cli("reload").stdout
    )
    connection = http.client.HTTPConnection(address.host, address.port, timeout=30)
    connection.request("GET", "/healthz")
    assert connection.getresponse().status == 200
    connection.close()


def test_two_hundred_services_are_told_in_a_moment_and_leave_no_memory_behind(supervise):
    services = {f"service-{number:03}": {**SLEEP, "data_dir": "data"} for number in range(200)}
    live = supervise(config(services, max_processes=200))
    scrape(live)
    before = memory_kib(live)
    began = time.monotonic()
    for _ in range(3):
        assert len([key for key in scrape(live) if key[0] == "blackhole_process_uptime_seconds"]) == 200
    assert time.monotonic() - began < 60
    assert memory_kib(live) - before < 20 * 1024
