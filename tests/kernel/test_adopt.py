"""Taking over one run, as the next supervisor does: by another host over the same cgroup root."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from collections.abc import Callable
from dataclasses import replace

import pytest

from blackhole_cg.core.facts import ExitStatus
from blackhole_cg.core.record import RunRecord
from blackhole_cg.core.spec import ServiceSpec
from blackhole_cg.errors import CgroupError
from blackhole_cg.kernel.run import LinuxRun
from tests.kernel.machine import Machine, descriptors_left, in_time, is_alive


def record_of(machine: Machine, spec: ServiceSpec, run: LinuxRun) -> RunRecord:
    boot_id = machine.host.facts.boot_id
    return RunRecord(spec.name, 1, boot_id, run.pid, run.started_ticks, run.cgroup, spec.config_hash)


def abandoned(machine: Machine, then: Callable[[ServiceSpec, RunRecord], object]) -> None:
    """Start a run, let go of it, and do the rest; whatever is left is killed."""

    async def scenario() -> None:
        spec = machine.spec("sleep", "1000")
        run = await machine.start(spec)
        record = record_of(machine, spec, run)
        run.detach()
        outcome = then(spec, record)
        if hasattr(outcome, "__await__"):
            await outcome
        await machine.host.clear(spec.name)
        if is_alive(record.pid):
            os.kill(record.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):  # it is reaped
            os.waitid(os.P_PID, record.pid, os.WEXITED)  # noqa: ASYNC222

    in_time(scenario())


def test_a_child_that_has_ended_meanwhile_still_tells_how(machine: Machine) -> None:
    async def then(spec: ServiceSpec, record: RunRecord) -> None:
        os.kill(record.pid, signal.SIGTERM)
        os.waitid(os.P_PID, record.pid, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222
        run = machine.host.adopt(spec, record)
        assert run is not None
        assert await run.exited() == ExitStatus(signal=signal.SIGTERM)
        assert not run.populated()
        await run.close()

    abandoned(machine, then)


@pytest.mark.parametrize("change", [{"boot_id": "another"}, {"started_ticks": 1}, {"pid": 2**22 + 1}])
def test_what_is_not_the_same_process_of_the_same_boot_is_not_taken_over(
    machine: Machine, change: dict[str, object]
) -> None:
    def then(spec: ServiceSpec, record: RunRecord) -> None:
        assert machine.host.adopt(spec, replace(record, **change)) is None
        assert is_alive(record.pid), "and nothing happens to it"

    abandoned(machine, then)


def test_a_run_that_nobody_remembers_is_recognised(machine: Machine) -> None:
    def then(spec: ServiceSpec, record: RunRecord) -> None:
        found = machine.host.identify(spec, 5)
        assert found is not None
        assert (found.pid, found.started_ticks, found.run_id) == (record.pid, record.started_ticks, 5)
        assert found.cgroup == record.cgroup
        other = replace(spec, name="other")
        assert machine.host.identify(other, 5) is None

    abandoned(machine, then)


@pytest.mark.parametrize("left", range(4))
def test_without_descriptors_nobody_is_taken_for_gone(machine: Machine, left: int) -> None:
    def then(spec: ServiceSpec, record: RunRecord) -> None:
        before = len(os.listdir("/proc/self/fd"))
        with descriptors_left(left):
            try:
                run = machine.host.adopt(spec, record)
            except (OSError, CgroupError) as error:
                assert error.errno == errno.EMFILE
            else:
                assert run is not None
                run.detach()
        assert is_alive(record.pid)
        assert len(os.listdir("/proc/self/fd")) == before

    abandoned(machine, then)


def test_without_descriptors_nobody_is_taken_for_unknown(machine: Machine) -> None:
    def then(spec: ServiceSpec, record: RunRecord) -> None:
        for left in range(4):
            with descriptors_left(left):
                try:
                    found = machine.host.identify(spec, 1)
                except (OSError, CgroupError) as error:
                    assert error.errno == errno.EMFILE
                else:
                    assert found is not None and found.pid == record.pid

    abandoned(machine, then)


def test_a_pidfd_is_not_left_behind(machine: Machine) -> None:
    def then(spec: ServiceSpec, record: RunRecord) -> None:
        before = len(os.listdir("/proc/self/fd"))
        assert machine.host.adopt(spec, replace(record, started_ticks=1)) is None
        assert len(os.listdir("/proc/self/fd")) == before

    abandoned(machine, then)
