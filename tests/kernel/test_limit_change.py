"""Changing limits of a live run, on a directory of plain files that stands for a cgroup."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from blackhole_cg.core.spec import IoMax, ResourceLimits
from blackhole_cg.core.words import MAX, Isolation
from blackhole_cg.errors import CgroupError
from blackhole_cg.kernel.cgroup import Cgroup
from blackhole_cg.kernel.limit_change import LimitChanger
from blackhole_cg.kernel.limit_writer import LimitWriter
from tests.kernel.test_limit_writer import FACTS, Fixture, fixture  # noqa: F401  (a pytest fixture)
from tests.support.builders import service

MIB = 2**20
DEVICE = "8:0"


class RecordingCgroup(Cgroup):
    """One that tells what was written to it, and refuses what it is told to."""

    def __init__(self, of: Fixture) -> None:
        super().__init__(of._parent, "web", str(of.path))
        self.written: list[tuple[str, str]] = []
        self.sys = of.path.parent / "sys"
        cpus = self.sys / "devices/system/cpu"
        cpus.mkdir(parents=True)
        (cpus / "online").write_text("0-1\n")
        for device in (DEVICE, "8:16"):
            (self.sys / "dev/block" / device).mkdir(parents=True)
        self.bounds: dict[str, str] = {}
        self.refuses: set[tuple[str, str]] = set()

    def write(self, file: str, text: str) -> None:
        if (file, text) in self.refuses:
            raise CgroupError("write", file, 22, text)
        self.written.append((file, text))
        if file == "io.max":  # the kernel keeps a line for each device
            self.bounds[text.split(maxsplit=1)[0]] = text
            text = "\n".join(self.bounds.values())
        super().write(file, text.removeprefix("\n") or "\n")


@pytest.fixture
def cgroup(fixture: Fixture):  # noqa: F811
    (fixture.path / "memory.current").write_text(str(50 * MIB))
    (fixture.path / "pids.current").write_text("3")
    made = RecordingCgroup(fixture)
    yield made
    made.close()


def change(cgroup: RecordingCgroup, before: dict[str, Any], after: dict[str, Any], *, force: bool = False):
    """Give a run the limits `before` and change them to `after`; the states before, and what came of it."""
    writer = LimitWriter(FACTS, Isolation.REQUIRED, {"vda": "bfq"}, sys=cgroup.sys)
    old = service("web", limits=ResourceLimits(**before))
    states = writer.apply(old, cgroup)
    cgroup.written.clear()
    new = replace(old, limits=ResourceLimits(**after))
    return states, asyncio.run(LimitChanger(writer, cgroup).change(new, states, force))


def test_what_is_raised_comes_before_what_is_lowered_and_high_before_max(cgroup):
    _, changed = change(
        cgroup,
        {"cpu_percent": 100, "memory_max_bytes": 200 * MIB, "memory_high_bytes": 180 * MIB, "pids_max": 10},
        {"cpu_percent": 50, "memory_max_bytes": 100 * MIB, "memory_high_bytes": 90 * MIB, "pids_max": 20},
    )
    assert changed.problems == ()
    files = [file for file, _ in cgroup.written]
    assert files == ["pids.max", "cpu.max", "memory.high", "memory.max"]
    assert {name: state.effective for name, state in changed.states.items()} == {
        "cpu_max": "50000 100000",
        "memory_max": 100 * MIB,
        "memory_high": 90 * MIB,
        "pids_max": 20,
    }
    assert all(state.enforced for state in changed.states.values())


def test_nothing_goes_below_what_is_in_use_unless_it_is_forced_and_then_nothing_is_changed(cgroup, fixture):  # noqa: F811
    before = {"cpu_weight": 100, "memory_max_bytes": 80 * MIB, "memory_high_bytes": 70 * MIB}
    after = {"cpu_weight": 300, "memory_max_bytes": 40 * MIB, "memory_high_bytes": 36 * MIB}
    _, changed = change(cgroup, before, after)
    (problem,) = changed.problems
    assert problem.startswith("cannot change memory_max of 'web' to 41943040 while it runs: 50M")
    assert [(fixture.path / name).read_text() for name in ("cpu.weight", "memory.high", "memory.max")] == [
        "100",
        str(70 * MIB),
        str(80 * MIB),
    ]
    memory = changed.states["memory_max"]
    assert (memory.requested, memory.effective, memory.enforced) == (40 * MIB, 80 * MIB, False)
    assert changed.states["cpu_weight"].effective == 100
    _, forced = change(cgroup, before, after, force=True)
    assert forced.problems == ()
    assert (fixture.path / "memory.max").read_text() == str(40 * MIB)


def test_a_refused_write_takes_back_what_was_changed_before_it(cgroup, fixture):  # noqa: F811
    cgroup.refuses.add(("pids.max", "4"))
    _, changed = change(
        cgroup,
        {"cpu_weight": 100, "pids_max": 10, "cpu_percent": 50},
        {"cpu_weight": 200, "pids_max": 4, "cpu_percent": MAX},
    )
    assert len(changed.problems) == 1
    assert "pids_max of 'web' to 4" in changed.problems[0]
    assert (fixture.path / "cpu.weight").read_text() == "100"
    assert (fixture.path / "cpu.max").read_text() == "50000 100000"
    assert [state.enforced for state in changed.states.values()] == [False, False, False]


def test_limits_that_are_not_asked_for_any_more_are_lifted(cgroup, fixture):  # noqa: F811
    bounds = (IoMax(DEVICE, read_bytes_per_second=MIB), IoMax("8:16", write_bytes_per_second=MIB))
    _, changed = change(
        cgroup,
        {
            "cpu_percent": 50,
            "cpuset_cpus": "0-1",
            "memory_max_bytes": 80 * MIB,
            "io_max": bounds,
            "io_weight": 50,
        },
        {"io_max": bounds[1:]},
    )
    assert changed.problems == ()
    assert list(changed.states) == ["io_max"]
    assert sorted(cgroup.written) == [
        ("cpu.max", "max 100000"),
        ("cpuset.cpus", "0-1"),  # all there are: the kernel refuses an empty one under a live run
        ("io.max", "8:0 rbps=max wbps=max riops=max wiops=max"),
        ("io.max", "8:16 rbps=max wbps=1048576 riops=max wiops=max"),
        ("io.weight", "100"),
        ("memory.max", "max"),
    ]


def test_what_is_as_it_was_is_not_written(cgroup):
    states, changed = change(cgroup, {"pids_max": 10, "cpu_weight": 7}, {"pids_max": 10, "cpu_weight": 7})
    assert cgroup.written == []
    assert changed.states == states


def test_a_change_that_was_refused_is_tried_again(cgroup, fixture):  # noqa: F811
    cgroup.refuses.add(("pids.max", "4"))
    writer = LimitWriter(FACTS, Isolation.REQUIRED)
    _, changed = change(cgroup, {"pids_max": 10}, {"pids_max": 4})
    cgroup.refuses.clear()
    again = asyncio.run(
        LimitChanger(writer, cgroup).change(
            service("web", limits=ResourceLimits(pids_max=4)), changed.states, False
        )
    )
    assert again.problems == ()
    assert again.states["pids_max"].enforced
