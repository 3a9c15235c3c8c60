"""What is written to cgroup files, and how the kernel's answers are judged."""

from __future__ import annotations

import pytest

from blackhole_cg.core.limits import (
    Limit,
    bfq_weight,
    cgroup_limits,
    expected_value,
    held_value,
    parse_cpu_list,
    parse_weight,
    render_cpu_list,
    render_cpu_max,
)
from blackhole_cg.core.spec import IoMax, ResourceLimits

PAGE = 4096


def only(**values: object) -> Limit:
    """The single limit of a service that sets just this."""
    (limit,) = cgroup_limits(ResourceLimits(**values), {})  # type: ignore[arg-type]
    return limit


@pytest.mark.parametrize(
    ("setting", "name", "file", "controller", "text"),
    [
        ({"cpu_percent": 200}, "cpu_max", "cpu.max", "cpu", "200000 100000"),
        ({"cpu_percent": 12.5}, "cpu_max", "cpu.max", "cpu", "12500 100000"),
        ({"cpu_percent": "max"}, "cpu_max", "cpu.max", "cpu", "max 100000"),
        ({"cpu_weight": 300}, "cpu_weight", "cpu.weight", "cpu", "300"),
        ({"cpuset_cpus": "6,0-2,3"}, "cpuset_cpus", "cpuset.cpus", "cpuset", "0-3,6"),
        ({"memory_max_bytes": 1 << 30}, "memory_max", "memory.max", "memory", "1073741824"),
        ({"memory_max_bytes": "max"}, "memory_max", "memory.max", "memory", "max"),
        ({"memory_high_bytes": 4096}, "memory_high", "memory.high", "memory", "4096"),
        ({"memory_low_bytes": 4096}, "memory_low", "memory.low", "memory", "4096"),
        ({"memory_swap_max_bytes": 0}, "memory_swap_max", "memory.swap.max", "memory", "0"),
        ({"memory_oom_group": True}, "memory_oom_group", "memory.oom.group", "memory", "1"),
        ({"memory_oom_group": False}, "memory_oom_group", "memory.oom.group", "memory", "0"),
        ({"io_weight": 500}, "io_weight", "io.weight", "io", "500"),
        ({"pids_max": 100}, "pids_max", "pids.max", "pids", "100"),
    ],
)
def test_each_limit_goes_to_its_file(
    setting: dict[str, object], name: str, file: str, controller: str, text: str
) -> None:
    limit = only(**setting)
    assert (limit.name, limit.file, limit.controller, limit.writes) == (name, file, controller, (text,))


def test_nothing_set_is_nothing_written() -> None:
    assert cgroup_limits(ResourceLimits(), {}) == ()


def test_order_puts_throttling_before_killing_and_swap_before_both() -> None:
    limits = ResourceLimits(
        cpu_percent=10,
        memory_max_bytes=8192,
        memory_high_bytes=4096,
        memory_low_bytes=4096,
        memory_swap_max_bytes=0,
        pids_max=5,
    )
    names = [limit.name for limit in cgroup_limits(limits, {})]
    assert names == ["cpu_max", "memory_low", "memory_swap_max", "memory_high", "memory_max", "pids_max"]


@pytest.mark.parametrize(
    ("percent", "text"),
    [(1, "1000 100000"), (0.5, "5000 1000000"), (0.1, "1000 1000000"), (100, "100000 100000")],
)
def test_a_share_too_small_for_the_usual_period_gets_a_long_one(percent: float, text: str) -> None:
    assert render_cpu_max(percent) == text


@pytest.mark.parametrize(
    ("setting", "answer", "agrees"),
    [
        ({"cpu_percent": 200}, "200000 100000\n", True),
        ({"cpu_percent": 200}, "100000 100000\n", False),
        ({"cpu_percent": "max"}, "max 100000\n", True),
        ({"cpu_weight": 300}, "300\n", True),
        ({"cpu_weight": 300}, "100\n", False),
        ({"cpuset_cpus": "0,1,2"}, "0-2\n", True),
        ({"cpuset_cpus": "0,1,2"}, "0-1\n", False),
        ({"cpuset_cpus": "0"}, "\n", False),
        ({"memory_max_bytes": 1_000_000}, "999424\n", True),
        ({"memory_max_bytes": 1_000_000}, "1000000\n", False),
        ({"memory_max_bytes": 1 << 30}, "max\n", False),
        ({"memory_max_bytes": "max"}, "max\n", True),
        ({"memory_max_bytes": 2**63}, "max\n", True),
        ({"memory_high_bytes": 8191}, "4096\n", True),
        ({"memory_swap_max_bytes": 0}, "0\n", True),
        ({"memory_oom_group": True}, "1\n", True),
        ({"memory_oom_group": True}, "0\n", False),
        ({"io_weight": 500}, "default 500\n", True),
        ({"io_weight": 500}, "default 500\n8:0 200\n", True),
        ({"io_weight": 500}, "default 100\n", False),
        ({"pids_max": 100}, "100\n", True),
        ({"pids_max": "max"}, "max\n", True),
        ({"pids_max": 100}, "max\n", False),
    ],
)
def test_read_back_is_compared_as_values(setting: dict[str, object], answer: str, agrees: bool) -> None:
    limit = only(**setting)
    assert (held_value(limit, answer) == expected_value(limit, PAGE)) is agrees


