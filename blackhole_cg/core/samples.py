"""From what the kernel counts to what rules look at: readings are raw, samples are in the rules' units.

Pure. A value that could not be read is None and stays None: unknown is never 0.
"""

from __future__ import annotations

from dataclasses import dataclass

from blackhole_cg.core.monitor_spec import Metric


@dataclass(slots=True)
class Reading:
    """What was read of a service at one moment; the `_total` and `_usec` fields only grow within a run."""

    taken_at: float  # monotonic seconds
    cpu_usec: float | None = None
    cpu_periods_total: int | None = None
    cpu_throttled_periods_total: int | None = None
    cpu_throttled_usec: int | None = None
    memory_current_bytes: int | None = None  # with page cache
    memory_anon_bytes: int | None = None
    memory_inactive_file_bytes: int | None = None
    memory_private_bytes: int | None = None  # of the processes, where no controller counts memory
    memory_rss_bytes: int | None = None
    memory_vms_bytes: int | None = None
    io_read_bytes_total: float | None = None
    io_write_bytes_total: float | None = None
    pids: int | None = None
    threads: int | None = None
    open_files: int | None = None
    connections: int | None = None
    oom_kills_total: int | None = None
    memory_high_events_total: int | None = None
    memory_max_events_total: int | None = None
    cpu_pressure_percent: float | None = None  # "some" of the last ten seconds, as all of these
    memory_pressure_percent: float | None = None
    memory_full_pressure_percent: float | None = None
    io_pressure_percent: float | None = None
    io_full_pressure_percent: float | None = None

    @property
    def working_set_bytes(self) -> int | None:
        """Memory without the page cache that can be dropped at once; the number that matters for a limit."""
        if self.memory_current_bytes is None:
            return self.memory_private_bytes
        return max(0, self.memory_current_bytes - (self.memory_inactive_file_bytes or 0))


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at a service. Has a field of each metric's name."""

    taken_at: float
    run_id: int
    uptime_seconds: float
    cpu_percent: float | None = None
    cpu_throttled_percent: float | None = None
    memory_bytes: float | None = None
    memory_percent: float | None = None
    memory_current_bytes: int | None = None
    memory_anon_bytes: int | None = None
    memory_rss_bytes: float | None = None
    threads: float | None = None
    open_files: float | None = None
    connections: float | None = None
    pids: float | None = None
    io_read_bytes_per_second: float | None = None
    io_write_bytes_per_second: float | None = None
    cpu_pressure_percent: float | None = None
    memory_pressure_percent: float | None = None
    memory_full_pressure_percent: float | None = None
    io_pressure_percent: float | None = None
    io_full_pressure_percent: float | None = None
    oom_kills_total: int | None = None
    memory_high_events_total: int | None = None
    memory_max_events_total: int | None = None

    def value(self, metric: Metric) -> float | None:
        """The value of a metric; None when it is unknown."""
        found: float | None = getattr(self, metric)
        return found

    def to_json(self) -> dict[str, float | int | None]:
        """Every field by its name."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What a sample needs to know of its run besides readings."""

    run_id: int
    started_at: float  # monotonic seconds
    memory_limit_bytes: float | None = None


def make_sample(facts: RunFacts, before: Reading | None, reading: Reading) -> Sample:
    """The sample between two readings of a run; rates are unknown without an earlier one."""
    working_set = reading.working_set_bytes
    rate = _Rates(before, reading)
    return Sample(
        taken_at=reading.taken_at,
        run_id=facts.run_id,
        uptime_seconds=max(0.0, reading.taken_at - facts.started_at),
        cpu_percent=_scaled(rate.per_second("cpu_usec"), 1e-4),
        cpu_throttled_percent=rate.percent_of("cpu_throttled_periods_total", "cpu_periods_total"),
        memory_bytes=working_set,
        memory_percent=_percent(working_set, facts.memory_limit_bytes),
        memory_current_bytes=reading.memory_current_bytes,
        memory_anon_bytes=reading.memory_anon_bytes,
        memory_rss_bytes=reading.memory_rss_bytes,
        threads=reading.threads,
        open_files=reading.open_files,
        connections=reading.connections,
        pids=reading.pids,
        io_read_bytes_per_second=rate.per_second("io_read_bytes_total"),
        io_write_bytes_per_second=rate.per_second("io_write_bytes_total"),
        cpu_pressure_percent=reading.cpu_pressure_percent,
        memory_pressure_percent=reading.memory_pressure_percent,
        memory_full_pressure_percent=reading.memory_full_pressure_percent,
        io_pressure_percent=reading.io_pressure_percent,
        io_full_pressure_percent=reading.io_full_pressure_percent,
        oom_kills_total=reading.oom_kills_total,
        memory_high_events_total=reading.memory_high_events_total,
        memory_max_events_total=reading.memory_max_events_total,
    )


class _Rates:
    """Differences between two readings, over the time that really went by."""

    def __init__(self, before: Reading | None, after: Reading) -> None:
        self._before = before
        self._after = after
        self._seconds = 0.0 if before is None else after.taken_at - before.taken_at

    def grown(self, name: str) -> float | None:
        """By how much a counter grew; unknown when it shrank, which only another counter's would."""
        if self._before is None or self._seconds <= 0:
            return None
        first, second = getattr(self._before, name), getattr(self._after, name)
        if first is None or second is None or second < first:
            return None
        return float(second - first)

    def per_second(self, name: str) -> float | None:
        """Growth per second."""
        return _scaled(self.grown(name), 1 / self._seconds) if self._seconds > 0 else None

    def percent_of(self, part: str, whole: str) -> float | None:
        """The growth of one counter as a percentage of another's; 0 when the other stood still."""
        grown, all_of_it = self.grown(part), self.grown(whole)
        if grown is None or all_of_it is None:
            return None
        return 100 * grown / all_of_it if all_of_it else 0.0


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _percent(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else 100 * part / whole
