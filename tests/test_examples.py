"""The examples: valid configurations, and services that do what they say, with and without a supervisor."""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.ports import free_port

EXAMPLES = Path(__file__).parent.parent / "examples"
SCRIPTS = sorted((EXAMPLES / "services").glob("*.py"))
FILES = sorted(EXAMPLES.glob("*.yaml"))
PROGRAMS = [script for script in SCRIPTS if script.name != "common.py"]
DEADLINE_SECONDS = 60.0


def test_there_are_examples() -> None:
    assert {"blackhole.yaml", "minimal.yaml"} <= {file.name for file in FILES}
    assert len(PROGRAMS) >= 5


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_example_is_a_valid_configuration(file: Path) -> None:
    script = "import sys; from blackhole_cg.cli.main import main; main(['check', '--config', sys.argv[1]])"
    command = [sys.executable, "-c", script, str(file)]
    checked = subprocess.run(command, cwd=EXAMPLES.parent, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_example_uses_every_script() -> None:
    services = yaml.safe_load((EXAMPLES / "blackhole.yaml").read_text(encoding="utf-8"))["services"]
    commands = {(EXAMPLES / service["command"][0]).resolve() for service in services.values()}
    assert commands == set(PROGRAMS)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_script_needs_only_the_standard_library(script: Path) -> None:
    tree = ast.parse(script.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert all(name.partition(".")[0] in {*sys.stdlib_module_names, "common"} for name in names)


@pytest.mark.parametrize("script", PROGRAMS, ids=lambda script: script.name)
def test_script_can_be_executed(script: Path) -> None:
    assert os.access(script, os.X_OK)
    assert script.read_text(encoding="utf-8").startswith("#!/usr/bin/env python3\n")


# ---- the shop, run by hand ----


def write_config(directory: Path, name: str, values: dict[str, Any]) -> str:
    path = directory / name
    path.write_text(json.dumps(values), encoding="utf-8")
    return str(path)


def arguments_of(name: str, *arguments: str) -> list[str]:
    return [sys.executable, str(EXAMPLES / "services" / f"{name}.py"), *arguments]


@contextmanager
def service(
    directory: Path, name: str, *arguments: str, **environment: str
) -> Iterator[subprocess.Popen[str]]:
    """One script as a process; stopped by SIGTERM at the end, which it must obey with exit code 0."""
    process = subprocess.Popen(
        arguments_of(name, *arguments),
        cwd=directory,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_SECONDS) == 0
    finally:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


def read_until(process: subprocess.Popen[str], text: str) -> None:
    """Reads lines until one has the text; fails at the end of the output."""
    assert process.stdout is not None
    assert any(text in line for line in process.stdout), f"never said {text!r}"


def ask(method: str, url: str, body: object = None) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(url, data, method=method), timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The address of a running API over a running store with a migrated database, and the store."""
    database = write_config(tmp_path, "database.json", {"database": "orders.db"})
    prices = write_config(tmp_path, "prices.json", {"prices_cents": {"apple": 40, "pear": 55, "plum": 25}})
    for said in (
        "schema was at version 0, is at 3",
        "schema was at version 3, is at 3",
    ):  # once more does no harm
        migrated = subprocess.run(
            arguments_of("migrate"),
            cwd=tmp_path,
            env={"BLACKHOLE_CONFIG": database},
            capture_output=True,
            text=True,
            check=True,
        )
        assert said in migrated.stdout
    ports = free_port(), free_port()
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    with (
        service(tmp_path, "store", BLACKHOLE_CONFIG=database, BLACKHOLE_PORT=str(ports[0])) as store,
        service(
            tmp_path, "api", BLACKHOLE_CONFIG=prices, BLACKHOLE_PORT=str(ports[1]), STORE_URL=urls[0]
        ) as api,
    ):
        read_until(store, "listening")
        read_until(api, "listening")
        yield urls[1], store


def test_orders_are_kept_and_shipped(shop: tuple[str, subprocess.Popen[str]]) -> None:
    url, _ = shop
    assert ask("POST", f"{url}/orders", {"item": "pear"}) == (200, {"id": 1})
    assert ask("POST", f"{url}/orders", {"item": "plum"}) == (200, {"id": 2})
    assert ask("POST", f"{url}/ship") == (200, {"shipped": 1, "item": "pear"})
    assert ask("GET", f"{url}/totals") == (200, {"orders": 2, "waiting": 1, "cents": 80})


def test_nonsense_is_refused(shop: tuple[str, subprocess.Popen[str]]) -> None:
    url, _ = shop
    assert ask("POST", f"{url}/orders", {"item": "durian"})[0] == 422
    assert ask("POST", f"{url}/orders", {"thing": "pear"})[0] == 400
    assert ask("POST", f"{url}/orders", [1])[0] == 400
    assert ask("GET", f"{url}/nowhere")[0] == 404
    assert ask("POST", f"{url}/ship") == (200, {"shipped": None})


def test_api_outlives_its_store(shop: tuple[str, subprocess.Popen[str]]) -> None:
    url, store = shop
    store.send_signal(signal.SIGTERM)
    assert store.wait(DEADLINE_SECONDS) == 0
    assert ask("GET", f"{url}/totals")[0] == 502


def test_worker_and_reporter_use_the_api(shop: tuple[str, subprocess.Popen[str]], tmp_path: Path) -> None:
    url, _ = shop
    with service(tmp_path, "worker", "--pause-seconds", "0.05", API_URL=url) as worker:
        read_until(worker, "shipped number")
    with service(tmp_path, "reporter", "--every-seconds", "0.1", API_URL=url) as reporter:
        read_until(reporter, "orders worth")


def test_flaky_stops_when_asked(tmp_path: Path) -> None:
    with service(tmp_path, "flaky") as flaky:
        read_until(flaky, "all is well")
        begin = time.monotonic()
    assert time.monotonic() - begin < DEADLINE_SECONDS


def test_flaky_crashes_by_exit_code_and_by_signal(tmp_path: Path) -> None:
    script = (
        "import random, resource, sys; sys.path.insert(0, sys.argv[1]); import flaky; "
        "resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); random.seed(int(sys.argv[2])); flaky.crash()"
    )
    codes = {
        subprocess.run(
            [sys.executable, "-c", script, str(EXAMPLES / "services"), str(seed)],
            cwd=tmp_path, capture_output=True, check=False,
        ).returncode
        for seed in range(12)
    }  # fmt: skip
    assert -signal.SIGSEGV in codes
    assert codes - {-signal.SIGSEGV} <= {1, 2, 70}
    assert len(codes) > 2
