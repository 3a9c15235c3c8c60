"""A child does nothing of its own before it is allowed to, and nothing at all when nobody is left."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from blackhole_cg.core.spec import ResourceLimits
from tests.kernel.machine import Machine, cgroup_obstacle, eventually, in_time, is_alive, sweep

ROOT = Path(__file__).parents[2]

DIE = """
import asyncio, os, signal, sys
from pathlib import Path
from tests.kernel.machine import open_machine
async def main(machine):
    spec = machine.sh(f"echo x > {sys.argv[1]}/begun; sleep 1000", name="web")
    run = machine.host.launch(spec, 1)
    if sys.argv[2] == "allowed":
        asyncio.get_running_loop().create_task(run.executed())
        await asyncio.sleep(0)
    print(run.pid, machine.root, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
with open_machine(Path(sys.argv[1])) as machine:
    asyncio.run(main(machine))
"""


def test_a_child_waits_until_it_is_allowed_to_go_on(machine: Machine, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    spec = machine.sh(f"echo x > {begun}; exec sleep 1000")

    async def scenario() -> None:
        run = machine.host.launch(spec, 1)
        await eventually(lambda: run.processes() == [run.pid], "it is in its cgroup")
        assert machine.host.is_held(spec.name)
        for _ in range(20):
            await asyncio.sleep(0.005)
        assert not begun.exists()
        await run.executed()
        assert not machine.host.is_held(spec.name)
        await eventually(begun.exists, "it has begun")
        await machine.end(run)

    in_time(scenario())
    assert not list((machine.base / "run/starting").iterdir())


def test_one_that_is_let_go_of_before_ends_without_having_begun(machine: Machine, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    spec = machine.sh(f"echo x > {begun}")

    async def scenario() -> int:
        run = machine.host.launch(spec, 1)
        run.detach()
        await eventually(lambda: not is_alive(run.pid), "it ends by itself")
        await machine.host.clear(spec.name)
        return run.pid

    os.waitpid(in_time(scenario()), 0)
    assert machine.host.is_held(spec.name)
    assert not begun.exists()


@pytest.mark.parametrize("moment", ["forked", "allowed"])
def test_when_the_supervisor_is_killed_only_what_was_allowed_begins(moment: str, tmp_path: Path) -> None:
    if reason := cgroup_obstacle():
        pytest.skip(reason)
    command = [sys.executable, "-c", DIE, str(tmp_path), moment]
    died = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr
    pid, root = died.stdout.split()
    begun, mark = tmp_path / "begun", tmp_path / "run/starting/web"
    try:
        if moment == "forked":
            in_time(eventually(lambda: not is_alive(int(pid)), "it ends by itself"))
            assert not begun.exists()
            assert mark.stat().st_size > 0
        else:
            in_time(eventually(begun.exists, "it begins, though nobody is there"))
            assert is_alive(int(pid))
            assert mark.stat().st_size == 0
    finally:
        sweep(Path(root))


def test_services_start_where_no_mark_can_be_made_or_no_file_be_written(machine: Machine) -> None:
    small = machine.spec("/bin/true", limits=ResourceLimits(rlimits={"fsize": 0}))
    in_time(machine.output(small))
    directory = machine.base / "run/starting"
    directory.rmdir()
    directory.write_text("in the way")
    spec = machine.sh("echo ok")

    async def scenario() -> None:
        run = machine.host.launch(spec, 1)
        assert not machine.host.is_held(spec.name), "what is not known counts as begun"
        await run.executed()
        assert (await run.exited()).code == 0
        await run.emptied()
        await run.close()

    in_time(scenario())
