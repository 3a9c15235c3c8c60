"""Programs in the services directory, with the whole program: check, show, run, reload, and while running."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.configs import SLEEP, config
from tests.support.live import Live, alive
from tests.support.waiting import eventually

PROGRAM = '#!/bin/sh\necho "$@"; pwd\nexec sleep infinity\n'


def put(live: Live, name: str, text: str = PROGRAM) -> Path:
    """A program in the services directory, complete from the first moment on."""
    place = live.directory / "services" / name
    place.mkdir(parents=True, mode=0o755)
    beside = place / ".new"
    beside.write_text(text)
    beside.chmod(0o755)
    return beside.rename(place / name)


@pytest.fixture
def make(supervise: Callable[..., Live]) -> Callable[..., Live]:
    def made(services: dict[str, Any], **orchestrator: Any) -> Live:
        written = config(services, services_dir="services", **orchestrator)
        return supervise(written, start=False)

    return made


def check(live: Live, *options: str) -> str:
    return live.cli("check", "--config", str(live.config), *options).stdout


def test_check_counts_them_and_notes_what_is_refused(make: Callable[..., Live]) -> None:
    live = make({"web": SLEEP})
    put(live, "api")
    put(live, "web")  # is configured, and so not discovered
    (live.directory / "services" / "old").symlink_to("api")
    services = live.directory / "services"
    assert check(live).splitlines() == [
        f"{live.config}: ok, 2 services (1 discovered)",
        f"note: no service: {services}/old: it is a symbolic link",
    ]
    assert json.loads(check(live, "--json")) == {
        "ok": True,
        "services": ["web", "api"],
        "notes": [f"{services}/old: it is a symbolic link"],
    }
    shown = yaml.safe_load(live.cli("config", "show", "--config", str(live.config)).stdout)["services"]
    assert shown["api"]["binary_path"] == f"{services}/api/api"
    assert shown["api"]["data_dir"] == f"{services}/api/data"
    assert "binary_path" not in shown["web"] or shown["web"]["binary_path"] is None


def test_discover_false_finds_nothing(make: Callable[..., Live]) -> None:
    live = make({"web": SLEEP}, discover=False)
    put(live, "api")
    assert check(live) == f"{live.config}: ok, 1 service\n"


def test_a_program_runs_with_defaults_and_a_reload_looks_again(make: Callable[..., Live]) -> None:
    live = make({})
    put(live, "api")
    (live.directory / "services" / "old").symlink_to("api")
    live.start().ready()
    said = f"no service: {live.directory}/services/old: it is a symbolic link"
    assert live.text().count(said) == 1
    api = live.status("api")
    eventually(lambda: len(live.log_lines("api")) == 2, "it has said what it is", 30)
    assert [line["message"] for line in live.log_lines("api")] == [
        "--service api --log-level info",
        f"{live.directory}/services/api/data",
    ]
    put(live, "job")
    live.cli("reload")
    assert {name: info["state"] for name, info in live.services().items()} == dict.fromkeys(
        ("api", "job"), "running"
    )
    shutil.rmtree(live.directory / "services" / "job")
    live.cli("reload")
    assert list(live.services()) == ["api"]
    assert live.status("api")["pid"] == api["pid"]
    assert live.text().count(said) == 1  # it is known by now


def test_programs_come_and_go_while_running_and_the_file_is_left_alone(make: Callable[..., Live]) -> None:
    live = make({"web": SLEEP}, discover_interval="1s")
    live.start().ready()
    web = live.status("web")["pid"]
    live.config.write_text("services: {} # editing\n")
    put(live, "api")
    eventually(lambda: live.services().get("api", {}).get("state") == "running", "api runs", 60)
    pid = live.status("api")["pid"]
    shutil.rmtree(live.directory / "services" / "api")
    eventually(lambda: set(live.services()) == {"web"}, "api has gone", 60)
    assert not alive(pid)
    assert live.status("web")["pid"] == web


def test_another_program_than_the_one_that_was_meant_is_not_started(make: Callable[..., Live]) -> None:
    meant = hashlib.sha256(PROGRAM.encode()).hexdigest()
    live = make({"api": {"binary_sha256": meant.upper(), "data_dir": "data"}})
    path = put(live, "api")
    live.start().ready()
    eventually(lambda: len(live.log_lines("api")) == 2, "it runs, though it is a script", 30)
    live.cli("stop", "api")
    path.write_text(PROGRAM + "# changed\n")
    refused = live.cli("start", "api", check=False)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    said = f"verify the SHA-256 of {path}: it is {found}, and binary_sha256 is {meant}"
    assert (refused.returncode, said in refused.stderr) == (1, True), refused.stderr
    info = live.status("api")
    assert (info["state"], info["pid"]) == ("failed", None)
    assert said in info["last_error"]
    assert len(live.log_lines("api")) == 2
