"""One run as the monitor looks at it: its cgroup's files first, its processes for the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from blackhole_cg.core.monitor_spec import Metric
from blackhole_cg.core.rules import Capacity
from blackhole_cg.core.samples import Reading
from blackhole_cg.observe.monitor.cgroup_samples import CgroupReader, list_processes
from blackhole_cg.observe.monitor.process_samples import Part, ProcessReader, ProcessSample

_PARTS: Final = {
    Metric.CPU_PERCENT: Part.CPU,
    Metric.MEMORY_BYTES: Part.MEMORY,
    Metric.MEMORY_PERCENT: Part.MEMORY,
    Metric.MEMORY_RSS_BYTES: Part.RSS,
    Metric.THREADS: Part.THREADS,
    Metric.OPEN_FILES: Part.OPEN_FILES,
    Metric.CONNECTIONS: Part.CONNECTIONS,
    Metric.PIDS: Part.PIDS,
    Metric.IO_READ_BYTES_PER_SECOND: Part.IO,
    Metric.IO_WRITE_BYTES_PER_SECOND: Part.IO,
}
"""Metric -> what to ask the processes for where the cgroup does not say it."""

_FIELDS: Final = {
    Part.CPU: "cpu_usec",
    Part.MEMORY: "memory_current_bytes",
    Part.RSS: "memory_rss_bytes",
    Part.THREADS: "threads",
    Part.OPEN_FILES: "open_files",
    Part.CONNECTIONS: "connections",
    Part.PIDS: "pids",
    Part.IO: "io_read_bytes_total",
}
"""Part -> the field that is set once it is known."""


@dataclass(frozen=True, slots=True)
class Target:
    """A run to be watched.

    `cgroup` is its directory, absolute; where it is None, `list_pids` has to say which its processes are.
    """

    service: str
    run_id: int
    started_at: float  # monotonic seconds
    cgroup: str | None
    capacity: Capacity = field(default_factory=Capacity)
    list_pids: Callable[[], Iterable[int]] | None = None


class RunReader:
    """Reads a run. Opens nothing before the first reading, psutil not before it is needed."""

    def __init__(self, target: Target, metrics: Iterable[Metric]) -> None:
        self._directory = target.cgroup
        self._list_pids = target.list_pids or self._pids_of_cgroup
        self._needed = frozenset(_PARTS[metric] for metric in metrics if metric in _PARTS)
        self._cgroup: CgroupReader | None = None
        self._processes: ProcessReader | None = None

    def read(self, now: float) -> Reading | None:
        """Everything that is needed of the run; None when it has gone.

        Raises:
            OSError: no descriptor is free, or the directory may not be read.
        """
        reading = Reading(now)
        if self._directory is not None:
            if self._cgroup is None:
                self._cgroup = CgroupReader(self._directory)
            if not self._cgroup.read_into(reading):
                return None
            reading.threads = reading.pids  # the kernel counts tasks there, which threads are
        missing = [part for part in self._needed if getattr(reading, _FIELDS[part]) is None]
        if missing:
            self._process_reader().read_into(reading, missing)
        return reading

    def table(self, now: float) -> list[ProcessSample]:
        """Every process of the run."""
        return self._process_reader().table(now)

    def close(self) -> None:
        """Close every descriptor."""
        if self._cgroup is not None:
            self._cgroup.close()

    def _process_reader(self) -> ProcessReader:
        if self._processes is None:
            self._processes = ProcessReader(self._list_pids)
        return self._processes

    def _pids_of_cgroup(self) -> list[int]:
        return [] if self._directory is None else list_processes(self._directory)
