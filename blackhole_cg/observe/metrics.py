"""What the metrics are: a table of names, and how each follows from what is known of a service.

Pure. A value that is not known is left out: it is never 0. Names and units follow Prometheus' rules (base
units, `_total` for counters), but for the few that the rest of the program calls otherwise.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from blackhole_cg import __version__
from blackhole_cg.core.facts import ServiceInfo
from blackhole_cg.core.samples import Reading, Sample
from blackhole_cg.core.tally import ServiceTally
from blackhole_cg.core.words import MAX, Desired, Health, State
from blackhole_cg.observe.probes.schedule import ProbeFacts

Kind = Literal["gauge", "counter", "info"]
Values = Iterable[tuple[tuple[str, ...], float | None]]  # values of the labels, and the value

_HEALTH: Final[Mapping[str, float]] = {Health.HEALTHY: 1.0, Health.UNHEALTHY: 0.0}
_PRESSURES: Final = {
    ("cpu", "some"): "cpu_pressure_percent",
    ("memory", "some"): "memory_pressure_percent",
    ("memory", "full"): "memory_full_pressure_percent",
    ("io", "some"): "io_pressure_percent",
    ("io", "full"): "io_full_pressure_percent",
}
_MEMORY_EVENTS: Final = {
    "high": "memory_high_events_total",
    "max": "memory_max_events_total",
    "oom_kill": "oom_kills_total",
}


@dataclass(frozen=True, slots=True)
class Measured:
    """All that is known of one service at one moment; no sample and no reading without a live run."""

    info: ServiceInfo
    sample: Sample | None = None
    reading: Reading | None = None  # the counters behind the sample
    probes: Sequence[ProbeFacts] = ()
    tally: ServiceTally = field(default_factory=ServiceTally)


@dataclass(frozen=True, slots=True)
class Family:
    """One metric with all its values; `labels` names what each value's labels say."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...]
    values: Sequence[tuple[tuple[str, ...], float]]


def collect(services: Sequence[Measured]) -> Iterator[Family]:
    """Every metric of these services."""
    yield Family(
        "blackhole_build_info", "info", "Version of the supervisor.", ("version",), [((__version__,), 1)]
    )
    states = Counter(service.info.state for service in services)
    by_state = [((str(state),), float(states[state])) for state in State]
    yield Family("blackhole_processes", "gauge", "Services by state.", ("state",), by_state)
    for metric in _METRICS:
        found = [
            ((service.info.name, *labels), float(value))
            for service in services
            for labels, value in metric.values(service)
            if value is not None
        ]
        if found:
            name, names = f"blackhole_process_{metric.name}", ("service", *metric.labels)
            yield Family(name, metric.kind, metric.help, names, found)


def limit_number(limit: str, value: int | str | bool | None) -> float | None:
    """A limit as a number: infinite for "max", cores for cpu_max; None for what is no number."""
    if value is None:
        return None
    if value == MAX:
        return math.inf
    if isinstance(value, str):
        return _cores(value) if limit == "cpu_max" else None
    return float(value)


def _cores(text: str) -> float:
    """The cores in the text of cpu.max: quota and period in microseconds."""
    quota, period = text.split()
    return math.inf if quota == MAX else int(quota) / int(period)


@dataclass(frozen=True, slots=True)
class _Metric:
    """One metric of every service; its name lacks the prefix."""

    name: str
    kind: Kind
    help: str
    values: Callable[[Measured], Values]
    labels: tuple[str, ...] = ()


def _gauge(name: str, text: str, value: Callable[[Measured], float | None]) -> _Metric:
    return _Metric(name, "gauge", text, lambda it: (((), value(it)),))


def _counter(name: str, text: str, value: Callable[[Measured], float | None]) -> _Metric:
    return _Metric(name, "counter", text, lambda it: (((), value(it)),))


def _sampled(name: str, factor: float = 1.0) -> Callable[[Measured], float | None]:
    return lambda it: _scaled(getattr(it.sample, name, None), factor)


def _read(name: str, factor: float = 1.0) -> Callable[[Measured], float | None]:
    return lambda it: _scaled(getattr(it.reading, name, None), factor)


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _memory_bytes(it: Measured) -> float | None:
    """The working set; where no controller counts it, what the processes say."""
    if it.sample is None or it.sample.memory_bytes is not None:
        return _sampled("memory_bytes")(it)
    return it.info.usage.get("memory_bytes")


def _states(it: Measured) -> Values:
    return [((str(state),), float(state == it.info.state)) for state in State]


def _pressures(it: Measured) -> Values:
    return [(labels, _sampled(name, 0.01)(it)) for labels, name in _PRESSURES.items()]


def _memory_events(it: Measured) -> Values:
    return [((event,), _sampled(name)(it)) for event, name in _MEMORY_EVENTS.items()]


