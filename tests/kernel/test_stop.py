"""The end of a run: signals, kills, escapes, and that nothing is left of it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from blackhole_cg.core.facts import ExitStatus
from blackhole_cg.core.words import Stream
from blackhole_cg.errors import CgroupError
from blackhole_cg.kernel.exit_status import pidfd_keeps_exit_status
from blackhole_cg.kernel.run import LinuxRun
from tests.kernel.machine import Machine, Traces, eventually, in_time, is_alive, open_machine, read_all

# Each prints the pid of the process that tries to escape.
GRANDCHILD = "setsid sh -c 'echo $$; exec sleep 1000' & wait"
DAEMON = """
import os, signal, sys, time
for _ in range(2):
    if os.fork():
        os._exit(0)
    os.setsid()
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
os.environ.clear()
os.write(1, f"{os.getpid()}\\n".encode())
time.sleep(1000)
"""


async def start_and_read_pid(machine: Machine, spec_argv: tuple[str, ...]) -> tuple[LinuxRun, int, list[int]]:
    spec = machine.spec(*spec_argv)
    streams = machine.host.open_streams(spec)
    run = await machine.start(spec)
    text = await eventually(lambda: read_all(streams[Stream.STDOUT]), "the pid")
    return run, int(text), list(streams.values())


def close_all(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def test_exit_codes_and_signals_are_told_apart(machine: Machine) -> None:
    for script, expected in (
        ("exit 0", ExitStatus(code=0)),
        ("exit 41", ExitStatus(code=41)),
        ("kill -9 $$", ExitStatus(signal=9)),
        ("kill -TERM $$", ExitStatus(signal=15)),
    ):
        status, _ = in_time(machine.output(machine.sh(script)))
        assert status == expected


def test_a_signal_reaches_the_main_process_only_while_it_lives(machine: Machine) -> None:
    async def scenario() -> None:
        run = await machine.start(machine.spec("sleep", "1000"))
        run.signal(signal.SIGTERM)
        run.signal(signal.SIGTERM)  # to one that may be dying: silent
        assert await run.exited() == ExitStatus(signal=signal.SIGTERM)
        run.signal(signal.SIGKILL)  # to one that is reaped: silent
        run.signal_rest(signal.SIGKILL)
        run.kill()
        await run.close()
        run.signal(signal.SIGKILL)
        run.kill()
        assert not run.populated()
        await run.emptied()

    in_time(scenario())


def test_killed_from_outside(machine: Machine) -> None:
    async def scenario() -> None:
        run = await machine.start(machine.spec("sleep", "1000"))
        os.kill(run.pid, signal.SIGKILL)
        assert await run.exited() == ExitStatus(signal=signal.SIGKILL)
        await run.emptied()
        await run.close()

    in_time(scenario())


def test_many_may_wait_and_any_may_give_up(machine: Machine) -> None:
    async def scenario() -> None:
        run = await machine.start(machine.spec("sleep", "1000"))
        waits = [asyncio.create_task(wait()) for wait in (run.exited, run.emptied, run.exited, run.emptied)]
        await asyncio.sleep(0)
        waits[0].cancel()
        waits[1].cancel()
        await asyncio.sleep(0)
        run.kill()
        outcomes = await asyncio.gather(*waits, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes[:2]] == [asyncio.CancelledError] * 2
        assert outcomes[2:] == [ExitStatus(signal=signal.SIGKILL), None]
        await run.close()

    in_time(scenario())


def test_a_grandchild_in_another_session_dies_too(machine: Machine) -> None:
    async def scenario() -> None:
        run, grandchild, streams = await start_and_read_pid(machine, ("/bin/sh", "-c", GRANDCHILD))
        assert os.getsid(grandchild) != os.getsid(run.pid)
        run.signal(signal.SIGKILL)
        await run.exited()
        assert run.populated() and is_alive(grandchild)
        run.kill()
        await run.emptied()
        assert not run.populated() and not is_alive(grandchild)
        await run.close()
        close_all(streams)

    in_time(scenario())


def test_a_daemon_that_left_everything_still_counts(machine: Machine) -> None:
    async def scenario() -> None:
        run, daemon, streams = await start_and_read_pid(machine, (sys.executable, "-ISuc", DAEMON))
        assert await run.exited() == ExitStatus(code=0)
        assert run.populated()
        waiting = asyncio.create_task(run.emptied())
        run.signal_rest(signal.SIGTERM)  # it ignores that
        await asyncio.sleep(0)
        assert is_alive(daemon) and not waiting.done()
        with pytest.raises(CgroupError, match="Device or resource busy"):
            await run.close()
        run.signal_rest(signal.SIGKILL)
        await waiting
        assert not is_alive(daemon)
        await run.close()
        close_all(streams)

    in_time(scenario())


def test_processes_in_cgroups_of_the_services_own_are_reached(machine: Machine) -> None:
    async def scenario() -> None:
        spec = machine.spec("/bin/sh", "-c", "sleep 1000 & echo $!; wait")
        streams = machine.host.open_streams(spec)
        run = await machine.start(spec)
        child = int(await eventually(lambda: read_all(streams[Stream.STDOUT]), "the pid"))
        inner = machine.root / spec.name / "inner/most"
        inner.mkdir(parents=True)
        (inner / "cgroup.procs").write_text(str(child))
        run.signal(signal.SIGKILL)
        await run.exited()
        assert run.populated()
        run.signal_rest(signal.SIGTERM)
        await run.emptied()
        await run.close()
        assert not (machine.root / spec.name).exists()
        close_all(list(streams.values()))

    in_time(scenario())


def test_a_fork_bomb_is_killed_where_cgroup_kill_is_missing(machine: Machine) -> None:
    """The older way: freeze, then kill until nothing new turns up."""
    bomb = "while :; do sleep 1000 & i=$((i+1)); [ $i -gt 50 ] && wait; done"

    async def scenario() -> None:
        run = await machine.start(machine.sh(bomb))
        cgroup = run._enclosure._cgroup  # type: ignore[attr-defined]
        await eventually(lambda: len(cgroup.processes()) > 5, "children")
        cgroup._kill_frozen()
        await run.emptied()
        assert await run.exited() == ExitStatus(signal=signal.SIGKILL)
        await run.close()

    in_time(scenario())


def test_two_runs_of_many_empty_at_their_own_time(machine: Machine) -> None:
    async def scenario() -> None:
        runs = [await machine.start(machine.spec("sleep", "1000")) for _ in range(5)]
        waits = [asyncio.create_task(run.emptied()) for run in runs]
        await asyncio.sleep(0)
        runs[3].kill()
        await waits[3]
        assert [wait.done() for wait in waits] == [False, False, False, True, False]
        for run in runs:
            await machine.end(run)
        await asyncio.gather(*waits)

    in_time(scenario())


def test_a_cgroup_that_somebody_else_removed_is_empty(machine: Machine) -> None:
    async def scenario() -> None:
        spec = machine.spec("sleep", "1000")
        run = await machine.start(spec)
        os.kill(run.pid, signal.SIGKILL)
        await run.exited()
        await run.emptied()
        (machine.root / spec.name).rmdir()
        assert not run.populated()
        await run.emptied()
        run.kill()
        run.signal_rest(signal.SIGTERM)
        assert run.usage().cpu_seconds is None
        await run.close()

    in_time(scenario())


def test_strangers_are_reaped_and_main_processes_keep_their_status(real_base: Path) -> None:
    with open_machine(real_base, subreaper=True) as machine:
        assert machine.host.subreaper

        async def scenario() -> None:
            loop = asyncio.get_running_loop()
            run, daemon, streams = await start_and_read_pid(machine, (sys.executable, "-ISuc", DAEMON))
            assert await run.exited() == ExitStatus(code=0)
            other = await machine.start(machine.spec("sleep", "1000"))
            os.kill(other.pid, signal.SIGTERM)
            # The loop has no turn in between: the sweep finds it first, as it may when SIGCHLD comes early.
            os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222
            machine.host.reap_strangers()
            assert await other.exited() == ExitStatus(signal=signal.SIGTERM)
            before = machine.host.strangers_total
            os.kill(daemon, signal.SIGKILL)
            os.waitid(os.P_PID, daemon, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222  (our child by now)
            loop.call_soon(machine.host.reap_strangers)
            await run.emptied()
            await eventually(lambda: machine.host.strangers_total == before + 1, "the orphan")
            for each in (run, other):
                await each.close()
            close_all(streams)

        in_time(scenario())
        assert Traces.take(machine.root).children == []


def test_of_a_main_process_that_somebody_else_reaped_only_the_pidfd_can_tell(machine: Machine) -> None:
    known = ExitStatus(signal=signal.SIGKILL) if pidfd_keeps_exit_status() else ExitStatus()

    async def scenario() -> None:
        run = await machine.start(machine.spec("sleep", "1000"))
        os.kill(run.pid, signal.SIGKILL)
        os.waitpid(run.pid, 0)  # noqa: ASYNC222
        assert await run.exited() == known
        await run.close()

    in_time(scenario())


def test_three_hundred_runs_leave_what_one_leaves(machine: Machine) -> None:
    spec = machine.spec("true")
    bad = machine.spec("/nonexistent")

    async def cycle() -> None:
        run = await machine.start(spec)
        await run.exited()
        await run.emptied()
        await run.close()
        await machine.failure(bad)

    async def scenario() -> None:
        await cycle()
        before = Traces.take(machine.root)
        for _ in range(150):
            await cycle()
        assert Traces.take(machine.root) == before
        assert before.children == [] and before.cgroups == []

    asyncio.run(scenario())
