"""Writing, reading back and comparing, on a directory of plain files that stands for a cgroup."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from blackhole_cg.core.facts import HostFacts, LimitState
from blackhole_cg.core.spec import IoMax, ResourceLimits, ServiceSpec
from blackhole_cg.core.words import Isolation
from blackhole_cg.errors import CgroupError, CgroupGoneError, ControllerMissingError, SpawnError
from blackhole_cg.kernel.cgroup import Cgroup
from blackhole_cg.kernel.limit_writer import LimitWriter

ALL = dict.fromkeys(("cpu", "cpuset", "memory", "io", "pids"))
FACTS = HostFacts("boot", "6.1.0", 4096, "/cg", "/cg/root", None, ALL)
FILES = (
    "cgroup.controllers",
    "cgroup.procs",
    "cpu.max",
    "cpu.weight",
    "cpuset.cpus",
    "memory.max",
    "memory.high",
    "memory.low",
    "memory.swap.max",
    "memory.oom.group",
    "io.weight",
    "io.max",
    "pids.max",
)


class Fixture:
    """A directory that looks like a cgroup and answers what was written to it."""

    def __init__(self, base: Path) -> None:
        self.path = base / "web"
        self.path.mkdir()
        for name in FILES:
            (self.path / name).write_text("")
        (self.path / "cpuset.cpus.effective").write_text("0-1\n")
        self._parent = os.open(base, os.O_RDONLY)
        self.cgroup = Cgroup(self._parent, "web", str(self.path))

    def close(self) -> None:
        self.cgroup.close()
        os.close(self._parent)


class StubbornCgroup(Cgroup):
    """One whose kernel keeps something else than it was told."""

    answers: dict[str, str]

    def read(self, file: str) -> str:
        return self.answers.get(file) or super().read(file)


@pytest.fixture
def fixture(tmp_path: Path) -> Iterator[Fixture]:
    made = Fixture(tmp_path)
    yield made
    made.close()


@pytest.fixture
def stubborn(fixture: Fixture) -> Iterator[Callable[[dict[str, str]], Cgroup]]:
    opened: list[Cgroup] = []

    def make(answers: dict[str, str]) -> Cgroup:
        cgroup = StubbornCgroup(fixture._parent, "web", str(fixture.path))
        cgroup.answers = answers
        opened.append(cgroup)
        return cgroup

    yield make
    for cgroup in opened:
        cgroup.close()


def spec(**limits: object) -> ServiceSpec:
    return ServiceSpec("web", ("true",), "/tmp", {}, limits=ResourceLimits(**limits))  # type: ignore[arg-type]


def writer(
    facts: HostFacts = FACTS, isolation: Isolation = Isolation.REQUIRED, **more: object
) -> LimitWriter:
    return LimitWriter(facts, isolation, **more)  # type: ignore[arg-type]


def test_every_limit_is_written_and_found_again(fixture: Fixture) -> None:
    asked = spec(
        cpu_percent=50,
        cpu_weight=300,
        cpuset_cpus="0,1",
        memory_max_bytes=1 << 20,
        memory_high_bytes=1 << 19,
        memory_low_bytes=4096,
        memory_swap_max_bytes=0,
        memory_oom_group=True,
        pids_max="max",
    )
    states = writer().apply(asked, fixture.cgroup)
    assert all(state.enforced for state in states.values())
    assert states["memory_max"] == LimitState(1 << 20, 1 << 20, enforced=True)
    assert states["memory_oom_group"] == LimitState(True, True, enforced=True)
    assert states["cpuset_cpus"].effective == "0-1"
    for name, text in {
        "cpu.max": "50000 100000",
        "cpu.weight": "300",
        "cpuset.cpus": "0-1",
        "memory.max": "1048576",
        "memory.swap.max": "0",
        "memory.oom.group": "1",
        "pids.max": "max",
    }.items():
        assert (fixture.path / name).read_text() == text


@pytest.mark.parametrize(
    ("limits", "answers", "reason"),
    [
        (
            {"memory_max_bytes": 8192},
            {"memory.max": "4096\n"},
            "wrote '8192' to memory.max, but the kernel holds 4096",
        ),
        (
            {"memory_max_bytes": 8192},
            {"memory.max": "max\n"},
            "wrote '8192' to memory.max, but the kernel holds 'max'",
        ),
        (
            {"cpu_percent": 10},
            {"cpu.max": "max 100000\n"},
            "wrote '10000 100000' to cpu.max, but the kernel holds 'max 100000'",
        ),
        ({"pids_max": 5}, {"pids.max": "what\n"}, "cannot understand pids.max: 'what'"),
        (
            {"io_weight": 500},
            {"io.weight": "default 100\n"},
            "wrote '500' to io.weight, but the kernel holds 100",
        ),
    ],
)
def test_a_difference_is_an_error(
    stubborn: Callable[[dict[str, str]], Cgroup],
    limits: dict[str, object],
    answers: dict[str, str],
    reason: str,
) -> None:
    cgroup = stubborn(answers)
    with pytest.raises(SpawnError) as caught:
        writer().apply(spec(**limits), cgroup)
    assert str(caught.value).startswith("cannot start 'web': set ")
    assert str(caught.value).endswith(reason)
    (state,) = writer(isolation=Isolation.BEST_EFFORT).apply(spec(**limits), cgroup).values()
    assert not state.enforced and state.reason == reason


def test_whole_pages_are_no_difference(stubborn: Callable[[dict[str, str]], Cgroup]) -> None:
    states = writer().apply(spec(memory_max_bytes=10_000), stubborn({"memory.max": "8192\n"}))
    assert states["memory_max"] == LimitState(10_000, 8192, enforced=True)


def test_a_file_that_is_missing_is_told_from_a_cgroup_that_is_gone(fixture: Fixture) -> None:
    (fixture.path / "memory.swap.max").unlink()
    with pytest.raises(ControllerMissingError):
        fixture.cgroup.write("memory.swap.max", "0")
    with pytest.raises(SpawnError) as caught:
        writer().apply(spec(memory_swap_max_bytes=0), fixture.cgroup)
    assert str(caught.value) == (
        "cannot start 'web': set memory_swap_max to 0: "
        f"cannot write '0' to {fixture.path}/memory.swap.max: No such file or directory"
    )
    for entry in fixture.path.iterdir():
        entry.unlink()
    with pytest.raises(CgroupGoneError):
        fixture.cgroup.read("memory.max")


def test_any_other_refusal_is_an_error_with_the_value(fixture: Fixture) -> None:
    (fixture.path / "pids.max").unlink()
    (fixture.path / "pids.max").mkdir()
    with pytest.raises(CgroupError, match=r"cannot write '5' to .*/pids.max: Is a directory"):
        fixture.cgroup.write("pids.max", "5")


def test_a_missing_controller_is_a_problem_and_a_reason() -> None:
    facts = replace(FACTS, controllers={**ALL, "memory": "bound to cgroup v1 on this host"})
    asked = spec(memory_max_bytes=4096, memory_oom_group=True)
    assert list(map(str, writer(facts).problems(asked))) == [
        "web: memory_max 4096: memory: bound to cgroup v1 on this host"
    ]
    with pytest.raises(SpawnError, match="set memory_max to 4096: memory: bound to cgroup v1 on this host"):
        writer(facts).apply(asked, None)
    states = writer(facts, Isolation.BEST_EFFORT).apply(asked, None)
    assert states["memory_max"] == LimitState(4096, None, False, "memory: bound to cgroup v1 on this host")
    assert states["memory_oom_group"].requested is True


def test_a_preference_alone_is_no_problem() -> None:
    facts = replace(FACTS, controllers={**ALL, "memory": "gone"})
    assert list(map(str, writer(facts).problems(spec(memory_oom_group=True)))) == []
    (state,) = writer(facts).apply(spec(memory_oom_group=True), None).values()
    assert not state.enforced


def test_cpus_that_the_ancestors_do_not_leave(fixture: Fixture) -> None:
    states = writer(isolation=Isolation.BEST_EFFORT).apply(spec(cpuset_cpus="2-3"), fixture.cgroup)
    assert states["cpuset_cpus"] == LimitState(
        "2-3", "0-1", False, "its ancestors leave it none of these CPUs, so it runs on 0-1"
    )


def test_io_weight_says_what_heeds_it(fixture: Fixture) -> None:
    by_bfq = writer(io_weights={"sda": "bfq", "sdb": None})
    (state,) = by_bfq.apply(spec(io_weight=500), fixture.cgroup).values()
    assert state == LimitState(
        500,
        500,
        True,
        "acts on sda by bfq; has no effect on sdb: neither the BFQ scheduler nor io.cost is active",
    )


def test_io_weight_that_nothing_heeds_starts_and_says_so(fixture: Fixture) -> None:
    nothing = writer(io_weights={"sda": None})
    asked = spec(io_weight=500)
    assert list(map(str, nothing.problems(asked))) == []
    (state,) = nothing.apply(asked, fixture.cgroup).values()
    assert (state.effective, state.enforced) == (500, False)
    assert state.reason == "has no effect on sda: neither the BFQ scheduler nor io.cost is active"
    assert (fixture.path / "io.weight").read_text() == "500"


@pytest.mark.parametrize(
    ("weight", "bfq", "reason"),
    [
        (777, "777", "acts on sda by bfq"),
        (5000, "1000", "acts on sda by bfq; the most that BFQ takes is 1000"),
    ],
)
def test_bfq_has_a_file_of_its_own_and_a_largest_weight(
    fixture: Fixture, weight: int, bfq: str, reason: str
) -> None:
    (fixture.path / "io.bfq.weight").write_text("")
    (state,) = writer(io_weights={"sda": "bfq"}).apply(spec(io_weight=weight), fixture.cgroup).values()
    assert (fixture.path / "io.weight").read_text() == str(weight)
    assert (fixture.path / "io.bfq.weight").read_text() == bfq
    assert (state.enforced, state.reason) == (True, reason)


def test_bfq_alone_is_enough_where_io_weight_does_not_exist(fixture: Fixture) -> None:
    (fixture.path / "io.bfq.weight").write_text("")
    (fixture.path / "io.weight").unlink()
    (state,) = writer(io_weights={"sda": "bfq"}).apply(spec(io_weight=777), fixture.cgroup).values()
    assert (state.requested, state.effective, state.enforced) == (777, 777, True)


def test_bfq_that_keeps_another_weight(
    stubborn: Callable[[dict[str, str]], Cgroup], fixture: Fixture
) -> None:
    (fixture.path / "io.bfq.weight").write_text("")
    cgroup = stubborn({"io.bfq.weight": "default 100\n"})
    with pytest.raises(SpawnError, match=r"wrote 777 to io\.bfq\.weight, but the kernel holds 100"):
        writer().apply(spec(io_weight=777), cgroup)


def test_no_weight_file_at_all(fixture: Fixture) -> None:
    (fixture.path / "io.weight").unlink()
    with pytest.raises(SpawnError, match=r"io\.weight: No such file or directory"):
        writer().apply(spec(io_weight=777), fixture.cgroup)


def test_io_max_finds_the_disk_of_a_device(fixture: Fixture, tmp_path: Path) -> None:
    disk = tmp_path / "sys/devices/sda"
    (disk / "sda1").mkdir(parents=True)
    (disk / "dev").write_text("8:0\n")
    (disk / "sda1/dev").write_text("8:1\n")
    (disk / "sda1/partition").write_text("1\n")
    (tmp_path / "sys/dev/block").mkdir(parents=True)
    (tmp_path / "sys/dev/block/8:1").symlink_to(disk / "sda1")
    by_path = writer(sys=tmp_path / "sys")
    asked = spec(io_max=(IoMax("8:1", write_bytes_per_second=1024),))
    (state,) = by_path.apply(asked, fixture.cgroup).values()
    assert state == LimitState(
        "8:0 rbps=max wbps=1024 riops=max wiops=max",
        "8:0 rbps=max wbps=1024 riops=max wiops=max",
        enforced=True,
    )


@pytest.mark.parametrize(
    ("device", "reason"),
    [
        ("/dev/nosuchdisk", "cannot find /dev/nosuchdisk: No such file or directory"),
        ("/dev/null", "/dev/null is no block device"),
        ("999:999", "cannot find 999:999: No such file or directory"),
    ],
)
def test_io_max_for_no_device(fixture: Fixture, device: str, reason: str) -> None:
    asked = spec(io_max=(IoMax(device, read_bytes_per_second=1),))
    (problem,) = list(map(str, writer().problems(asked)))
    assert problem.startswith(f"web: io_max {device} rbps=1") and problem.endswith(reason)
    with pytest.raises(SpawnError, match=reason):
        writer().apply(asked, fixture.cgroup)


def test_a_cpu_list_that_is_none() -> None:
    with pytest.raises(SpawnError, match=r"cannot start 'web': read its limits: .*'backwards'"):
        list(map(str, writer().problems(spec(cpuset_cpus="backwards"))))
