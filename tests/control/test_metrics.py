"""Metrics over HTTP: on the control socket, and on a loopback listener that answers nothing else."""

from __future__ import annotations

import http.client
import json
import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from blackhole_cg.control.client import ControlClient
from blackhole_cg.control.metrics import MetricsListener
from blackhole_cg.core.spec import TcpAddress
from blackhole_cg.observe.exposition import OPENMETRICS, TEXT
from tests.control.fake_operations import Served
from tests.control.test_api import ask


def free_address(host: str = "127.0.0.1") -> TcpAddress:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((host, 0))
        return TcpAddress(host, probe.getsockname()[1])


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with Served(tmp_path) as served:
        yield served


@pytest.fixture
def address(served: Served) -> Iterator[TcpAddress]:
    """Where the listener answers."""
    address = free_address()
    listener = MetricsListener(served.operations, address)
    served.call(listener.open)
    yield address
    served.call(listener.close)


def fetch(
    address: TcpAddress, method: str, path: str, headers: dict[str, str] | None = None
) -> tuple[int, str, bytes]:
    """Status, content type and body."""
    connection = http.client.HTTPConnection(address.host, address.port, timeout=30)
    try:
        connection.request(method, path, headers=headers or {})
        response = connection.getresponse()
        return response.status, response.headers.get("Content-Type", ""), response.read()
    finally:
        connection.close()


def test_the_control_socket_has_metrics_in_the_format_that_is_asked_for(served: Served) -> None:
    status, headers, body = ask(served, "GET", "/metrics")
    assert (status, headers["Content-Type"]) == (200, TEXT)
    assert "blackhole_processes" in [family.name for family in parse_text(body.decode())]
    status, headers, body = ask(served, "GET", "/metrics", Accept="application/openmetrics-text")
    assert (status, headers["Content-Type"], headers["Vary"]) == (200, OPENMETRICS, "Accept")
    assert "blackhole_processes" in [family.name for family in parse_openmetrics(body.decode())]
    assert ask(served, "HEAD", "/metrics")[0] == 200
    assert ask(served, "GET", "/metrics?colour=1")[0] == 400
    assert ask(served, "POST", "/metrics")[0] == 405


def test_the_client_reads_them_as_text(served: Served) -> None:
    text = ControlClient(served.runtime_dir).metrics()
    services = [
        sample.labels["service"]
        for family in parse_text(text)
        for sample in family.samples
        if sample.name == "blackhole_process_uptime_seconds"
    ]
    assert services == ["store", "web", "spare"]


def test_the_listener_answers_metrics_and_healthz(address: TcpAddress) -> None:
    status, content_type, body = fetch(address, "GET", "/metrics")
    assert (status, content_type) == (200, TEXT)
    assert b'blackhole_processes{state="running"} 3.0' in body
    assert fetch(address, "HEAD", "/metrics") == (200, TEXT, b"")
    assert fetch(address, "GET", "/healthz")[::2] == (200, b"ok\n")


def test_the_listener_answers_nothing_else(address: TcpAddress, served: Served) -> None:
    for method, path, status in (
        ("POST", "/metrics", 405),
        ("PUT", "/metrics", 405),
        ("DELETE", "/healthz", 405),
        ("GET", "/", 404),
        ("GET", "/v1/services", 404),
        ("POST", "/v1/services/web/stop", 404),
        ("POST", "/v1/reload", 404),
    ):
        assert fetch(address, method, path)[0] == status, (method, path)
    assert served.operations.calls == []


@pytest.mark.parametrize("host", ["localhost", "localhost:9464", "127.0.0.1", "127.0.0.1:9464", "[::1]:9464"])
def test_the_listener_answers_under_the_names_of_this_host(address: TcpAddress, host: str) -> None:
    assert fetch(address, "GET", "/metrics", {"Host": host})[0] == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:9464", "10.0.0.1", "localhost.evil.example", "["]
)
def test_a_page_that_renames_this_host_is_refused(address: TcpAddress, host: str) -> None:
    status, _, body = fetch(address, "GET", "/metrics", {"Host": host})
    assert status == 403
    assert b"blackhole_" not in body


def test_the_listener_says_that_the_supervisor_is_going(address: TcpAddress, served: Served) -> None:
    served.operations.stopping = True
    assert fetch(address, "GET", "/healthz")[0] == 503
    assert fetch(address, "GET", "/metrics")[0] == 200


def test_a_taken_address_is_told_and_the_rest_goes_on(
    address: TcpAddress, served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    second = MetricsListener(served.operations, address)
    with caplog.at_level(logging.ERROR):
        served.call(second.open)
    assert caplog.messages == [f"no metrics on {address}: cannot listen there: Address already in use"]
    served.call(second.close)
    assert json.loads(ask(served, "GET", "/healthz")[2]) == {"status": "ok"}


def test_without_an_address_nothing_listens(served: Served) -> None:
    listener = MetricsListener(served.operations, None)
    served.call(listener.open)
    served.call(listener.close)
    assert ask(served, "GET", "/metrics")[0] == 200


def test_a_closed_listener_gives_its_address_back(served: Served) -> None:
    address = free_address()
    for _ in range(2):
        listener = MetricsListener(served.operations, address)
        served.call(listener.open)
        assert fetch(address, "GET", "/metrics")[0] == 200
        served.call(listener.close)
    with pytest.raises(ConnectionRefusedError):
        fetch(address, "GET", "/metrics")


def test_ipv6_will_do(served: Served) -> None:
    try:
        address = free_address("::1")
    except OSError as error:
        pytest.skip(f"no IPv6 loopback here: {error}")
    listener = MetricsListener(served.operations, address)
    served.call(listener.open)
    assert str(address).startswith("[::1]:")
    assert fetch(address, "GET", "/metrics")[0] == 200
    served.call(listener.close)
