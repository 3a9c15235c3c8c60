"""From the monitor section to the rules that every other layer reads."""

from __future__ import annotations

from collections.abc import Iterator

from blackhole_cg.core.config.bounds import parse_bound
from blackhole_cg.core.config.monitor_models import Monitor, Rule
from blackhole_cg.core.monitor_spec import Action, Bound, Metric, MonitorSpec, RuleSpec, Side


def resolve_monitor(monitor: Monitor) -> MonitorSpec:
    """The spec of a section; a rule that cannot be understood, which was said already, is left out."""
    return MonitorSpec(monitor.interval, tuple(_rules(monitor)))


def _rules(monitor: Monitor) -> Iterator[RuleSpec]:
    for rule in monitor.rules:
        side = Side.BELOW if rule.above is None else Side.ABOVE
        text = rule.below if rule.above is None else rule.above
        bound = _bound(rule.metric, text)
        if rule.metric is None or bound is None:
            continue
        yield RuleSpec(
            name=rule_name(rule),
            metric=rule.metric,
            bound=bound,
            side=side,
            until=_bound(rule.metric, rule.until),
            for_seconds=rule.for_ or 0.0,
            times=rule.times,
            within_seconds=rule.within or 0.0,
            action=Action(rule.action, rule.signal, rule.reclaim, rule.cpu_weight, rule.io_weight),
            cooldown_seconds=rule.cooldown,
            grace_seconds=monitor.grace,
        )


def rule_name(rule: Rule) -> str:
    """The name of a rule: its own, or "memory_percent above 90, restart"."""
    if rule.name is not None:
        return rule.name
    side, text = (Side.BELOW, rule.below) if rule.above is None else (Side.ABOVE, rule.above)
    return f"{rule.metric} {side} {text}, {rule.action}"


def _bound(metric: Metric | None, text: str | None) -> Bound | None:
    if metric is None or text is None:
        return None
    try:
        return parse_bound(metric, text)
    except ValueError:
        return None
