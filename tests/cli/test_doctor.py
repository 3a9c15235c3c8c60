"""`doctor` as a user has it, on whatever host this is."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import Cli
from tests.control.fake_operations import Served

CONFIG = "services: {web: {command: [/bin/true], resources: {memory_mb: 64}}}\n"


def findings(cli: Cli, *arguments: str) -> tuple[int, dict[str, dict[str, str]]]:
    done = cli("doctor", "--json", *arguments)
    report = json.loads(done.stdout)
    assert report["ok"] == (done.returncode == 0)
    return done.returncode, {each["topic"]: each for each in report["findings"]}


def test_it_looks_at_everything_and_the_exit_code_says_whether_there_is_a_problem(cli: Cli) -> None:
    code, found = findings(cli)
    assert {"kernel", "cgroup v2", "cpu", "memory", "io", "pids", "user", "state", "supervisor"} <= set(found)
    assert code == int(any(each["verdict"] == "problem" for each in found.values()))
    assert found["supervisor"]["text"].startswith("none answers")


def test_a_supervisor_that_answers_is_named(cli: Cli, served: Served) -> None:
    assert str(served.runtime_dir) in findings(cli)[1]["supervisor"]["text"]


def test_the_table_has_every_finding_and_the_count(cli: Cli) -> None:
    done = cli("doctor")
    lines = done.stdout.decode().splitlines()
    assert lines[0].split() == ["ABOUT", "FOUND"]
    assert lines[-1] == "no problems" if done.returncode == 0 else lines[-1].endswith(("problem", "problems"))


def test_a_root_where_nothing_can_be_made_is_a_problem(cli: Cli) -> None:
    code, found = findings(cli, "--cgroup-root", "/")
    assert code == 1
    assert found["cgroup v2"]["verdict"] == "problem"
    assert "cgroup" in found["cgroup v2"]["text"]


def test_limits_of_a_configuration(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "blackhole.yaml"
    path.write_text(CONFIG)
    orchestrator = "runtime: {orchestrator: {isolation: required}}\n"
    _, found = findings(cli, "--config", str(path), "--cgroup-root", "/")
    note = found["configuration"]["verdict"]
    path.write_text(orchestrator + CONFIG)
    _, found = findings(cli, "--config", str(path), "--cgroup-root", "/")
    assert found["configuration"]["verdict"] == "problem"
    assert note in {"note", "problem"}


def test_a_wrong_configuration_is_an_error_like_everywhere(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "blackhole.yaml"
    path.write_text("services: {web: {comand: x}}\n")
    done = cli("doctor", "--config", str(path))
    assert (done.returncode, done.stdout) == (78, b"")
    assert b"blackhole.yaml:1:" in done.stderr
