"""Rules over samples: whether one is broken, for how long it has been, and what is said about it.

Pure: time comes with the samples. An unknown value changes nothing; a silence longer than two intervals
(a machine that was suspended, a supervisor that was stopped) ends whatever was counted, because nobody
knows what the value was in between.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from blackhole_cg.core.facts import LimitState
from blackhole_cg.core.monitor_spec import (
    Action,
    ActionKind,
    Bound,
    Metric,
    RuleSpec,
    Side,
    Whole,
    format_value,
)
from blackhole_cg.core.samples import Sample
from blackhole_cg.core.spec import ResourceLimits
from blackhole_cg.core.units import format_duration

MAX_SILENT_INTERVALS: Final = 2


@dataclass(frozen=True, slots=True)
class Capacity:
    """What percentages are percentages of; None is unlimited or unknown."""

    cpu_limit_percent: float | None = None
    memory_limit_bytes: float | None = None
    pids_limit: float | None = None
    host_cpus: int | None = None
    host_memory_bytes: float | None = None

    @classmethod
    def of(cls, limits: ResourceLimits, host_cpus: int | None, host_memory_bytes: int | None) -> Capacity:
        """The capacity of a service with these limits on a host of this size."""
        return cls(
            _number(limits.cpu_percent),
            _number(limits.memory_max_bytes),
            _number(limits.pids_max),
            host_cpus,
            host_memory_bytes,
        )

    def whole(self, metric: Metric, whole: Whole) -> float | None:
        """What 100 % of the limit or of the host is, in the metric's unit."""
        if whole is Whole.HOST:
            if metric is Metric.CPU_PERCENT:
                return None if self.host_cpus is None else 100.0 * self.host_cpus
            return self.host_memory_bytes
        if metric is Metric.CPU_PERCENT:
            return self.cpu_limit_percent
        return self.pids_limit if metric is Metric.PIDS else self.memory_limit_bytes


def _number(limit: float | str | None) -> float | None:
    return None if limit is None or isinstance(limit, str) else float(limit)


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule whose bounds are numbers in the metric's unit."""

    spec: RuleSpec
    bound: float
    until: float
    max_silence_seconds: float

    def is_beyond(self, value: float, bound: float) -> bool:
        """Whether a value is on the wrong side of a bound; on it is right."""
        return value > bound if self.spec.side is Side.ABOVE else value < bound


@dataclass(frozen=True, slots=True)
class RuleState:
    """What one rule remembers from sample to sample."""

    run_id: int = 0
    out_since: float | None = None  # of the first sample of the present excursion
    known_at: float | None = None  # of the last sample that had a value
    broken_at: tuple[float, ...] = ()  # samples out of bounds, for rules that count them
    fired_at: float | None = None
    is_broken: bool = False  # it has fired, and the value has not come back since


@dataclass(frozen=True, slots=True)
class Breach:
    """A rule was broken."""

    rule: RuleSpec
    run_id: int
    value: float
    bound: float
    since: float  # monotonic seconds
    held_seconds: float

    def __str__(self) -> str:
        """ "memory_percent 93.1 above 90 for 31s", as events say it."""
        spec = self.rule
        text = f"{spec.metric} {format_value(spec.metric, self.value)} {spec.side} {self._bound_text()}"
        if spec.times is not None:
            text += f" in {spec.times} samples within {format_duration(self.held_seconds)}"
        elif self.held_seconds > 0:
            text += f" for {format_duration(self.held_seconds)}"
        return f"{text} ({spec.note})" if spec.note else text

    def _bound_text(self) -> str:
        text = format_value(self.rule.metric, self.bound)
        written = self.rule.bound
        return text if written.whole is None else f"{text} ({written.value:g}% of {written.whole})"


def compile_rules(specs: Iterable[RuleSpec], capacity: Capacity, interval_seconds: float) -> tuple[Rule, ...]:
    """The rules with their bounds in numbers, without those that are a part of something unlimited."""
    rules = []
    for spec in specs:
        bound = _bound_value(spec.metric, spec.bound, capacity)
        until = bound if spec.until is None else _bound_value(spec.metric, spec.until, capacity)
        if bound is not None and until is not None:
            rules.append(Rule(spec, bound, until, MAX_SILENT_INTERVALS * interval_seconds))
    return tuple(rules)


