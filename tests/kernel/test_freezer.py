"""Who has frozen a cgroup: a moment's hold ends with whoever holds, a freeze does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from blackhole_cg.core.monitor_spec import Action, ActionKind
from blackhole_cg.kernel.freezer import MARK, Freezer
from blackhole_cg.kernel.run import LinuxRun
from tests.kernel.machine import Machine, in_time

FREEZE = Action(ActionKind.FREEZE)


def with_run(machine: Machine, check: Callable[[LinuxRun, Freezer, Callable[[], str]], None]) -> None:
    """Give a live run, its freezer, and what its cgroup.freeze says to a check."""

    async def scenario() -> None:
        assert machine.root is not None
        spec = machine.spec("/bin/sleep", "1000")
        run = await machine.start(spec)
        try:
            assert run.freezer is not None
            assert run.freezer.obstacle is None
            check(run, run.freezer, lambda: Path(f"{machine.root}/{spec.name}/cgroup.freeze").read_text())
            await machine.end(run)
        finally:
            run.kill()

    in_time(scenario())


def test_a_hold_ends_with_letting_go(machine: Machine) -> None:
    def check(run: LinuxRun, freezer: Freezer, frozen: Callable[[], str]) -> None:
        for _ in range(2):
            freezer.hold()
            assert frozen() == "1\n"
            freezer.let_go()
            assert frozen() == "0\n"
        assert freezer.cpu_seconds() >= 0

    with_run(machine, check)


def test_what_somebody_else_has_frozen_is_not_let_go(machine: Machine) -> None:
    def check(run: LinuxRun, freezer: Freezer, frozen: Callable[[], str]) -> None:
        freezer.freeze()
        freezer.hold()
        freezer.let_go()
        assert frozen() == "1\n"
        run.thaw()
        assert frozen() == "0\n"

    with_run(machine, check)


def test_a_freeze_during_a_hold_lasts(machine: Machine) -> None:
    def check(run: LinuxRun, freezer: Freezer, frozen: Callable[[], str]) -> None:
        freezer.hold()
        freezer.freeze()
        freezer.let_go()
        freezer.recover()
        assert frozen() == "1\n"

    with_run(machine, check)


def test_the_next_supervisor_ends_the_hold_of_one_that_is_gone(machine: Machine) -> None:
    def check(run: LinuxRun, freezer: Freezer, frozen: Callable[[], str]) -> None:
        freezer.hold()
        successor = Freezer(freezer._cgroup)
        successor.recover()
        assert frozen() == "0\n"
        assert not freezer._cgroup.is_marked(MARK)

    with_run(machine, check)


def test_a_run_that_is_given_away_is_not_held(machine: Machine) -> None:
    async def scenario() -> None:
        assert machine.root is not None
        spec = machine.spec("/bin/sleep", "1000")
        run = await machine.start(spec)
        assert run.freezer is not None
        run.freezer.hold()
        run.detach()
        assert Path(f"{machine.root}/{spec.name}/cgroup.freeze").read_text() == "0\n"
        await machine.host.clear(spec.name)

    in_time(scenario())
