"""What single processes use, asked through psutil: for what no cgroup file counts, and for `top`.

It costs a hundred times what a cgroup file costs, so only what somebody needs is asked for. A process that
ends meanwhile is left out; one that may not be looked into makes the sum unknown, because a part of a sum
is a wrong number.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from blackhole_cg.core.samples import Reading

Process = Any  # psutil.Process; importing psutil for a name would cost every supervisor its memory


class Part(StrEnum):
    """What can be asked of the processes of a service."""

    CPU = "cpu"
    MEMORY = "memory"
    RSS = "rss"
    THREADS = "threads"
    OPEN_FILES = "open_files"
    CONNECTIONS = "connections"
    IO = "io"
    PIDS = "pids"


@dataclass(frozen=True, slots=True)
class ProcessSample:
    """One process of a service; None is unknown or not ours to see."""

    pid: int
    command: str
    cpu_percent: float | None = None  # since the last look; unknown at the first
    memory_rss_bytes: int | None = None
    memory_vms_bytes: int | None = None
    threads: int | None = None
    open_files: int | None = None
    connections: int | None = None
    io_read_bytes_total: int | None = None
    io_write_bytes_total: int | None = None
    uptime_seconds: float | None = None


class ProcessReader:
    """The processes of one run, whose pids `list_pids` tells."""

    def __init__(self, list_pids: Callable[[], Iterable[int]]) -> None:
        self._list_pids = list_pids
        self._known: dict[int, Process] = {}
        self._seen_cpu: dict[int, tuple[float, float]] = {}  # pid -> when, processor seconds
        self._cpu_usec = _Growth()
        self._io_read = _Growth()
        self._io_written = _Growth()

    def read_into(self, reading: Reading, parts: Iterable[Part]) -> None:
        """Fill in the sums of the parts asked for."""
        processes = self._processes()
        for part in parts:
            _SUMS[part](self, processes, reading)

    def table(self, now: float) -> list[ProcessSample]:
        """Every process with all that can be known of it."""
        processes = self._processes()
        self._seen_cpu = {
            process.pid: seen for process in processes if (seen := self._seen_cpu.get(process.pid))
        }
        samples = (self._sample(process, now) for process in processes)
        return [sample for sample in samples if sample is not None]

    def _processes(self) -> list[Process]:
        """The processes there are now; the objects are kept, because making one costs a look into /proc."""
        import psutil

        known = self._known
        self._known = {}
        for pid in self._list_pids():
            try:
                self._known[pid] = known.get(pid) or psutil.Process(pid)
            except psutil.NoSuchProcess:
                continue
        return list(self._known.values())

    def _sample(self, process: Process, now: float) -> ProcessSample | None:
        import psutil

        with process.oneshot():
            try:
                name, began = process.name(), process.create_time()
            except psutil.NoSuchProcess:
                return None
            memory, io = _ask(process.memory_info), _ask(process.io_counters)
            return ProcessSample(
                pid=process.pid,
                command=" ".join(_ask(process.cmdline) or [f"[{name}]"]),
                cpu_percent=self._cpu_percent(process, now),
                memory_rss_bytes=memory and memory.rss,
                memory_vms_bytes=memory and memory.vms,
                threads=_ask(process.num_threads),
                open_files=_ask(process.num_fds),
                connections=_ask(lambda: _count_connections(process)),
                io_read_bytes_total=io and io.read_bytes,
                io_write_bytes_total=io and io.write_bytes,
                uptime_seconds=max(0.0, time.time() - began),  # for display, like every wall time
            )

    def _cpu_percent(self, process: Process, now: float) -> float | None:
        times = _ask(process.cpu_times)
        if times is None:
            return None
        seconds = times.user + times.system
        before = self._seen_cpu.get(process.pid)
        self._seen_cpu[process.pid] = now, seconds
        if before is None or now <= before[0] or seconds < before[1]:
            return None
        return 100.0 * float(seconds - before[1]) / (now - before[0])

    def _sum_cpu(self, processes: list[Process], reading: Reading) -> None:
        times = _each(processes, lambda process: process.cpu_times())
        reading.cpu_usec = self._cpu_usec.add(
            times and {pid: 1e6 * (each.user + each.system) for pid, each in times.items()}
        )

    def _sum_io(self, processes: list[Process], reading: Reading) -> None:
        counters = _each(processes, lambda process: process.io_counters())
        reading.io_read_bytes_total = self._io_read.add(
            counters and {pid: each.read_bytes for pid, each in counters.items()}
        )
        reading.io_write_bytes_total = self._io_written.add(
            counters and {pid: each.write_bytes for pid, each in counters.items()}
        )

    def _sum_memory(self, processes: list[Process], reading: Reading) -> None:
        """Proportional sizes, in which a page that several share counts once."""
        sizes = _each(processes, lambda process: process.memory_full_info().pss)
        reading.memory_private_bytes = _sum(sizes)

    def _sum_rss(self, processes: list[Process], reading: Reading) -> None:
        memory = _each(processes, lambda process: process.memory_info())
        reading.memory_rss_bytes = None if memory is None else sum(each.rss for each in memory.values())
        reading.memory_vms_bytes = None if memory is None else sum(each.vms for each in memory.values())

    def _sum_threads(self, processes: list[Process], reading: Reading) -> None:
        reading.threads = _sum(_each(processes, lambda process: process.num_threads()))

    def _sum_pids(self, processes: list[Process], reading: Reading) -> None:
        """Threads count, as they do in pids.current and for pids.max."""
        reading.pids = _sum(_each(processes, lambda process: process.num_threads()))

    def _sum_open_files(self, processes: list[Process], reading: Reading) -> None:
        reading.open_files = _sum(_each(processes, lambda process: process.num_fds()))

    def _sum_connections(self, processes: list[Process], reading: Reading) -> None:
        reading.connections = _sum(_each(processes, _count_connections))


_SUMS: Final[dict[Part, Callable[[ProcessReader, list[Any], Reading], None]]] = {
    Part.CPU: ProcessReader._sum_cpu,
    Part.MEMORY: ProcessReader._sum_memory,
    Part.RSS: ProcessReader._sum_rss,
    Part.THREADS: ProcessReader._sum_threads,
    Part.OPEN_FILES: ProcessReader._sum_open_files,
    Part.CONNECTIONS: ProcessReader._sum_connections,
    Part.IO: ProcessReader._sum_io,
    Part.PIDS: ProcessReader._sum_pids,
}


class _Growth:
    """A counter that only grows, out of counters of processes that come and go.

    What a process did after the last look and before its end is lost.
    """

    def __init__(self) -> None:
        self._total = 0.0
        self._before: dict[int, float] = {}

    def add(self, counters: dict[int, float] | None) -> float | None:
        """Take in the counters of the processes that are there now."""
        if counters is None:
            return None
        for pid, value in counters.items():
            self._total += max(0.0, value - self._before.get(pid, 0.0))
        self._before = counters
        return self._total


def _each(processes: Iterable[Process], ask: Callable[[Process], Any]) -> dict[int, Any] | None:
    """The answer of each process that is still there; None when one may not be asked, or none is there."""
    import psutil

    answers = {}
    for process in processes:
        try:
            answers[process.pid] = ask(process)
        except (psutil.NoSuchProcess, ProcessLookupError, FileNotFoundError):  # a zombie too
            continue
        except (psutil.AccessDenied, OSError):
            return None
    return answers or None


def _ask(question: Callable[[], Any]) -> Any:
    """The answer of one process, None when it has gone or may not be asked."""
    import psutil

    try:
        return question()
    except (psutil.Error, OSError):
        return None


def _sum(answers: dict[int, int] | None) -> int | None:
    return None if answers is None else sum(answers.values())


def _count_connections(process: Process) -> int:
    """Its TCP and UDP sockets, listening ones included. psutil before 6 knows the call by another name."""
    ask: Callable[[], list[Any]] = getattr(process, "net_connections", None) or process.connections
    return len(ask())