def test_bigger_pages_round_further_down() -> None:
    limit = only(memory_max_bytes=100_000)
    assert expected_value(limit, 65536) == 65536


def test_text_that_is_no_value_is_told_apart() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        held_value(only(memory_max_bytes=4096), "what?\n")


BOUNDS = (
    IoMax("/dev/sdb", write_bytes_per_second=1048576),
    IoMax("/dev/sda", read_bytes_per_second=2048, read_operations_per_second=100),
)
DEVICES = {"/dev/sda": "8:0", "/dev/sdb": "8:16"}


def test_io_max_is_one_write_for_each_device() -> None:
    (limit,) = cgroup_limits(ResourceLimits(io_max=BOUNDS), DEVICES)
    assert limit.writes == (
        "8:16 rbps=max wbps=1048576 riops=max wiops=max",
        "8:0 rbps=2048 wbps=max riops=100 wiops=max",
    )
    assert limit.requested == (
        "8:0 rbps=2048 wbps=max riops=100 wiops=max, 8:16 rbps=max wbps=1048576 riops=max wiops=max"
    )


@pytest.mark.parametrize(
    ("answer", "agrees"),
    [
        (
            "8:16 rbps=max wbps=1048576 riops=max wiops=max\n8:0 rbps=2048 wbps=max riops=100 wiops=max\n",
            True,
        ),
        ("8:0 rbps=2048 wbps=max riops=100 wiops=max\n8:16 wbps=1048576\n254:0 rbps=1\n", True),
        ("8:0 rbps=2048 wbps=max riops=100 wiops=max\n", False),
        ("", False),
    ],
)
def test_io_max_is_compared_by_device_and_key(answer: str, agrees: bool) -> None:
    (limit,) = cgroup_limits(ResourceLimits(io_max=BOUNDS), DEVICES)
    assert (held_value(limit, answer) == expected_value(limit, PAGE)) is agrees


def test_an_unlimited_device_is_absent_from_the_answer() -> None:
    (limit,) = cgroup_limits(ResourceLimits(io_max=(IoMax("8:0"),)), {"8:0": "8:0"})
    assert held_value(limit, "") == expected_value(limit, PAGE)


@pytest.mark.parametrize(
    ("weight", "bfq"), [(1, 1), (100, 100), (777, 777), (1000, 1000), (1001, 1000), (10000, 1000)]
)
def test_bfq_gets_the_same_weights_up_to_its_largest(weight: int, bfq: int) -> None:
    assert bfq_weight(weight) == bfq


def test_bfq_weights_stay_in_range_and_in_order() -> None:
    scaled = [bfq_weight(weight) for weight in range(1, 10001)]
    assert scaled == sorted(scaled)
    assert (scaled[0], scaled[-1]) == (1, 1000)


@pytest.mark.parametrize("text", ["default 161\n", "161\n", "default 161\n8:0 5\n"])
def test_a_default_weight_reads_alike_on_old_and_new_kernels(text: str) -> None:
    assert parse_weight(text) == 161


@pytest.mark.parametrize("text", ["0", "0-3,6", "1-2,4-5,127", ""])
def test_cpu_lists_in_the_kernels_spelling_stay_as_they_are(text: str) -> None:
    assert render_cpu_list(parse_cpu_list(text)) == text


@pytest.mark.parametrize("text", ["a", "3-1", "1-", "-1", "0 1"])
def test_a_text_that_is_no_cpu_list_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        cgroup_limits(ResourceLimits(cpuset_cpus=text), {})


def test_preferences_are_told_from_promises() -> None:
    assert not only(memory_oom_group=True).promised
    assert only(memory_max_bytes=4096).promised
    assert only(io_weight=5).promised
