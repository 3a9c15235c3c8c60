"""What no single value of a rule shows: what belongs together, what has no limit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from blackhole_cg.core.config.bounds import parse_bound
from blackhole_cg.core.config.messages import Finding
from blackhole_cg.core.config.models import Orchestrator
from blackhole_cg.core.config.monitor_models import Monitor, Rule
from blackhole_cg.core.config.resolve_monitor import rule_name
from blackhole_cg.core.config.service_models import Service
from blackhole_cg.core.config.tree import KeyPath
from blackhole_cg.core.monitor_spec import ActionKind, Bound, Metric, Whole
from blackhole_cg.core.words import MAX

_ACTION_KEYS: Final = {
    ActionKind.SIGNAL: ("signal",),
    ActionKind.RECLAIM: ("reclaim",),
    ActionKind.WEIGHT: ("cpu_weight", "io_weight"),
}
_BOUND_KEYS: Final = ("above", "below", "until")
_DEFAULTS: Final[KeyPath] = ("runtime", "orchestrator", "resource_limits")


def check_monitor(path: KeyPath, service: Service, orchestrator: Orchestrator) -> Iterator[Finding]:
    """Everything wrong with the monitor section of the service at `path`."""
    names: set[str] = set()
    for index, rule in enumerate(service.monitor.rules):
        here = (*path, "monitor", "rules", index)
        if rule.metric is None:
            yield Finding(
                here, f"has no metric (accepted: {', '.join(Metric)})", looks_at=((*here, "metric"),)
            )
            continue
        yield from _bounds(here, rule, rule.metric)
        yield from _limit(here, rule, rule.metric, service, orchestrator)
        yield from _timing(here, rule, service.monitor)
        yield from _action(here, rule)
        name = rule_name(rule)
        if name in names:
            yield Finding(here, "is called like a rule above it (accepted: each name once)")
        names.add(name)


def _bounds(here: KeyPath, rule: Rule, metric: Metric) -> Iterator[Finding]:
    both = ((*here, "above"), (*here, "below"))
    if rule.above is None and rule.below is None:
        yield Finding(here, "bounds nothing (accepted: above or below)", looks_at=both)
    if rule.above is not None and rule.below is not None:
        message = "above says what the bound is already (keep one of above and below)"
        yield Finding(both[1], message, looks_at=both[:1])
    for key in _BOUND_KEYS:
        text = getattr(rule, key)
        try:
            _ = None if text is None else parse_bound(metric, text)
        except ValueError as error:
            yield Finding((*here, key), str(error), looks_at=((*here, "metric"),))
    if _is_until_beyond(rule, metric):
        message = "is out of bounds itself (accepted: a value within the bound)"
        yield Finding((*here, "until"), message, looks_at=both)


def _parsed(rule: Rule, metric: Metric) -> Iterator[Bound]:
    for key in _BOUND_KEYS:
        text = getattr(rule, key)
        try:
            if text is not None:
                yield parse_bound(metric, text)
        except ValueError:
            continue


def _is_until_beyond(rule: Rule, metric: Metric) -> bool:
    bounds = list(_parsed(rule, metric))
    if rule.until is None or len(bounds) != 2 or bounds[0].whole is not bounds[1].whole:
        return False
    bound, until = bounds
    return until.value > bound.value if rule.below is None else until.value < bound.value


def _limit(
    here: KeyPath, rule: Rule, metric: Metric, service: Service, orchestrator: Orchestrator
) -> Iterator[Finding]:
    """A percentage needs something that it is a part of."""
    is_part = metric is Metric.MEMORY_PERCENT or any(
        bound.whole is Whole.LIMIT for bound in _parsed(rule, metric)
    )
    if not is_part:
        return
    key, limit, origins = _limit_of(metric, service, orchestrator)
    if limit is None or limit == MAX:
        resources = (*here[:2], "resources")
        looks_at = (*((*resources, origin) for origin in origins), _DEFAULTS)
        message = (
            f"is a part of a limit, and the service has no {key} (set it, or write the bound as a value)"
        )
        yield Finding(here, message, looks_at=looks_at)


def _limit_of(
    metric: Metric, service: Service, orchestrator: Orchestrator
) -> tuple[str, float | str | None, tuple[str, ...]]:
    """The name of a metric's limit, its value, and the keys it comes from."""
    own, default = service.resources, orchestrator.resource_limits
    keys: tuple[str, ...]
    candidates: tuple[float | str | None, ...]
    if metric is Metric.CPU_PERCENT:
        keys, candidates = ("cpu_percent",), (own.cpu_percent, default.default_cpu_percent)
    elif metric is Metric.PIDS:
        keys, candidates = ("pids_max", "processes"), (own.pids_max, own.processes)
    else:
        keys = ("memory_max", "memory_mb")
        candidates = (own.memory_max, own.memory_mb, default.default_memory_mb)
    return keys[0], next((value for value in candidates if value is not None), None), keys


def _timing(here: KeyPath, rule: Rule, monitor: Monitor) -> Iterator[Finding]:
    if rule.times is None:
        if rule.within is not None:
            yield Finding(
                (*here, "within"), "goes with times, which is not set", looks_at=((*here, "times"),)
            )
        return
    if rule.within is None:
        message = "needs a time that the samples must be in (set within)"
        yield Finding((*here, "times"), message, looks_at=((*here, "within"),))
    elif (rule.times - 1) * monitor.interval > rule.within:
        possible = int(rule.within // monitor.interval) + 1
        looks_at = ((*here, "within"), (*here[:-2], "interval"))
        message = f"can never be: there is time for {possible} at this interval (accepted: up to that)"
        yield Finding((*here, "times"), message, looks_at=looks_at)
    for key, value in (("for", rule.for_), ("until", rule.until)):
        if value is not None:
            message = f"has no meaning beside times (keep one of {key} and times)"
            yield Finding((*here, key), message, looks_at=((*here, "times"),))


def _action(here: KeyPath, rule: Rule) -> Iterator[Finding]:
    action = (*here, "action")
    for kind, keys in _ACTION_KEYS.items():
        given = [key for key in keys if getattr(rule, key) is not None]
        if kind is rule.action and not given:
            message = f"needs to know what to set (set {' or '.join(keys)})"
            yield Finding(action, message, looks_at=tuple((*here, key) for key in keys))
        if kind is not rule.action:
            for key in given:
                yield Finding((*here, key), f"is for `action: {kind}` only", looks_at=(action,))
