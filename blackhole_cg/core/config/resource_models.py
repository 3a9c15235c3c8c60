"""The sections of a service that bound what it may use: resources, rlimits, io_max."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from blackhole_cg.core.config.kinds import Duration, Flag, Number, Size, Whole, Words
from blackhole_cg.core.config.section import Section, key
from blackhole_cg.core.config.service_kinds import CpuList
from blackhole_cg.core.words import Max

MIB: Final = 2**20
LEAST_MEMORY_BYTES: Final = MIB
"""Below this nothing can even be executed; a smaller number is a forgotten unit."""

Percent = Number(1, 100_000, "percent of one core")
Weight = Whole(1, 10_000)
Count = Whole(1, 4_194_304)
Memory = Size(LEAST_MEMORY_BYTES)
HighMemory = Size(4096)


class Rlimits(Section):
    """Resource limits of each process, by their names in setrlimit(2); soft and hard alike."""

    core: Annotated[int | Max | None, Size()] = key(None, "Size of a core dump; 0 means none.")
    cpu: Annotated[float | Max | None, Duration(low=1)] = key(
        None, "Processor time of each process, in whole seconds."
    )
    data: Annotated[int | Max | None, Size()] = key(None, "Data segment, heap included.")
    fsize: Annotated[int | Max | None, Size()] = key(None, "Size of a file a process may write.")
    memlock: Annotated[int | Max | None, Size()] = key(None, "Memory locked into RAM.")
    msgqueue: Annotated[int | Max | None, Size()] = key(None, "POSIX message queues of the user.")
    nice: Annotated[int | Max | None, Whole(0, 40)] = key(
        None, "Ceiling of the nice value, as 20 minus that value."
    )
    rss: Annotated[int | Max | None, Size()] = key(None, "Resident set; Linux records it without effect.")
    rtprio: Annotated[int | Max | None, Whole(0, 99)] = key(None, "Ceiling of the real-time priority.")
    rttime: Annotated[int | Max | None, Whole(0, 2**62, "microseconds")] = key(
        None, "Processor time of a real-time process without a blocking call."
    )
    sigpending: Annotated[int | Max | None, Whole(0, 2**31)] = key(None, "Queued signals of the user.")
    stack: Annotated[int | Max | None, Size()] = key(None, "Stack of the main thread.")
    as_: Annotated[int | Max | None, Size()] = key(None, "Address space.", alias="as")


class IoLimits(Section):
    """Bounds on the traffic to one block device."""

    rbps: Annotated[int | Max | None, Size(1)] = key(None, "Bytes read per second.")
    wbps: Annotated[int | Max | None, Size(1)] = key(None, "Bytes written per second.")
    riops: Annotated[int | Max | None, Whole(1, 2**62, "operations")] = key(
        None, "Read operations per second."
    )
    wiops: Annotated[int | Max | None, Whole(1, 2**62, "operations")] = key(
        None, "Write operations per second."
    )


Device = Annotated[
    str,
    Words("a block device", r"/dev/[^\s]+|[0-9]{1,4}:[0-9]{1,7}", "a path such as /dev/sda, or MAJOR:MINOR"),
]


class Resources(Section):
    """What the service as a whole may use; the limits hold for all its processes together."""

    cpu_percent: Annotated[float | Max | None, Percent] = key(
        None,
        "CPU bandwidth (cpu.max); 200 is two cores.",
        inherits="runtime.orchestrator.resource_limits.default_cpu_percent",
    )
    cpu_weight: Annotated[int | None, Weight] = key(None, "Share of CPU under contention (cpu.weight).")
    cpuset_cpus: Annotated[str | None, CpuList()] = key(None, "CPUs it may run on (cpuset.cpus).")
    memory_mb: Annotated[int | Max | None, Whole(1, 2**43 - 1, "MiB")] = key(
        None,
        "Memory limit in MiB (memory.max); memory_max is the same limit as a size.",
        inherits="runtime.orchestrator.resource_limits.default_memory_mb",
    )
    memory_max: Annotated[int | Max | None, Memory] = key(
        None, "Memory limit (memory.max); past it the kernel kills.", inherits="memory_mb"
    )
    memory_high: Annotated[int | Max | None, HighMemory] = key(
        None, "Memory from which the kernel slows and reclaims (memory.high).", inherits="90 % of memory_max"
    )
    memory_low: Annotated[int | Max | None, Size()] = key(
        None, "Memory protected from reclaim while others have more to give (memory.low)."
    )
    memory_swap_max: Annotated[int | Max | None, Size()] = key(None, "Swap limit (memory.swap.max).")
    memory_oom_group: Annotated[bool, Flag()] = key(
        True, "Out of memory kills every process of the service together (memory.oom.group)."
    )
    io_weight: Annotated[int | None, Weight] = key(
        None,
        "Share of disk time under contention (io.weight).",
        inherits="runtime.orchestrator.resource_limits.default_io_weight",
    )
    io_max: dict[Device, IoLimits] = Field(
        default_factory=dict, description="Bounds per block device (io.max)."
    )
    open_files: Annotated[int | None, Whole(4, 1_073_741_816)] = key(
        None, "Open files of each process (RLIMIT_NOFILE)."
    )
    processes: Annotated[int | Max | None, Count] = key(
        None, "Processes of the user (RLIMIT_NPROC) and, as root escapes that one, of the service (pids.max)."
    )
    pids_max: Annotated[int | Max | None, Count] = key(
        None, "Processes and threads of the service (pids.max).", inherits="processes"
    )
    rlimits: Rlimits = Field(default_factory=Rlimits, description="Further limits of each process.")
