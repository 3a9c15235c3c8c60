"""Commands of exec probes, as real processes beside a real service."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from blackhole_cg.core.config.service_models import SERVICE_NAME_PATTERN
from blackhole_cg.core.facts import ExitStatus
from blackhole_cg.core.probe_spec import CommandResult
from blackhole_cg.core.words import Isolation
from blackhole_cg.errors import SpawnError
from blackhole_cg.kernel import probe_run
from blackhole_cg.kernel.host import HostOptions, LinuxHost
from blackhole_cg.kernel.probe_run import CGROUP_PREFIX, LIMITS, MAX_OUTPUT_BYTES
from blackhole_cg.kernel.run import LinuxRun
from tests.kernel.machine import (
    DEADLINE_SECONDS,
    Machine,
    Traces,
    eventually,
    in_time,
    is_alive,
    sleeper,
    stop,
)

LONG_SECONDS = DEADLINE_SECONDS
SHORT_SECONDS = 1.0
OK = ExitStatus(code=0)


@pytest.fixture
def unenclosed(tmp_path: Path) -> Iterator[Machine]:
    """A host that finds no place for cgroups."""
    (tmp_path / "run").mkdir()
    host = LinuxHost(HostOptions(tmp_path / "run", Isolation.BEST_EFFORT, "/"))
    host.open()
    yield Machine(host, tmp_path, None)
    host.close()


def shell(script: str) -> tuple[str, ...]:
    return ("/bin/sh", "-c", script)


def result_of(
    machine: Machine, script: str, timeout_seconds: float = LONG_SECONDS, **changes: object
) -> CommandResult:
    """Of a command of the service 'web', which need not run for that."""
    spec = machine.spec("sleep", "1000", name="web", **changes)

    async def scenario() -> CommandResult:
        return await machine.host.commands.run(spec, shell(script), timeout_seconds)

    made: CommandResult = in_time(scenario())
    return made


def probe_cgroups(machine: Machine) -> list[Path]:
    return sorted(machine.root.glob(f"{CGROUP_PREFIX}*")) if machine.root else []


def test_exit_codes_and_both_outputs(machine: Machine) -> None:
    assert result_of(machine, "echo out; echo err >&2") == CommandResult(OK, "out\nerr\n")
    before = Traces.take(machine.root)  # the watch over cgroups has its descriptor by now
    assert result_of(machine, "echo no > /dev/stdout; exit 7") == CommandResult(ExitStatus(code=7), "no\n")
    assert result_of(machine, "kill -SEGV $$").status == ExitStatus(signal=11)
    assert Traces.take(machine.root) == before


def test_it_is_who_and_where_the_service_is(machine: Machine) -> None:
    script = "id -u; pwd; echo $BLACKHOLE_SERVICE $BLACKHOLE_PROBE; echo again > /dev/stdout"
    found = result_of(machine, script, user="nobody")
    data_dir = machine.base / "data" / "web"
    assert found.output == f"65534\n{data_dir}\nweb {CGROUP_PREFIX}web-1\nagain\n"


def test_it_is_in_a_cgroup_of_its_own_beside_the_service(machine: Machine) -> None:
    spec = machine.spec("sleep", "1000", name="web")

    async def scenario() -> None:
        run = await machine.start(spec)
        command = shell("cat /proc/self/cgroup; sleep 0.1")
        asked = asyncio.create_task(machine.host.commands.run(spec, command, LONG_SECONDS))
        await eventually(lambda: probe_cgroups(machine), "the command has a cgroup")
        assert run.usage().pids == 1
        lines = (await asked).output.splitlines()
        assert f"0::/{machine.root.name}/{CGROUP_PREFIX}web-1" in lines  # type: ignore[union-attr]
        assert probe_cgroups(machine) == []
        assert is_alive(run.pid)
        await machine.end(run)

    in_time(scenario())


@pytest.mark.parametrize("hides", ["", "setsid "])
def test_past_its_time_all_of_it_is_killed(machine: Machine, hides: str) -> None:
    script = f"{hides}sleep 1000 & echo $!; trap '' TERM; sleep 1000"
    found = result_of(machine, script, SHORT_SECONDS)
    assert found.status is None
    assert not is_alive(int(found.output))
    assert probe_cgroups(machine) == []


def test_what_it_leaves_behind_is_killed(machine: Machine) -> None:
    found = result_of(machine, "setsid sleep 1000 >/dev/null 2>&1 & echo $!")
    assert found.status == OK
    assert not is_alive(int(found.output))
    assert probe_cgroups(machine) == []


def test_a_leftover_that_holds_the_pipe_delays_nothing(machine: Machine) -> None:
    began = time.monotonic()
    assert result_of(machine, "sleep 1000 & echo done").output == "done\n"
    assert time.monotonic() - began < LONG_SECONDS / 2


def test_output_is_read_on_but_only_its_beginning_is_kept(machine: Machine) -> None:
    found = result_of(machine, "head -c 1000000 /dev/zero | tr '\\0' x; exit 3")
    assert found == CommandResult(ExitStatus(code=3), "x" * MAX_OUTPUT_BYTES)
    flood = result_of(machine, "exec yes", SHORT_SECONDS)
    assert flood.status is None
    assert flood.output == "y\n" * (MAX_OUTPUT_BYTES // 2)


def test_one_that_closes_its_output_is_waited_for(machine: Machine) -> None:
    assert result_of(machine, "exec >&- 2>&-; sleep 0.3; exit 4").status == ExitStatus(code=4)


def test_what_cannot_be_started_is_said_and_leaves_nothing(machine: Machine) -> None:
    before = Traces.take(machine.root)
    for argv, user, cause in (
        (("/nonexistent/ask",), None, "execute /nonexistent/ask: No such file or directory"),
        (("no-such-program",), None, "find 'no-such-program': no such program on its PATH (/usr/bin:/bin)"),
        (("true",), "nosuchuser", "find user 'nosuchuser': no such user"),
    ):
        spec = machine.spec("sleep", "1000", name="web", user=user)
        (machine.base / "data/web").mkdir(parents=True, exist_ok=True)
        with pytest.raises(SpawnError) as caught:
            in_time(_run(machine, spec, argv))
        assert caught.value.cause == cause
    assert Traces.take(machine.root) == before


async def _run(machine: Machine, spec: object, argv: tuple[str, ...]) -> CommandResult:
    return await machine.host.commands.run(spec, argv, LONG_SECONDS)  # type: ignore[arg-type]


def test_the_file_that_is_handed_to_the_service_stays(machine: Machine) -> None:
    path = machine.base / "run" / "config" / "web.json"
    path.parent.mkdir()
    path.write_text("{}")
    assert result_of(machine, "true", handed_config="{}", config_path=str(path)).status == OK
    assert path.read_text() == "{}"


def test_cancelled_means_killed(machine: Machine) -> None:
    result_of(machine, "true")
    before = Traces.take(machine.root)
    spec = machine.spec("sleep", "1000", name="web")

    async def scenario() -> None:
        commands = machine.host.commands
        asked = asyncio.create_task(commands.run(spec, ("sleep", "1000"), LONG_SECONDS))
        await eventually(lambda: probe_cgroups(machine), "the command has a cgroup")
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        await commands.close()
        assert probe_cgroups(machine) == []

    in_time(scenario())
    assert Traces.take(machine.root) == before


def test_close_kills_all(machine: Machine) -> None:
    spec = machine.spec("sleep", "1000", name="web")

    async def scenario() -> None:
        commands = machine.host.commands
        await commands.close()
        command = shell("echo > here-$$; exec sleep 1000")
        asked = [asyncio.create_task(commands.run(spec, command, 10 * LONG_SECONDS)) for _ in range(3)]
        here = machine.base / "data" / "web"
        await eventually(lambda: len(list(here.glob("here-*"))) == 3, "all three run")
        assert len(probe_cgroups(machine)) == 3
        await commands.close()
        assert probe_cgroups(machine) == []
        for task in asked:
            assert (await task).status == ExitStatus(signal=9)

    in_time(scenario())


def test_what_an_earlier_supervisor_left_is_cleared_away(machine: Machine) -> None:
    assert machine.root is not None
    for name in (f"{CGROUP_PREFIX}web-1", f"{CGROUP_PREFIX}web-2", "web"):
        (machine.root / name).mkdir()
    left = sleeper(machine.root / f"{CGROUP_PREFIX}web-1/cgroup.procs")
    service = sleeper(machine.root / "web/cgroup.procs")
    try:
        in_time(machine.host.commands.clear())
        assert probe_cgroups(machine) == []
        assert left.wait() == -9
        assert is_alive(service.pid)
    finally:
        stop(left)
        stop(service)
        in_time(machine.host.clear("web"))


def test_one_that_withstands_being_killed_is_not_followed_by_another(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = machine.spec("sleep", "1000", name="web")
    emptied = LinuxRun.emptied

    async def scenario() -> None:
        released = asyncio.Event()

        async def withstand(run: LinuxRun) -> None:
            await released.wait()
            await emptied(run)

        monkeypatch.setattr(LinuxRun, "emptied", withstand)
        monkeypatch.setattr(probe_run, "END_SECONDS", 0.01)
        commands = machine.host.commands
        assert (await commands.run(spec, ("sleep", "1000"), 0.1)).status is None
        with pytest.raises(SpawnError, match="the last one was killed and is still there"):
            await commands.run(spec, ("sleep", "1000"), 0.1)
        assert (await commands.run(spec, ("true",), LONG_SECONDS)).status == OK  # another may be
        released.set()
        await commands.close()
        assert (await commands.run(spec, ("sleep", "1000"), 0.1)).status is None
        await commands.close()

    in_time(scenario())


def test_without_cgroups_the_service_and_its_command_are_told_apart(unenclosed: Machine) -> None:
    """A time limit must not kill what the service itself forked after the command began."""
    ready = unenclosed.base / "ready"
    spec = unenclosed.sh(f"until [ -e {ready} ]; do sleep 0.05; done; sleep 1000 & wait", name="web")

    async def scenario() -> None:
        run = await unenclosed.start(spec)
        commands = unenclosed.host.commands
        found = await commands.run(spec, shell(f"touch {ready}; sleep 1000 & echo $!; wait"), SHORT_SECONDS)
        assert found.status is None
        assert not is_alive(int(found.output))
        assert is_alive(run.pid)
        assert run.usage().pids == 2
        await unenclosed.end(run)

    in_time(scenario())


@pytest.mark.needs_kernel
def test_its_limits_are_in_force_and_its_own(machine: Machine) -> None:
    spec = machine.spec("sleep", "1000", name="web")
    read = "; ".join(f"cat $here/{file}" for file in ("memory.max", "memory.swap.max", "pids.max", "cpu.max"))
    here = "here=/sys/fs/cgroup$(sed -n s/^0:://p /proc/self/cgroup); "

    async def scenario() -> None:
        run = await machine.start(spec)
        assert machine.root is not None
        commands = machine.host.commands
        found = await commands.run(spec, shell(here + read), LONG_SECONDS)
        assert found.output == f"{LIMITS.memory_max_bytes}\n0\n64\n100000 100000\n"
        hog = await commands.run(spec, (sys.executable, "-c", "x = b'x' * (300 << 20)"), LONG_SECONDS)
        assert hog.status is not None and hog.status.oom_killed
        assert "oom_kill 0\n" in (machine.root / "web/memory.events").read_text()
        assert is_alive(run.pid)
        await machine.end(run)

    in_time(scenario())


def test_its_cgroup_has_no_service_s_name() -> None:
    assert re.fullmatch(SERVICE_NAME_PATTERN, f"{CGROUP_PREFIX}web-1") is None
