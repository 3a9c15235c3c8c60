"""The monitor section: what it is resolved to, and what is said about rules that cannot work."""

from __future__ import annotations

import signal

import pytest

from blackhole_cg.core.config.bounds import parse_bound
from blackhole_cg.core.monitor_spec import (
    Action,
    ActionKind,
    Bound,
    Metric,
    MonitorSpec,
    RuleSpec,
    Side,
    Whole,
)
from tests.core.config.files import MAIN, lines_of, service


def monitored(rules: str, keys: str = "", resources: str = "{processes: 10}") -> str:
    return f"services:\n  web:\n    resources: {resources}\n    monitor: {{{keys}rules: [{rules}]}}\n"


def rule(text: str) -> RuleSpec:
    (found,) = service(monitored(text)).monitor.rules
    return found


def test_the_contracts_example():
    spec = service(
        monitored("{metric: memory_percent, above: 90, for: 30s, action: restart}", "interval: 5s, ")
    )
    expected = RuleSpec(
        "memory_percent above 90, restart",
        Metric.MEMORY_PERCENT,
        Bound(90),
        for_seconds=30,
        action=Action(ActionKind.RESTART),
    )
    assert spec.monitor == MonitorSpec(5.0, (expected,))


def test_without_a_section_there_are_no_rules():
    assert service("services: {web: }").monitor == MonitorSpec()


def test_every_key_of_a_rule():
    made = rule(
        "{name: leak, metric: memory_bytes, below: 1M, until: 2M, for: 1m, action: signal, signal: USR1, "
        "cooldown: 10m}"
    )
    assert (made.name, made.side, made.bound, made.until) == (
        "leak",
        Side.BELOW,
        Bound(2**20),
        Bound(2**21),
    )
    assert (made.for_seconds, made.cooldown_seconds, made.grace_seconds) == (60, 600, 30)
    assert made.action == Action(ActionKind.SIGNAL, signal=signal.SIGUSR1)
    counted = rule("{metric: pids, above: 80%, times: 3, within: 1m, action: weight, cpu_weight: 10}")
    assert (counted.times, counted.within_seconds, counted.bound) == (3, 60, Bound(80, Whole.LIMIT))
    assert counted.action == Action(ActionKind.WEIGHT, cpu_weight=10)
    assert rule("{metric: cpu_percent, above: 5, action: reclaim, reclaim: 8M}").action.reclaim_bytes == 2**23


def test_grace_holds_for_every_rule():
    spec = service(monitored("{metric: threads, above: 5}, {metric: pids, above: 5}", "grace: 2m, "))
    assert [each.grace_seconds for each in spec.monitor.rules] == [120, 120]


def test_a_changed_monitor_needs_no_new_run():
    assert service(monitored("")).config_hash == service(monitored("{metric: pids, above: 5}")).config_hash


@pytest.mark.parametrize(
    ("metric", "text", "bound"),
    [
        (Metric.MEMORY_BYTES, "60M", Bound(60 * 2**20)),
        (Metric.MEMORY_BYTES, "1000", Bound(1000)),
        (Metric.MEMORY_BYTES, "80%", Bound(80, Whole.LIMIT)),
        (Metric.MEMORY_BYTES, "80% of the limit", Bound(80, Whole.LIMIT)),
        (Metric.MEMORY_RSS_BYTES, "12.5 % of host", Bound(12.5, Whole.HOST)),
        (Metric.IO_READ_BYTES_PER_SECOND, "1.5M", Bound(1.5 * 2**20)),
        (Metric.CPU_PERCENT, "150", Bound(150)),
        (Metric.CPU_PERCENT, "90%", Bound(90, Whole.LIMIT)),
        (Metric.CPU_PERCENT, "50% of host", Bound(50, Whole.HOST)),
        (Metric.MEMORY_PERCENT, "90", Bound(90)),
        (Metric.MEMORY_PERCENT, "90%", Bound(90)),
        (Metric.IO_PRESSURE_PERCENT, "0.5%", Bound(0.5)),
        (Metric.PIDS, "80%", Bound(80, Whole.LIMIT)),
        (Metric.THREADS, "200", Bound(200)),
        (Metric.UPTIME_SECONDS, "1d", Bound(86400)),
    ],
)
def test_bounds_by_metric(metric: Metric, text: str, bound: Bound):
    assert parse_bound(metric, text) == bound


