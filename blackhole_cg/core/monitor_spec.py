"""What is watched of a service, and what is to happen when it goes out of bounds: data only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from blackhole_cg.core.units import format_duration, format_size


class Metric(StrEnum):
    """What a rule can look at; each is a sum over all processes of the service."""

    CPU_PERCENT = "cpu_percent"
    MEMORY_BYTES = "memory_bytes"
    MEMORY_PERCENT = "memory_percent"
    MEMORY_RSS_BYTES = "memory_rss_bytes"
    THREADS = "threads"
    OPEN_FILES = "open_files"
    CONNECTIONS = "connections"
    PIDS = "pids"
    IO_READ_BYTES_PER_SECOND = "io_read_bytes_per_second"
    IO_WRITE_BYTES_PER_SECOND = "io_write_bytes_per_second"
    CPU_THROTTLED_PERCENT = "cpu_throttled_percent"
    MEMORY_PRESSURE_PERCENT = "memory_pressure_percent"
    CPU_PRESSURE_PERCENT = "cpu_pressure_percent"
    IO_PRESSURE_PERCENT = "io_pressure_percent"
    UPTIME_SECONDS = "uptime_seconds"

    @property
    def is_bytes(self) -> bool:
        """Whether values are sizes, or sizes per second."""
        return "_bytes" in self

    @property
    def is_percent(self) -> bool:
        """Whether values are percentages."""
        return self.endswith("_percent")

    @property
    def is_seconds(self) -> bool:
        """Whether values are durations."""
        return self is Metric.UPTIME_SECONDS


PRESSURE_METRICS: Final = {
    Metric.MEMORY_PRESSURE_PERCENT: "memory.pressure",
    Metric.CPU_PRESSURE_PERCENT: "cpu.pressure",
    Metric.IO_PRESSURE_PERCENT: "io.pressure",
}
"""Metrics whose growth the kernel can announce, and the file in which it does."""


class Whole(StrEnum):
    """What a bound written as a percentage is a part of."""

    LIMIT = "the limit"
    HOST = "the host"


LIMITED_METRICS: Final = frozenset(
    {Metric.CPU_PERCENT, Metric.MEMORY_BYTES, Metric.MEMORY_RSS_BYTES, Metric.PIDS}
)
"""Metrics that have a limit to be a part of: cpu_max, memory_max, pids_max."""

HOST_METRICS: Final = frozenset({Metric.CPU_PERCENT, Metric.MEMORY_BYTES, Metric.MEMORY_RSS_BYTES})
"""Metrics that the host has a fixed amount of."""


@dataclass(frozen=True, slots=True)
class Bound:
    """A value in the metric's own unit; with `whole`, a percentage of that."""

    value: float
    whole: Whole | None = None


class Side(StrEnum):
    """On which side of the bound it is wrong to be."""

    ABOVE = "above"
    BELOW = "below"


class ActionKind(StrEnum):
    """What a broken rule does."""

    LOG = "log"
    RESTART = "restart"
    STOP = "stop"
    FREEZE = "freeze"
    SIGNAL = "signal"
    RECLAIM = "reclaim"
    WEIGHT = "weight"


@dataclass(frozen=True, slots=True)
class Action:
    """A kind with what it needs to know."""

    kind: ActionKind = ActionKind.LOG
    signal: int | None = None  # for SIGNAL
    reclaim_bytes: int | None = None  # for RECLAIM: how much to ask for
    cpu_weight: int | None = None  # for WEIGHT, one of the two or both
    io_weight: int | None = None


@dataclass(frozen=True, slots=True)
class RuleSpec:
    """One rule. It is broken by being out of bounds for a time, or in so many samples within a time."""

    name: str
    metric: Metric
    bound: Bound
    side: Side = Side.ABOVE
    until: Bound | None = None  # the value it must come back to; None: the bound itself
    for_seconds: float = 0.0
    times: int | None = None  # in so many samples ...
    within_seconds: float = 0.0  # ... of the last so many seconds
    action: Action = Action()
    cooldown_seconds: float = 60.0  # from one firing to the next, across runs
    grace_seconds: float = 30.0  # after the start of a run, in which nothing counts
    note: str = ""  # added to what is said about a breach


@dataclass(frozen=True, slots=True)
class MonitorSpec:
    """How a service is watched."""

    interval_seconds: float = 5.0
    rules: tuple[RuleSpec, ...] = ()


def format_value(metric: Metric, value: float) -> str:
    """A value of the metric for people: 61.4M, 93.1, 2h5m."""
    if metric.is_bytes:
        return format_size(value)
    if metric.is_seconds:
        return format_duration(value)
    return f"{value:.1f}".removesuffix(".0") if abs(value) < 1000 else f"{value:.0f}"
