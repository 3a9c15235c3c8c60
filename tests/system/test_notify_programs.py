"""Debian's own programs as services of type notify: redis, PostgreSQL, systemd-notify."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.configs import SLEEP, config, shell
from tests.support.live import Live, state_times

pytestmark = [pytest.mark.needs_kernel, pytest.mark.any_kernel, pytest.mark.timeout(600)]


def postgres_programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    missing = [name for name in ("redis-server", "systemd-notify") if shutil.which(name) is None]
    if missing or not found:
        pytest.skip(f"not installed: {', '.join(missing) or 'postgresql'}")
    return found[-1]


def stack(programs: Path) -> dict[str, Any]:
    """Both servers say when they can be used; what needs them starts then."""
    postgres = {"user": "postgres", "data_dir": "database", "tcp_port": 15432}
    settings = "-c listen_addresses=127.0.0.1 -c unix_socket_directories="
    redis = "--bind 127.0.0.1 --dir {data_dir} --save '' --supervised systemd"
    say = "systemd-notify --ready --status='said by systemd-notify'; exec sleep infinity"
    return {
        "initdb": {
            "user": "postgres",
            "data_dir": "database",
            "type": "oneshot",
            "command": f"{programs}/initdb -D cluster -A trust --no-sync --locale=C.UTF-8 -E UTF8",
            "resources": {"cpu_percent": 200},
        },
        "database": {
            **postgres,
            "type": "notify",
            "command": f"{programs}/postgres -D cluster -p {{tcp_port}} {settings}",
            "depends_on": {"initdb": {"condition": "completed"}},
            "stop": {"signal": "INT", "timeout": "60s"},
            "resources": {"cpu_percent": 200},
        },
        "cache": {
            "user": "redis",
            "type": "notify",
            "data_dir": "cache",
            "tcp_port": 16379,
            "command": f"redis-server --port {{tcp_port}} {redis}",
            "resources": {"cpu_percent": 200},
        },
        "script": shell(say, type="notify", data_dir="script", resources={"cpu_percent": 200}),
        "web": {**SLEEP, "depends_on": {name: {"condition": "healthy"} for name in ("database", "cache")}},
    }


@pytest.fixture
def live() -> Iterator[Live]:
    programs = postgres_programs()
    with tempfile.TemporaryDirectory(prefix="bh-test-") as name:
        directory = Path(name)
        directory.chmod(0o755)  # every user must reach its data_dir and its notify socket
        live = Live(directory, config(stack(programs), isolation="required"))
        try:
            yield live.start().ready()
        finally:
            live.close()


def test_real_programs_are_up_when_they_say_so_and_say_what_they_do(live):
    for name in ("database", "cache", "script"):
        running = [each for each in live.events(name) if each["to"] == "running"]
        assert [(each["from"], "is ready" in each["detail"]) for each in running] == [("starting", True)]
    begun = state_times(live.events("web"), "starting")[0]
    assert all(state_times(live.events(name), "running")[0] <= begun for name in ("database", "cache"))
    assert "Ready to accept connections" in live.status("cache")["status_text"]
    assert live.status("script")["status_text"] == "said by systemd-notify"
    said = [line["message"] for line in live.log_lines("database")]
    assert any("ready to accept connections" in line for line in said)

    pid = live.status("cache")["pid"]
    live.cli("restart", "cache")
    assert live.status("cache")["pid"] != pid
    live.cli("stop", "--all")
    for name in ("database", "cache"):
        assert live.status(name)["last_exit"]["code"] == 0
    assert live.interrupt() == 0
    assert live.leftovers() == []
