"""Reading a cgroup's files: on text of a real kernel, and on what real files may do."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from blackhole_cg.core.samples import Reading
from blackhole_cg.observe.monitor.cgroup_samples import CgroupReader, list_processes
from tests.observe.monitor.cgroup_files import FILES, make_cgroup
from tests.support.live import require_cgroup

UNKNOWN = Reading(0.0)


def read(directory: Path) -> Reading:
    reader = CgroupReader(str(directory))
    try:
        reading = Reading(0.0)
        assert reader.read_into(reading)
        return reading
    finally:
        reader.close()


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_every_file_is_read(tmp_path):
    assert read(make_cgroup(tmp_path)) == Reading(
        0.0,
        cpu_usec=5_000_000,
        cpu_periods_total=100,
        cpu_throttled_periods_total=40,
        cpu_throttled_usec=1_234_567,
        memory_current_bytes=104_857_600,
        memory_anon_bytes=52_428_800,
        memory_inactive_file_bytes=20_971_520,
        io_read_bytes_total=1024,
        io_write_bytes_total=2048,
        pids=6,
        oom_kills_total=1,
        memory_high_events_total=7,
        memory_max_events_total=2,
        cpu_pressure_percent=12.5,
        memory_pressure_percent=64.95,
        memory_full_pressure_percent=33.3,
        io_pressure_percent=1.0,
        io_full_pressure_percent=0.5,
    )


@pytest.mark.parametrize("missing", [name for name in FILES if name != "cgroup.procs"])
def test_what_a_missing_file_would_say_is_unknown(tmp_path, missing):
    whole = read(make_cgroup(tmp_path / "whole"))
    part = read(make_cgroup(tmp_path / "part", **{missing.replace(".", "__"): None}))
    differences = [name for name in Reading.__slots__ if getattr(part, name) != getattr(whole, name)]
    assert differences
    assert all(getattr(part, name) is None for name in differences)


def test_a_cgroup_without_any_io_has_read_nothing(tmp_path):
    reading = read(make_cgroup(tmp_path, io__stat=""))
    assert (reading.io_read_bytes_total, reading.io_write_bytes_total) == (0, 0)


def test_a_reader_sees_what_is_there_now_and_gives_everything_back(tmp_path):
    before = open_descriptors()
    reader = CgroupReader(str(make_cgroup(tmp_path)))
    (tmp_path / "pids.current").write_text("7\n")
    reading = Reading(1.0)
    assert reader.read_into(reading)
    assert reading.pids == 7
    reader.close()
    reader.close()
    assert open_descriptors() == before


def test_a_cgroup_that_is_not_there_is_gone(tmp_path):
    reader = CgroupReader(str(tmp_path / "none"))
    reading = Reading(0.0)
    assert not reader.read_into(reading)
    assert reading == UNKNOWN


def test_without_free_descriptors_it_fails_and_leaks_none(tmp_path):
    make_cgroup(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = [os.dup(0)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (held[0] + 20, limits[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            while True:
                held.append(os.dup(0))
        for descriptor in held[-4:]:  # enough to begin, not enough for all files
            os.close(descriptor)
        del held[-4:]
        with pytest.raises(OSError, match="Too many open files"):
            CgroupReader(str(tmp_path))
        held += [os.dup(0) for _ in range(4)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for descriptor in held:
            os.close(descriptor)
    assert len(held) >= 20, "the four descriptors were free again"


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """A real cgroup with another below it, and a process in each."""
    directory = require_cgroup() / f"bh-test-monitor-{os.getpid()}"
    inner = directory / "inner"
    inner.mkdir(parents=True)
    processes = [subprocess.Popen(["/bin/sleep", "1000"]) for _ in range(2)]
    try:
        for place, process in zip((directory, inner), processes, strict=True):
            (place / "cgroup.procs").write_text(str(process.pid))
        yield directory
    finally:
        for process in processes:
            process.kill()
            process.wait()
        for place in (inner, directory):
            if place.exists():
                place.rmdir()


@pytest.mark.needs_root
@pytest.mark.needs_cgroup
def test_processes_of_inner_cgroups_belong_to_it(cgroup):
    inner = set(list_processes(str(cgroup / "inner")))
    assert len(inner) == 1
    assert len(list_processes(str(cgroup))) == 2
    assert inner < set(list_processes(str(cgroup)))
    assert list_processes(str(cgroup / "none")) == []


@pytest.mark.needs_root
@pytest.mark.needs_cgroup
def test_a_real_cgroup_says_its_cpu_time_whatever_controllers_there_are(cgroup):
    assert read(cgroup).cpu_usec is not None


@pytest.mark.needs_root
@pytest.mark.needs_cgroup
def test_a_real_cgroup_that_is_removed_is_gone():
    directory = require_cgroup() / f"bh-test-gone-{os.getpid()}"
    directory.mkdir()
    reader = CgroupReader(str(directory))
    try:
        assert reader.read_into(Reading(0.0))
        directory.rmdir()
        assert not reader.read_into(Reading(0.0))
    finally:
        reader.close()
