"""Looking at hosts: trees with the files that a kernel and systemd show."""

from __future__ import annotations

import os

import pytest

from blackhole_cg.core.doctor import CAPABILITIES
from blackhole_cg.kernel.survey import limit_problems, survey
from tests.support.builders import service


@pytest.fixture
def host(tmp_path):
    """A host with systemd, seen from a shell of root's: its session's cgroup is nobody's to give."""
    files = {
        "proc/self/mountinfo": "30 1 0:26 / /cg rw - cgroup2 cgroup2 rw\n",
        "proc/self/cgroup": "0::/user.slice/session-1.scope\n",
        "proc/self/status": "CapEff:\t000001ffffffffff\n",
        "proc/cgroups": "",
        "proc/pressure/cpu": "some avg10=0.00\n",
        "proc/sys/kernel/random/boot_id": "b\n",
        "proc/sys/fs/pipe-max-size": "1048576\n",
        "cg/cgroup.controllers": "cpuset cpu io memory pids\n",
        "cg/cgroup.subtree_control": "cpuset cpu io memory pids\n",
        "cg/io.cost.qos": "8:0 enable=1 ctrl=auto\n",
        "cg/user.slice/session-1.scope/cgroup.controllers": "\n",
        "cg/user.slice/session-1.scope/cgroup.type": "domain\n",
        "cg/system.slice/cgroup.subtree_control": "memory pids\n",
        "sys/block/sda/device": "",
        "sys/block/sda/dev": "8:0\n",
        "sys/block/sda/queue/scheduler": "[none]\n",
        "run/dbus/system_bus_socket": "",
        "usr/lib/systemd/system/blackhole-cg.service": "",
        "bin/systemd-run": "#!/bin/sh\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    (tmp_path / "bin/systemd-run").chmod(0o755)
    return tmp_path


def look(host, root=None, **directories):
    return survey({"PATH": str(host / "bin")}, 0, root, directories, host)


def test_a_shell_is_judged_by_the_scope_that_run_will_be_given(host):
    found = look(host)
    assert found.scope_by == "systemd"
    assert found.facts.cgroup_problem is None
    assert set(found.facts.controllers.values()) == {None}
    assert found.io_weights == {"sda": "io.cost"}
    assert (found.pressure, found.pipe_bytes, found.unit) == (None, 1 << 20, True)
    assert found.missing_capabilities == ()


def test_without_systemd_nobody_gives_a_scope(host):
    (host / "bin/systemd-run").unlink()
    found = look(host)
    assert found.scope_by is None
    assert "is not delegated" in found.facts.cgroup_problem


def test_a_root_that_is_named_is_what_counts(host):
    found = look(host, root="/mine")
    assert found.scope_by is None
    assert found.facts.cgroup_root == str(host / "cg/mine")


def test_what_is_missing_is_seen(host):
    (host / "proc/pressure/cpu").unlink()
    (host / "proc/self/status").write_text("CapEff:\t0000000000000000\n")
    (host / "proc/sys/fs/pipe-max-size").unlink()
    found = look(host)
    assert "built without" in found.pressure
    assert (found.missing_capabilities, found.pipe_bytes) == (tuple(CAPABILITIES), 0)


def test_directories_are_judged_by_what_is_there_of_them(host):
    (host / "file").write_text("")
    wanted = {"new": host / "a/b", "bad": host / "file/c", "kernel": host.__class__("/proc/sys")}
    new, bad, _ = look(host, **wanted).directories
    assert new.problem is None and new.free_bytes > 0
    assert bad.problem == f"{host}/file is no directory"


def test_a_directory_of_somebody_else_is_told(host, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) != str(host / "theirs"))
    (host / "theirs").mkdir()
    (found,) = look(host, logs=host / "theirs/logs").directories
    assert found.problem == f"no permission to write in {host}/theirs"


def test_limits_are_tried_on_paper(host):
    found = look(host)
    assert limit_problems(found, [service("web")]) == []
    (host / "bin/systemd-run").unlink()
    problems = limit_problems(look(host), [service("web")])
    assert {problem.service for problem in problems} == {"web"}
