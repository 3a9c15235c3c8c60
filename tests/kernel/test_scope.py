"""Runs without cgroups: what stands in for one where the host offers none."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from blackhole_cg.core.facts import ExitStatus
from blackhole_cg.core.spec import ResourceLimits
from blackhole_cg.core.words import Isolation, Stream
from blackhole_cg.errors import KernelError
from blackhole_cg.kernel.host import HostOptions, LinuxHost
from blackhole_cg.kernel.scope import ProcessScope, parse_stat
from tests.kernel.machine import LIMITS, Machine, Traces, eventually, in_time, is_alive, read_all
from tests.kernel.test_stop import DAEMON, GRANDCHILD

WHY = "the cgroup v2 mount point itself cannot be the cgroup root"


@pytest.fixture
def scoped(tmp_path: Path) -> Iterator[Machine]:
    """A host that finds no place for cgroups."""
    (tmp_path / "run").mkdir()
    host = LinuxHost(HostOptions(tmp_path / "run", Isolation.BEST_EFFORT, "/"))
    if host.facts.cgroup_mount is None:
        pytest.skip("no cgroup v2 mount, so the reason reads differently")
    host.open()
    yield Machine(host, tmp_path, None)
    host.close()


def test_limits_are_told_as_not_enforced_and_rlimits_work(scoped: Machine) -> None:
    limits = replace(LIMITS, rlimits={"nofile": 99})
    spec = scoped.sh("ulimit -n; exec sleep 1000", limits=limits, name="web")
    assert next(map(str, scoped.host.problems(spec))) == f"web: no cgroup can be made: {WHY}"
    assert f"web: pids_max 50: {WHY}" in list(map(str, scoped.host.problems(spec)))

    async def scenario() -> None:
        run = await scoped.start(spec)
        assert run.cgroup is None
        assert run.limits["nofile"].enforced and run.limits["nofile"].effective == 99
        for name in ("cpu_max", "memory_max", "pids_max"):
            state = run.limits[name]
            assert (state.enforced, state.effective, state.reason) == (False, None, WHY)
        await eventually(lambda: (run.usage().memory_bytes or 0) > 50_000, "memory is counted")
        assert run.usage().pids == 1
        assert run.populated()
        assert await scoped.end(run) == ExitStatus(signal=signal.SIGKILL)
        assert not run.populated()

    in_time(scenario())


def test_required_isolation_needs_a_cgroup(tmp_path: Path) -> None:
    host = LinuxHost(HostOptions(tmp_path, Isolation.REQUIRED, "/"))
    machine = Machine(host, tmp_path, None)
    spec = machine.spec("true", name="web")
    assert list(map(str, host.problems(spec))) == [f"web: no cgroup can be made: {host.facts.cgroup_problem}"]
    host.open()
    text = in_time(machine.failure(spec))
    assert text == f"cannot start 'web': create its cgroup: {host.facts.cgroup_problem}"
    host.close()


@pytest.mark.parametrize("script", [GRANDCHILD, "sleep 1000 & echo $!; wait"])
def test_children_and_grandchildren_in_other_sessions_die(scoped: Machine, script: str) -> None:
    async def scenario() -> None:
        spec = scoped.sh(script)
        streams = scoped.host.open_streams(spec)
        run = await scoped.start(spec)
        child = int(await eventually(lambda: read_all(streams[Stream.STDOUT]), "the pid"))
        assert run.populated()
        run.kill()
        await run.emptied()
        assert not is_alive(child)
        scoped.host.reap_strangers()
        await run.close()
        for descriptor in streams.values():
            os.close(descriptor)

    in_time(scenario())


def test_a_daemon_is_known_by_its_environment(scoped: Machine) -> None:
    """It left session, group and parents; the environment that it began with is what remains."""
    assert scoped.host.subreaper

    async def scenario() -> None:
        spec = scoped.spec(sys.executable, "-ISuc", DAEMON)
        streams = scoped.host.open_streams(spec)
        run = await scoped.start(spec)
        daemon = int(await eventually(lambda: read_all(streams[Stream.STDOUT]), "the pid"))
        await run.exited()
        assert run.populated()
        with pytest.raises(KernelError, match="Device or resource busy"):
            await run.close()
        run.signal_rest(signal.SIGTERM)  # ignored
        assert run.populated()
        run.kill()
        await run.emptied()
        assert not is_alive(daemon)
        scoped.host.reap_strangers()
        await run.close()
        for descriptor in streams.values():
            os.close(descriptor)

    in_time(scenario())


def test_a_failed_start_leaves_nothing(scoped: Machine) -> None:
    spec = scoped.spec("/nonexistent", limits=ResourceLimits(rlimits={"core": 0}))
    in_time(scoped.failure(spec))
    before = Traces.take(None)
    assert in_time(scoped.failure(spec)).endswith("execute /nonexistent: No such file or directory")
    assert Traces.take(None) == before


def test_processes_of_others_are_never_touched() -> None:
    """Neither one of another service, nor one that has our number's group only because the number is new."""
    bystander = subprocess.Popen(
        ["/bin/sleep", "1000"], env={"BLACKHOLE_SERVICE": "web", "BLACKHOLE_DATA_DIR": "/b"}
    )
    main = subprocess.Popen(
        ["/bin/sleep", "1000"],
        env={"BLACKHOLE_SERVICE": "web", "BLACKHOLE_DATA_DIR": "/a"},
        start_new_session=True,
    )
    scope = ProcessScope(main.pid, {"BLACKHOLE_SERVICE": "web", "BLACKHOLE_DATA_DIR": "/a", "PATH": "/bin"})
    scope.kill()
    main.wait()
    assert not scope.populated()
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()


def test_a_reused_number_is_not_the_old_process(tmp_path: Path) -> None:
    """As /proc shows it when the pid has gone to somebody else who leads a session of that number."""

    def write(pid: int, started: int, session: int, environ: bytes = b"") -> None:
        (tmp_path / str(pid)).mkdir(exist_ok=True)
        middle = " ".join(["0"] * 15)
        text = f"{pid} (a) b) S 1 {session} {session} {middle} {started} 0"
        (tmp_path / f"{pid}/stat").write_text(text)
        (tmp_path / f"{pid}/environ").write_bytes(environ)

    write(50, 1000, 50)
    scope = ProcessScope(50, {"BLACKHOLE_SERVICE": "web"}, tmp_path)
    write(51, 1001, 50)
    assert scope.usage().pids == 2
    write(50, 2000, 50)
    write(52, 2001, 50)
    write(53, 2002, 53, b"BLACKHOLE_SERVICE=web\0X=1\0")
    write(54, 900, 54, b"BLACKHOLE_SERVICE=web\0")  # older than the run
    write(55, 2003, 55, b"BLACKHOLE_SERVICE=webshop\0")
    assert {member.pid for member in scope._members()} == {51, 53}


def test_stat_fields_are_counted_from_the_last_parenthesis() -> None:
    text = (
        "9 (we) ird (x) R 8 7 6 0 -1 4194560 1 2 3 4 10 20 30 40 20 0 1 0 555 1000 2 "
        "18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0"
    )
    stat = parse_stat(text)
    assert (stat.pid, stat.state, stat.parent, stat.group, stat.session) == (9, "R", 8, 7, 6)
    assert (stat.started_ticks, stat.cpu_ticks) == (555, 100)
