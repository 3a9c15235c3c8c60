"""What a service's limits are in the words of the kernel's cgroup files, and how to judge what is read back.

Pure text and numbers: which file gets which bytes, in which order, and whether the answer is the same value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from blackhole_cg.core.spec import IoMax, ResourceLimits
from blackhole_cg.core.words import MAX, Max

Value = int | str | bool

CPU_PERIOD_USEC: Final = 100_000
CPU_LONG_PERIOD_USEC: Final = 1_000_000
CPU_LEAST_QUOTA_USEC: Final = 1_000
BFQ_LARGEST_WEIGHT: Final = 1_000
LARGEST_LONG: Final = 2**63 - 1
IO_MAX_UNLIMITED: Final = {"rbps": MAX, "wbps": MAX, "riops": MAX, "wiops": MAX}


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit as it is asked of the kernel."""

    name: str  # as users read it: "memory_max"
    file: str  # in the cgroup directory: "memory.max"
    controller: str
    requested: Value
    writes: tuple[str, ...]  # one system call each: io.max takes one device at a time
    promised: bool = True  # False: a preference, `isolation: required` does not insist on it


@dataclass(frozen=True, slots=True)
class _Codec:
    """How one kind of file is read, and what a value looks like once the kernel has stored it."""

    parse: Callable[[str], Value]
    stored: Callable[[Value, int], Value] = lambda value, page_bytes: value


def cgroup_limits(limits: ResourceLimits, devices: Mapping[str, str]) -> tuple[Limit, ...]:
    """Every limit that is set, in the order in which to write them.

    `devices` maps the devices of `io_max` to the kernel's MAJOR:MINOR. memory.high comes before memory.max,
    so that throttling is in force before killing is; swap comes first, so that neither is met by swapping.

    Raises:
        ValueError: `cpuset_cpus` is no list of CPUs.
        KeyError: a device is not in `devices`.
    """
    found = [
        _limit("cpuset_cpus", _normal_cpu_list(limits.cpuset_cpus)),
        _limit("cpu_weight", limits.cpu_weight),
        _limit("cpu_max", None if limits.cpu_percent is None else render_cpu_max(limits.cpu_percent)),
        _limit("memory_oom_group", limits.memory_oom_group, promised=False),
        _limit("memory_low", limits.memory_low_bytes),
        _limit("memory_swap_max", limits.memory_swap_max_bytes),
        _limit("memory_high", limits.memory_high_bytes),
        _limit("memory_max", limits.memory_max_bytes),
        _limit("io_weight", limits.io_weight),
        _io_max_limit(limits.io_max, devices),
        _limit("pids_max", limits.pids_max),
    ]
    return tuple(limit for limit in found if limit is not None)


def held_value(limit: Limit, text: str) -> Value:
    """What the kernel says the limit is, in the form that `limit.requested` has.

    Raises:
        ValueError: the text is not what this file contains.
    """
    if limit.file == "io.max":
        asked = parse_io_max("\n".join(limit.writes))
        held = parse_io_max(text)
        return render_io_max({device: held.get(device, IO_MAX_UNLIMITED) for device in asked})
    return _CODECS[limit.file].parse(text)


def expected_value(limit: Limit, page_bytes: int) -> Value:
    """What the kernel should say after it has accepted the limit: memory is kept in whole pages."""
    if limit.file == "io.max":
        return limit.requested
    return _CODECS[limit.file].stored(limit.requested, page_bytes)


def render_cpu_max(percent: float | Max) -> str:
    """The text of cpu.max for a share of one core: 200 is "200000 100000".

    A share too small for the usual period gets the longest one.
    Source: kernel Documentation/admin-guide/cgroup-v2.rst, cpu.max; quota at least 1 ms, period at most 1 s.
    """
    if percent == MAX:
        return f"{MAX} {CPU_PERIOD_USEC}"
    quota_usec = round(percent * CPU_PERIOD_USEC / 100)
    if quota_usec >= CPU_LEAST_QUOTA_USEC:
        return f"{quota_usec} {CPU_PERIOD_USEC}"
    return f"{round(percent * CPU_LONG_PERIOD_USEC / 100)} {CPU_LONG_PERIOD_USEC}"


def bfq_weight(io_weight: int) -> int:
    """The weight for io.bfq.weight (1 to 1000) that matches one for io.weight (1 to 10000).

    Itself, or the most: both scales begin at 1, have 100 as default, and at 1000 mean ten times that.
    Source: kernel Documentation/block/bfq-iosched.rst, weight.
    """
    return min(io_weight, BFQ_LARGEST_WEIGHT)


