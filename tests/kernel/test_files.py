"""Reading configuration files on this host, and what only the host can say about them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from blackhole_cg.core.config import Context
from blackhole_cg.errors import ConfigError
from blackhole_cg.kernel import files
from blackhole_cg.kernel.asked import host_context


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return tmp_path


def lines(text: str | bytes, environ: dict[str, str] | None = None) -> list[str]:
    """What is said about a main file of this text; none when nothing is wrong."""
    Path("blackhole.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    return lines_of_file("blackhole.yaml", environ)


def lines_of_file(path: str, environ: dict[str, str] | None = None) -> list[str]:
    try:
        files.load(path, environ or {}, Context(str(Path.cwd()), "/run/bh", str(Path.cwd() / "data")))
    except ConfigError as error:
        return str(error).splitlines()
    return []


def test_a_sound_configuration_loads(directory: Path) -> None:
    text = "include: conf.d/*.yaml\nservices: {web: {command: ./program}, sh: {command: sh -c true}}\n"
    (directory / "conf.d").mkdir()
    (directory / "conf.d" / "b.yaml").write_text("services: {b: {command: ../program}}\n")
    (directory / "conf.d" / "a.yaml").write_text("services: {a: {command: ../program, env_file: a.env}}\n")
    (directory / "conf.d" / "a.env").write_text("A=1\n")
    Path("blackhole.yaml").write_text(text)
    context = host_context("/run/bh", os.environ)
    loaded, spec = files.load("blackhole.yaml", {}, context)
    assert list(spec.services) == ["web", "sh", "a", "b"]
    assert spec.services["web"].argv == (str(directory / "program"),)
    assert spec.services["a"].environment["A"] == "1"
    assert loaded.sources == ("blackhole.yaml", "conf.d/a.yaml", "conf.d/b.yaml")


def test_a_program_that_cannot_be_executed_is_found_before_it_is_needed(directory: Path) -> None:
    (directory / "data.txt").write_text("x")
    text = """\
runtime: {orchestrator: {services_dir: bins}}
services:
  a: {command: [./missing, x]}
  b: {command: no-such-program-here}
  c: {binary_path: data.txt}
  d: {command: ./}
  e:
  f: {command: program, environment: {PATH: HERE}}
  g: {command: ./missing, enabled: false}
  h: {command: data.txt, environment: {PATH: "/nowhere:HERE"}}
  i: {command: /dev/null}
""".replace("HERE", str(directory))
    here = str(directory)
    accepted = "(accepted: an executable file)"
    assert lines(text) == [
        f"blackhole.yaml:3:16: services.a.command: '{here}/missing' does not exist {accepted}",
        "blackhole.yaml:4:16: services.b.command: 'no-such-program-here' is not on the PATH of the service "
        + accepted,
        f"blackhole.yaml:5:20: services.c.binary_path: '{here}/data.txt' is not executable {accepted}",
        f"blackhole.yaml:6:16: services.d.command: '{here}/' is a directory {accepted}",
        f"blackhole.yaml:7:3: services.e.binary_path: '{here}/bins/e/e' does not exist {accepted}",
        f"blackhole.yaml:10:16: services.h.command: 'data.txt' is not executable {accepted}",
        f"blackhole.yaml:11:16: services.i.command: '/dev/null' is not a file {accepted}",
    ]


def test_what_the_host_says_comes_together_with_everything_else(directory: Path) -> None:
    text = """\
control: {group: no-such-group}
services:
  web: {command: ./missing, user: no-such-user, typo: 1, stop: {timeout: soon}}
  api: {command: [], group: no-such-group}
"""
    found = lines(text)
    assert [line.split(": ")[1] for line in found] == [
        "control.group",
        "services.web.command",
        "services.web.user",
        "services.web.typo",
        "services.web.stop.timeout",
        "services.api.command",
        "services.api.group",
    ]
    assert found[2].endswith("there is no user 'no-such-user' on this host")


def test_a_number_without_an_account_needs_a_group(directory: Path) -> None:
    assert lines("services: {web: {command: ./program, user: 54321}}\n") == [
        "blackhole.yaml:1:44: services.web.user: this number has no account, so its group is not known "
        "(set group too)"
    ]
    assert lines("services: {web: {command: ./program, user: 54321, group: 54321}}\n") == []


def test_a_data_dir_that_is_a_file_and_a_socket_path_that_is_too_long(directory: Path) -> None:
    path = "/tmp/" + "x" * 110
    text = f"services: {{web: {{command: ./program, data_dir: program, unix_socket: {path}}}}}\n"
    assert [line.split(": ", 1)[1] for line in lines(text)] == [
        f"services.web.data_dir: '{directory}/program' exists and is not a directory",
        "services.web.unix_socket: the path has 115 bytes (accepted: up to 107)",
    ]


def test_a_secret_is_not_shown(directory: Path) -> None:
    text = "services: {web: {command: './${S}', user: '${S}', data_dir: './${S}', group: '${S}'}}\n"
    found = lines(text, {"S": "hunter2"})
    assert len(found) == 3
    assert not any("hunter2" in line for line in found)


def test_what_is_not_a_file_is_named(directory: Path) -> None:
    os.mkfifo("fifo")
    Path("folder").mkdir()
    assert lines_of_file("folder") == ["folder: cannot read: it is a directory, not a file"]
    assert lines_of_file("fifo") == ["fifo: cannot read: it is a FIFO, not a file"]
    assert lines_of_file("/dev/zero") == ["/dev/zero: cannot read: it is a device, not a file"]
    assert lines_of_file("gone") == ["gone: cannot read: No such file or directory"]
    assert lines_of_file("a\0b") == ["a\0b: cannot read: embedded null byte"]


def test_a_file_that_may_not_be_read(directory: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    Path("secret.yaml").touch(0o000)
    assert lines_of_file("secret.yaml") == ["secret.yaml: cannot read: Permission denied"]


def test_ten_megabytes_of_nesting_are_refused_at_once(directory: Path) -> None:
    assert lines(b"[" * 10_000_000) == [
        "blackhole.yaml: cannot read: it is too large: 9.5M (accepted: up to 2M)"
    ]
    assert lines(b"[" * 1_000_000) == [
        "blackhole.yaml:1:65: is nested too deeply (accepted: up to 64 levels)"
    ]


def test_reading_leaves_no_descriptor_open(directory: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for path in ("program", ".", "gone", "/dev/zero"):
        lines_of_file(path)
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_context_of_this_process(directory: Path) -> None:
    context = host_context("run", {"XDG_DATA_HOME": "/xdg"})
    assert context.working_dir == str(directory)
    assert context.runtime_dir == str(directory / "run")
    assert context.data_root == ("/var/lib/blackhole" if os.geteuid() == 0 else "/xdg/blackhole")
