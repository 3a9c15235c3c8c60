"""The control API as anyone with curl sees it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.control.fake_operations import Served, make_event, make_line

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with Served(tmp_path) as served:
        served.operations.lines = [make_line("one"), make_line("two", "stderr")]
        served.operations.stored = [make_event(1), make_event(2)]
        yield served


def curl(served: Served, *arguments: str) -> str:
    command = ["curl", "-sS", "--max-time", "20", "--unix-socket", str(served.socket_path), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout


PATHS = ("healthz", "v1/host", "v1/services", "v1/services/web", "v1/events", "v1/endpoints")


@pytest.mark.parametrize("path", PATHS)
def test_facts(served: Served, path: str) -> None:
    answer = curl(served, f"http://localhost/{path}")
    assert json.loads(answer)
    assert answer.endswith("\n")  # the prompt comes on a line of its own


@pytest.mark.parametrize("action", ["start", "stop", "restart", "reset"])
@pytest.mark.parametrize("names", ["web", "web,store", "*"])
def test_changes(served: Served, action: str, names: str) -> None:
    answer = curl(served, "-X", "POST", f"http://localhost/v1/services/{names}/{action}")
    assert {info["name"] for info in json.loads(answer)["services"]} >= {"web"}
    (call,) = served.operations.calls
    assert call == (action, () if names == "*" else tuple(names.split(",")))


def test_logs_and_events_as_streams(served: Served) -> None:
    logs = curl(served, "http://localhost/v1/services/web/logs?tail=2&since=5m&stream=stdout")
    assert [json.loads(line)["message"] for line in logs.splitlines()] == ["one", "two"]
    command = [
        "curl",
        "-sSN",
        "--unix-socket",
        str(served.socket_path),
        "http://localhost/v1/events?follow&after=1",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"id: 2\n"
        process.kill()


def test_errors(served: Served) -> None:
    answer = curl(served, "-w", "%{http_code}", "http://localhost/v1/services/nope")
    body, _, status = answer.rpartition("\n")
    assert json.loads(body)["error"]["kind"] == "unknown_service"
    assert status == "404"