@pytest.mark.parametrize(
    ("metric", "text"),
    [
        (Metric.MEMORY_BYTES, "1h"),
        (Metric.MEMORY_BYTES, "-1"),
        (Metric.MEMORY_BYTES, "80% of disk"),
        (Metric.MEMORY_PERCENT, "60M"),
        (Metric.MEMORY_PERCENT, "90% of host"),
        (Metric.THREADS, "80%"),
        (Metric.PIDS, "80% of host"),
        (Metric.IO_WRITE_BYTES_PER_SECOND, "80%"),
        (Metric.UPTIME_SECONDS, "60M"),
        (Metric.CPU_PERCENT, "nan"),
        (Metric.CPU_PERCENT, "inf"),
        (Metric.CPU_PERCENT, "1e400"),
        (Metric.CPU_PERCENT, ""),
        (Metric.CPU_PERCENT, "%"),
    ],
)
def test_bounds_that_do_not_fit(metric: Metric, text: str):
    with pytest.raises(ValueError, match=f"is not a bound for {metric} "):
        parse_bound(metric, text)


MEMORY = "512M, 1GiB, 1.5G or plain bytes"


@pytest.mark.parametrize(
    ("rules", "key", "message"),
    [
        ("{above: 3}", "", "has no metric (accepted: cpu_percent, memory_bytes, "),
        ("foo", "", "'foo' is not a mapping (accepted: a mapping)"),
        ("{metric: pids}", "", "bounds nothing (accepted: above or below)"),
        (
            "{metric: pids, above: 5, below: 3}",
            ".below",
            "above says what the bound is already (keep one of above and below)",
        ),
        ("{metric: pid, above: 5}", ".metric", "'pid' is not known (did you mean 'pids'? "),
        (
            "{metric: pids, above: 5x}",
            ".above",
            "'5x' is not a bound (accepted: by the metric: a number, a size, a duration, 80%, 50% of host)",
        ),
        (
            "{metric: memory_bytes, above: 1h}",
            ".above",
            f"is not a bound for memory_bytes (accepted: {MEMORY}; 80%, which is of the limit; 80% of host)",
        ),
        (
            "{metric: threads, above: 80%}",
            ".above",
            "is not a bound for threads (accepted: a number)",
        ),
        (
            "{metric: pids, above: 5, until: 6}",
            ".until",
            "is out of bounds itself (accepted: a value within the bound)",
        ),
        (
            "{metric: pids, above: 5, within: 1m}",
            ".within",
            "goes with times, which is not set",
        ),
        (
            "{metric: pids, above: 5, times: 3}",
            ".times",
            "needs a time that the samples must be in (set within)",
        ),
        (
            "{metric: pids, above: 5, times: 4, within: 12s}",
            ".times",
            "can never be: there is time for 3 at this interval (accepted: up to that)",
        ),
        (
            "{metric: pids, above: 5, times: 3, within: 1m, for: 5s}",
            ".for",
            "has no meaning beside times (keep one of for and times)",
        ),
        (
            "{metric: pids, above: 5, action: signal}",
            ".action",
            "needs to know what to set (set signal)",
        ),
        (
            "{metric: pids, above: 5, reclaim: 1M}",
            ".reclaim",
            "is for `action: reclaim` only",
        ),
        (
            "{metric: pids, above: 5}, {metric: pids, above: 5, action: log}",
            "1",
            "is called like a rule above it (accepted: each name once)",
        ),
    ],
)
def test_rules_that_cannot_work(rules: str, key: str, message: str):
    (line,) = lines_of({MAIN: monitored(rules)})
    where = f"rules[{key or '0'}]" if not key.startswith(".") else f"rules[0]{key}"
    assert f": services.web.monitor.{where}: {message}" in line


@pytest.mark.parametrize(
    ("rules", "limit"),
    [
        ("{metric: memory_percent, above: 90}", "memory_max"),
        ("{metric: memory_bytes, above: 90%}", "memory_max"),
        ("{metric: cpu_percent, above: 90%}", "cpu_percent"),
        ("{metric: pids, above: 90%}", "pids_max"),
    ],
)
def test_a_part_of_a_limit_needs_the_limit(rules: str, limit: str):
    (line,) = lines_of({MAIN: monitored(rules, resources="{memory_max: max, cpu_percent: max}")})
    assert f"is a part of a limit, and the service has no {limit} (" in line
    limited = "{memory_max: 1G, cpu_percent: 50, pids_max: 10}"
    assert lines_of({MAIN: monitored(rules, resources=limited)}) == []


def test_a_secret_bound_is_not_told():
    text = monitored("{metric: threads, above: '${S}'}")
    (line,) = lines_of({MAIN: text}, {"S": "12345M"})
    assert "12345" not in line
