"""What a service's limits are in the words of the kernel's cgroup files, and how to judge what is read back.

Pure text and numbers: which file gets which bytes, in which order, and whether the answer is the same value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
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


def lifted_limits(before: Mapping[str, object], after: Iterable[Limit]) -> tuple[Limit, ...]:
    """What takes back limits that were asked for before and are not any more.

    `before` is what was requested, by name; names that are no limits of a cgroup are passed over. Of io_max
    only the devices are taken back that have no bound any more.
    """
    kept = {limit.name: limit for limit in after}
    lifted = [
        Limit(name, _FILES[name], _FILES[name].partition(".")[0], value, (text,))
        for name, (value, text) in _UNSET.items()
        if before.get(name) is not None and name not in kept
    ]
    bounds = str(before.get("io_max") or "").replace(", ", "\n")
    devices = parse_io_max(bounds).keys() - parse_io_max(
        "\n".join(kept["io_max"].writes if "io_max" in kept else ())
    )
    if devices:
        unlimited = dict.fromkeys(devices, IO_MAX_UNLIMITED)
        writes = tuple(render_io_max({device: IO_MAX_UNLIMITED}) for device in sorted(devices))
        lifted.append(Limit("io_max", "io.max", "io", render_io_max(unlimited), writes))
    return tuple(lifted)


def is_lowered(limit: Limit, held: Value) -> bool:
    """Whether a limit gives less than the kernel holds now; of what cannot be compared, True."""
    match limit.file:
        case "cpu.max":
            return _cpu_share(limit.requested) < _cpu_share(held)
        case "io.max":
            asked, now = (parse_io_max(str(each).replace(", ", "\n")) for each in (limit.requested, held))
            return any(
                _amount(values[key]) < _amount(now.get(device, IO_MAX_UNLIMITED)[key])
                for device, values in asked.items()
                for key in IO_MAX_UNLIMITED
            )
        case "cpuset.cpus":
            wanted, had = (parse_cpu_list(str(each)) for each in (limit.requested, held))
            return bool(wanted) and not had <= wanted
    return _amount(limit.requested) < _amount(held)


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


def _amount(value: Value) -> float:
    return math.inf if value == MAX else float(value)


def _cpu_share(text: Value) -> float:
    quota, period = str(text).split()
    return _amount(quota) / float(period)


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

# What a new cgroup has, and what is written for it. An empty list of CPUs is that of the parent.
_UNSET: Final[Mapping[str, tuple[Value, str]]] = {
    "cpuset_cpus": ("", "\n"),
    "cpu_weight": (100, "100"),
    "cpu_max": (f"{MAX} {CPU_PERIOD_USEC}", f"{MAX} {CPU_PERIOD_USEC}"),
    "memory_oom_group": (False, "0"),
    "memory_low": (0, "0"),
    "memory_swap_max": (MAX, MAX),
    "memory_high": (MAX, MAX),
    "memory_max": (MAX, MAX),
    "io_weight": (100, "100"),
    "pids_max": (MAX, MAX),
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