def parse_weight(text: str) -> int:
    """The default weight in io.weight or io.bfq.weight: "default 500", or "500" on older kernels."""
    return int(text.splitlines()[0].removeprefix("default").strip())


def parse_number_or_max(text: str) -> int | Max:
    """Value of a limit file such as memory.max: a number, or "max" for unlimited."""
    text = text.strip()
    return MAX if text == MAX else int(text)


def parse_io_max(text: str) -> dict[str, dict[str, str]]:
    """The lines of io.max as device -> key -> value; keys that are not named are unlimited."""
    devices: dict[str, dict[str, str]] = {}
    for line in text.splitlines():
        device, *pairs = line.split()
        devices[device] = dict(IO_MAX_UNLIMITED) | dict(pair.split("=", 1) for pair in pairs)
    return devices


def render_io_max(devices: Mapping[str, Mapping[str, str]]) -> str:
    """One text for the bounds of several devices, for people and for comparing."""
    lines = (
        f"{device} " + " ".join(f"{key}={values[key]}" for key in IO_MAX_UNLIMITED)
        for device, values in sorted(devices.items())
    )
    return ", ".join(lines)


def parse_cpu_list(text: str) -> frozenset[int]:
    """The CPUs of a kernel list such as "0-3,6".

    Raises:
        ValueError: it is no such list.
    """
    cpus: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, dash, last = part.strip().partition("-")
        low, high = int(first), int(last) if dash else int(first)
        if high < low:
            raise ValueError(f"{part!r} runs backwards")
        cpus.update(range(low, high + 1))
    return frozenset(cpus)


def render_cpu_list(cpus: frozenset[int]) -> str:
    """The kernel's own spelling of a set of CPUs."""
    ranges: list[list[int]] = []
    for cpu in sorted(cpus):
        if ranges and cpu == ranges[-1][1] + 1:
            ranges[-1][1] = cpu
        else:
            ranges.append([cpu, cpu])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in ranges)


def _limit(name: str, requested: Value | None, promised: bool = True) -> Limit | None:
    if requested is None:
        return None
    file = _FILES[name]
    text = str(int(requested)) if isinstance(requested, bool) else str(requested)
    return Limit(name, file, file.partition(".")[0], requested, (text,), promised)


def _io_max_limit(bounds: tuple[IoMax, ...], devices: Mapping[str, str]) -> Limit | None:
    if not bounds:
        return None
    wanted = {
        devices[bound.device]: {
            "rbps": str(bound.read_bytes_per_second),
            "wbps": str(bound.write_bytes_per_second),
            "riops": str(bound.read_operations_per_second),
            "wiops": str(bound.write_operations_per_second),
        }
        for bound in bounds
    }
    writes = tuple(render_io_max({device: values}) for device, values in wanted.items())
    return Limit("io_max", "io.max", "io", render_io_max(wanted), writes)


def _normal_cpu_list(text: str | None) -> str | None:
    return None if text is None else render_cpu_list(parse_cpu_list(text))


def _whole_pages(value: Value, page_bytes: int) -> Value:
    """Source: mm/page_counter.c, page_counter_memparse: rounded down; the largest counter is "max"."""
    if value == MAX or not isinstance(value, int):
        return value
    pages = value // page_bytes
    return MAX if pages >= LARGEST_LONG // page_bytes else pages * page_bytes


_FILES: Final = {
    "cpuset_cpus": "cpuset.cpus",
    "cpu_weight": "cpu.weight",
    "cpu_max": "cpu.max",
    "memory_oom_group": "memory.oom.group",
    "memory_low": "memory.low",
    "memory_swap_max": "memory.swap.max",
    "memory_high": "memory.high",
    "memory_max": "memory.max",
    "io_weight": "io.weight",
    "pids_max": "pids.max",
}

_BYTES: Final = _Codec(parse_number_or_max, _whole_pages)

_CODECS: Final[Mapping[str, _Codec]] = {
    "cpuset.cpus": _Codec(lambda text: render_cpu_list(parse_cpu_list(text))),
    "cpu.weight": _Codec(int),
    "cpu.max": _Codec(lambda text: " ".join(text.split())),
    "memory.oom.group": _Codec(lambda text: text.strip() == "1"),
    "memory.low": _BYTES,
    "memory.swap.max": _BYTES,
    "memory.high": _BYTES,
    "memory.max": _BYTES,
    "io.weight": _Codec(parse_weight),
    "pids.max": _Codec(parse_number_or_max),
}