def _bound_value(metric: Metric, bound: Bound, capacity: Capacity) -> float | None:
    if bound.whole is None:
        return bound.value
    whole = capacity.whole(metric, bound.whole)
    return None if whole is None else whole * bound.value / 100


def evaluate(rule: Rule, state: RuleState, sample: Sample) -> tuple[RuleState, Breach | None]:
    """What the rule knows after a sample, and the breach if it fires now.

    A breach that goes on fires again after each cooldown; the cooldown outlives the run, the rest does not.
    """
    if sample.run_id != state.run_id:
        state = RuleState(sample.run_id, fired_at=state.fired_at)
    value = sample.value(rule.spec.metric)
    if value is None or sample.uptime_seconds < rule.spec.grace_seconds:
        return state, None
    state = _observe(rule, state, value, sample.taken_at)
    since = _broken_since(rule, state, value, sample.taken_at)
    if since is None or _cools_down(rule, state, sample.taken_at):
        return state, None
    held_seconds = sample.taken_at - since
    breach = Breach(rule.spec, sample.run_id, value, rule.bound, since, held_seconds)
    return replace(state, fired_at=sample.taken_at, broken_at=(), is_broken=True), breach


def has_recovered(before: RuleState, after: RuleState) -> bool:
    """Whether the sample between these states has ended a breach of the same run."""
    return before.is_broken and not after.is_broken and before.run_id == after.run_id


def _observe(rule: Rule, state: RuleState, value: float, now: float) -> RuleState:
    """The state with one more known value."""
    was_silent = state.known_at is not None and now - state.known_at > rule.max_silence_seconds
    out_since = None if was_silent else state.out_since
    broken_at = () if was_silent else state.broken_at
    if rule.is_beyond(value, rule.bound):
        out_since = now if out_since is None else out_since
        if rule.spec.times is not None:
            broken_at = (*broken_at, now)[-rule.spec.times :]
    elif not rule.is_beyond(value, rule.until):
        out_since = None
    is_back = not rule.is_beyond(value, rule.bound) and not rule.is_beyond(value, rule.until)
    is_broken = state.is_broken and not is_back
    return replace(state, out_since=out_since, known_at=now, broken_at=broken_at, is_broken=is_broken)


def _broken_since(rule: Rule, state: RuleState, value: float, now: float) -> float | None:
    """Since when the rule is broken, if it is broken by this value."""
    if not rule.is_beyond(value, rule.bound):
        return None
    if rule.spec.times is not None:
        enough = len(state.broken_at) == rule.spec.times
        return state.broken_at[0] if enough and now - state.broken_at[0] <= rule.spec.within_seconds else None
    assert state.out_since is not None, "a value beyond the bound is out since now at the latest"
    return state.out_since if now - state.out_since >= rule.spec.for_seconds else None


def _cools_down(rule: Rule, state: RuleState, now: float) -> bool:
    return state.fired_at is not None and now - state.fired_at < rule.spec.cooldown_seconds


def builtin_rules(limits: ResourceLimits, enforced: Mapping[str, LimitState]) -> tuple[RuleSpec, ...]:
    """The rules that stand in for limits which this host cannot enforce: memory, by a restart.

    It takes two samples in a row, because one can be a passing peak that the kernel would have reclaimed.
    Where the kernel holds another value, because a change of it was refused, that value is the limit.
    """
    memory_max = _number(limits.memory_max_bytes)
    state = enforced.get("memory_max")
    if memory_max is None or state is None or state.enforced or state.effective is not None:
        return ()
    return (
        RuleSpec(
            name="memory_max",
            metric=Metric.MEMORY_BYTES,
            bound=Bound(memory_max),
            for_seconds=1.0,
            action=Action(ActionKind.RESTART),
            cooldown_seconds=0.0,
            grace_seconds=0.0,
            note="memory_max, enforced by the monitor because the kernel cannot here",
        ),
    )