def _requested(it: Measured) -> Values:
    return [((name,), limit_number(name, limit.requested)) for name, limit in it.info.limits.items()]


def _effective(it: Measured) -> Values:
    return [((name,), limit_number(name, limit.effective)) for name, limit in it.info.limits.items()]


def _enforced(it: Measured) -> Values:
    return [((name,), float(limit.enforced)) for name, limit in it.info.limits.items()]


def _of_probes(value: Callable[[ProbeFacts], float | None]) -> Callable[[Measured], Values]:
    """A value of each probe that has been answered."""
    return lambda it: [((str(probe.kind),), value(probe)) for probe in it.probes if probe.ok is not None]


_METRICS: Final = (
    _Metric(
        "state", "gauge", "1 for the state that the service is in, 0 for the others.", _states, ("state",)
    ),
    _gauge("desired_up", "1 when the service is wanted up.", lambda it: it.info.desired == Desired.UP),
    _gauge("healthy", "What the probes say: 1 healthy, 0 not.", lambda it: _HEALTH.get(it.info.health)),
    _gauge("tcp_port", "Port that it listens on, or will.", lambda it: it.info.tcp_port),
    _gauge("uptime_seconds", "Since the start of the run.", lambda it: it.info.uptime_seconds),
    _counter("restarts_total", "Automatic restarts.", lambda it: it.tally.restarts),
    _counter(
        "oom_kills_total", "Runs that the kernel ended for want of memory.", lambda it: it.tally.oom_kills
    ),
    _Metric(
        "exits_total",
        "counter",
        "Runs that ended, by reason.",
        lambda it: [((reason,), count) for reason, count in it.tally.exits.items()],
        ("reason",),
    ),
    _Metric(
        "events_total",
        "counter",
        "Stored events, by kind and reason.",
        lambda it: it.tally.events.items(),
        ("kind", "reason"),
    ),
    # CPU
    _gauge("cpu_percent", "CPU time used, in percent of one core.", _sampled("cpu_percent")),
    _counter("cpu_seconds_total", "CPU time used by the run.", lambda it: it.info.usage.get("cpu_seconds")),
    _counter("cpu_periods_total", "Periods of cpu_max in which the run ran.", _read("cpu_periods_total")),
    _counter(
        "cpu_throttled_periods_total",
        "Periods in which cpu_max held the run back.",
        _read("cpu_throttled_periods_total"),
    ),
    _counter(
        "cpu_throttled_seconds_total",
        "Time for which cpu_max held the run back.",
        _read("cpu_throttled_usec", 1e-6),
    ),
    # memory
    _gauge("memory_bytes", "Memory that cannot be dropped at once: the working set.", _memory_bytes),
    _gauge("memory_current_bytes", "Memory with all page cache.", _sampled("memory_current_bytes")),
    _gauge("memory_anon_bytes", "Memory that belongs to no file.", _sampled("memory_anon_bytes")),
    _Metric(
        "memory_events_total",
        "counter",
        "What befell the run at its memory limits, as the kernel counts it.",
        _memory_events,
        ("event",),
    ),
    # the rest of what is used
    _gauge("pids", "Tasks, which threads are.", lambda it: it.info.usage.get("pids")),
    _gauge("open_files", "Open descriptors.", _sampled("open_files")),
    _gauge("connections", "Sockets of TCP and UDP.", _sampled("connections")),
    _counter("io_read_bytes_total", "Read from block devices by the run.", _read("io_read_bytes_total")),
    _counter("io_write_bytes_total", "Written to block devices by the run.", _read("io_write_bytes_total")),
    _Metric(
        "pressure_ratio",
        "gauge",
        "Share of the last ten seconds in which some or all tasks waited for it.",
        _pressures,
        ("resource", "tasks"),
    ),
    # limits
    _Metric("limit_requested", "gauge", "The limit as configured.", _requested, ("limit",)),
    _Metric("limit_effective", "gauge", "The limit as the kernel holds it.", _effective, ("limit",)),
    _Metric("limit_enforced", "gauge", "1 when the limit is in force.", _enforced, ("limit",)),
    # probes
    _Metric(
        "probe_success",
        "gauge",
        "1 when the last answer was good.",
        _of_probes(lambda probe: probe.ok),
        ("probe",),
    ),
    _Metric(
        "probe_duration_seconds",
        "gauge",
        "How long the last answer took.",
        _of_probes(lambda probe: probe.latency_seconds),
        ("probe",),
    ),
    _Metric(
        "probe_consecutive_failures",
        "gauge",
        "Bad answers in a row.",
        _of_probes(lambda probe: probe.failures),
        ("probe",),
    ),
    # output
    _counter("log_lines_total", "Lines of output taken in.", lambda it: it.info.logs.get("lines_total")),
    _counter(
        "log_lines_dropped_total",
        "Lines of these that could not be stored.",
        lambda it: it.info.logs.get("dropped_total"),
    ),
)
