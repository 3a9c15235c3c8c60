from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blackhole_cg.core.facts import LimitState
from blackhole_cg.core.monitor_spec import ActionKind, Bound, Metric, RuleSpec, Side, Whole
from blackhole_cg.core.rules import (
    MAX_SILENT_INTERVALS,
    Breach,
    Capacity,
    RuleState,
    builtin_rules,
    compile_rules,
    evaluate,
    has_recovered,
)
from blackhole_cg.core.samples import Sample
from blackhole_cg.core.spec import ResourceLimits

INTERVAL = 5.0
MIB = 2**20
STEADY = RuleSpec(
    "memory", Metric.MEMORY_PERCENT, Bound(90), for_seconds=30, cooldown_seconds=60, grace_seconds=0
)


def sample(at: float, value: float | None, run_id: int = 1, began: float = 0.0) -> Sample:
    return Sample(at, run_id, at - began, memory_percent=value, memory_bytes=value)


def breaches(spec: RuleSpec, samples: list[Sample], capacity: Capacity | None = None) -> list[Breach]:
    """Everything that fires over a series of samples."""
    (rule,) = compile_rules([spec], capacity or Capacity(), INTERVAL)
    state, found = RuleState(), []
    for each in samples:
        state, breach = evaluate(rule, state, each)
        found += [breach] if breach else []
    return found


def every_5s(*values: float | None) -> list[Sample]:
    return [sample(100 + INTERVAL * index, value) for index, value in enumerate(values)]


def fired_at(spec: RuleSpec, samples: list[Sample]) -> list[float]:
    return [breach.since + breach.held_seconds for breach in breaches(spec, samples)]


# ---- how long ----


def test_it_fires_after_the_whole_time_and_says_so():
    (breach,) = breaches(STEADY, every_5s(*[93.14] * 7))
    assert (breach.value, breach.since, breach.held_seconds) == (93.14, 100, 30)
    assert str(breach) == "memory_percent 93.1 above 90 for 30s"


def test_one_value_within_bounds_begins_the_time_anew():
    assert fired_at(STEADY, every_5s(*[93] * 6, 90, *[93] * 7)) == [165]


def test_a_value_on_the_bound_is_within_it():
    assert fired_at(replace(STEADY, for_seconds=0), every_5s(90, 90.1, 89)) == [105]
    below = replace(STEADY, for_seconds=0, side=Side.BELOW, bound=Bound(10), until=Bound(20))
    assert fired_at(below, every_5s(10, 9.9)) == [105]


def test_an_unknown_value_neither_breaks_nor_mends():
    assert fired_at(STEADY, every_5s(93, 93, None, 93, 93, None, 93)) == [130]
    assert fired_at(STEADY, every_5s(*[None] * 20)) == []


def test_a_long_silence_ends_the_time():
    unknown = every_5s(93, 93, 93, 93, 93, None, None, 93, 93)
    assert fired_at(STEADY, unknown) == []


def test_a_suspended_machine_breaks_nothing():
    awake = every_5s(93, 93)
    later = [sample(each.taken_at + 3600, 93) for each in awake]
    assert fired_at(STEADY, awake + later) == []


def test_hysteresis_holds_until_the_value_is_well_below():
    wide = replace(STEADY, until=Bound(80))
    dips = every_5s(93, 85, 93, 81, 93, 85, 85, 93)
    assert fired_at(STEADY, dips) == []
    assert fired_at(wide, dips) == [135], "not at 130, when the value was within the bound itself"
    assert fired_at(wide, every_5s(93, 93, 93, 79, 93, 93, 93)) == []


def test_it_fires_again_only_after_the_cooldown():
    assert fired_at(STEADY, every_5s(*[93] * 20)) == [130, 190]


def test_the_cooldown_outlives_the_run_and_nothing_else_does():
    first = every_5s(*[93] * 7)
    second = [sample(each.taken_at + 35, 93, run_id=2) for each in every_5s(*[93] * 20)]
    assert fired_at(STEADY, first + second) == [130, 190]
    assert fired_at(replace(STEADY, cooldown_seconds=0), first + second)[:2] == [130, 165]


def test_a_young_run_has_grace():
    young = [sample(each.taken_at, 93, began=100) for each in every_5s(*[93] * 14)]
    assert fired_at(replace(STEADY, grace_seconds=30), young) == [160]


# ---- how often ----

FLAPPING = RuleSpec(
    "flaps", Metric.MEMORY_PERCENT, Bound(90), times=3, within_seconds=30, cooldown_seconds=0, grace_seconds=0
)


def test_flapping_is_seen_where_a_steady_rule_sees_nothing():
    flaps = every_5s(93, 50, 93, 50, 93, 50)
    assert fired_at(STEADY, flaps) == []
    (breach,) = breaches(FLAPPING, flaps)
    assert str(breach) == "memory_percent 93 above 90 in 3 samples within 20s"


def test_samples_too_far_apart_do_not_add_up():
    assert fired_at(FLAPPING, every_5s(93, *[50] * 6, 93, *[50] * 6, 93)) == []


def test_counting_begins_anew_after_it_has_fired():
    assert fired_at(FLAPPING, every_5s(*[93] * 6)) == [110, 125]


# ---- bounds ----


@pytest.mark.parametrize(
    ("metric", "bound", "expected"),
    [
        (Metric.MEMORY_BYTES, Bound(60 * MIB), 60 * MIB),
        (Metric.MEMORY_BYTES, Bound(80, Whole.LIMIT), 80 * MIB),
        (Metric.MEMORY_RSS_BYTES, Bound(50, Whole.HOST), 500 * MIB),
        (Metric.CPU_PERCENT, Bound(50, Whole.LIMIT), 25),
        (Metric.CPU_PERCENT, Bound(50, Whole.HOST), 200),
        (Metric.PIDS, Bound(10, Whole.LIMIT), 2),
    ],
)
def test_bounds_become_numbers(metric, bound, expected):
    capacity = Capacity(50.0, 100 * MIB, 20.0, 4, 1000 * MIB)
    (rule,) = compile_rules([RuleSpec("x", metric, bound)], capacity, INTERVAL)
    assert (rule.bound, rule.until) == (expected, expected)


def test_a_part_of_something_unlimited_is_no_rule():
    specs = [RuleSpec("x", Metric.MEMORY_BYTES, Bound(80, Whole.LIMIT))]
    limits = ResourceLimits(memory_max_bytes="max")
    assert compile_rules(specs, Capacity.of(limits, 2, 1000), INTERVAL) == ()


def test_a_breach_of_a_part_says_what_it_is_a_part_of():
    spec = RuleSpec("x", Metric.MEMORY_BYTES, Bound(80, Whole.LIMIT), grace_seconds=0)
    capacity = Capacity(memory_limit_bytes=100 * MIB)
    (breach,) = breaches(spec, [sample(1, 81 * MIB)], capacity)
    assert str(breach) == "memory_bytes 81M above 80M (80% of the limit)"


# ---- the rules that stand in for limits ----


def test_an_unenforceable_memory_limit_is_enforced_by_restarts_and_says_so():
    limits = ResourceLimits(memory_max_bytes=100 * MIB)
    (spec,) = builtin_rules(limits, {"memory_max": LimitState(100 * MIB, reason="no controller")})
    assert spec.action.kind is ActionKind.RESTART
    assert breaches(spec, [sample(1, 101 * MIB), sample(6, 99 * MIB)]) == []
    (breach,) = breaches(spec, [sample(1, 101 * MIB), sample(6, 102 * MIB)])
    assert str(breach) == (
        "memory_bytes 102M above 100M for 5s "
        "(memory_max, enforced by the monitor because the kernel cannot here)"
    )


@pytest.mark.parametrize("state", [LimitState(1, 1, enforced=True), None])
@pytest.mark.parametrize("limit", ["max", None, 100 * MIB])
def test_there_is_no_such_rule_without_need(limit, state):
    held = {} if state is None else {"memory_max": state}
    assert builtin_rules(ResourceLimits(memory_max_bytes=limit), held) == ()


# ---- against a naive reading of the rules ----


@dataclass(frozen=True)
class Known:
    """A sample that counts."""

    at: float
    value: float


def naive_firings(spec: RuleSpec, samples: list[Sample]) -> list[float]:
    """The same answer found the slow way: every sample looks back over all that came before it."""
    fired: list[float] = []
    for index, now in enumerate(samples):
        if now.memory_percent is None or now.uptime_seconds < spec.grace_seconds:
            continue
        past = [
            Known(each.taken_at, each.memory_percent)
            for each in samples[: index + 1]
            if each.memory_percent is not None
            and each.run_id == now.run_id
            and each.uptime_seconds >= spec.grace_seconds
        ]
        cooling = bool(fired) and now.taken_at - fired[-1] < spec.cooldown_seconds
        if is_beyond(spec, now.memory_percent) and not cooling and naively_broken(spec, past, fired):
            fired.append(now.taken_at)
    return fired


def is_beyond(spec: RuleSpec, value: float, bound: Bound | None = None) -> bool:
    limit = (bound or spec.bound).value
    return value > limit if spec.side is Side.ABOVE else value < limit


def naively_broken(spec: RuleSpec, past: list[Known], fired: list[float]) -> bool:
    connected = [past[-1]]
    for each in reversed(past[:-1]):
        if connected[0].at - each.at > MAX_SILENT_INTERVALS * INTERVAL:
            break
        connected.insert(0, each)
    if spec.times is not None:
        broken = [each.at for each in connected if is_beyond(spec, each.value)]
        broken = [at for at in broken if not fired or at > fired[-1]]
        return len(broken) >= spec.times and past[-1].at - broken[-spec.times] <= spec.within_seconds
    out: list[Known] = []
    for each in reversed(connected):
        if not is_beyond(spec, each.value, spec.until):
            break
        out.insert(0, each)
    since = next(each.at for each in out if is_beyond(spec, each.value))
    return past[-1].at - since >= spec.for_seconds


_steps = st.sampled_from([1.0, 4.0, 5.0, 5.0, 5.0, 6.0, 10.0, 11.0, 3600.0])
_values = st.one_of(st.none(), st.sampled_from([10.0, 70.0, 80.0, 85.0, 90.0, 91.0, 95.0]))
_new_run = st.sampled_from([False] * 12 + [True])


@st.composite
def _series(draw) -> list[Sample]:
    at, began, run_id, made = 1000.0, 1000.0, 1, []
    for step, value, is_new in draw(st.lists(st.tuples(_steps, _values, _new_run), max_size=40)):
        at += step
        if is_new:
            run_id, began = run_id + 1, at
        made.append(sample(at, value, run_id, began))
    return made


@st.composite
def _specs(draw) -> RuleSpec:
    side = draw(st.sampled_from(list(Side)))
    loose = Bound(80.0 if side is Side.ABOVE else 91.0)
    times = draw(st.one_of(st.none(), st.integers(2, 4)))
    return RuleSpec(
        "x",
        Metric.MEMORY_PERCENT,
        Bound(90.0 if side is Side.ABOVE else 85.0),
        side,
        until=draw(st.sampled_from([None, loose])) if times is None else None,
        for_seconds=draw(st.sampled_from([0.0, 5.0, 12.0, 30.0])) if times is None else 0.0,
        times=times,
        within_seconds=draw(st.sampled_from([5.0, 15.0, 40.0])),
        cooldown_seconds=draw(st.sampled_from([0.0, 10.0, 60.0])),
        grace_seconds=draw(st.sampled_from([0.0, 12.0])),
    )


@given(_specs(), _series())
def test_it_fires_when_a_naive_reading_says_so(spec: RuleSpec, samples: list[Sample]):
    assert fired_at(spec, samples) == pytest.approx(naive_firings(spec, samples))


# ---- recovery ----


def recovered_at(spec: RuleSpec, samples: list[Sample]) -> list[float]:
    (rule,) = compile_rules([spec], Capacity(), INTERVAL)
    state, found = RuleState(), []
    for each in samples:
        before = state
        state, _ = evaluate(rule, before, each)
        found += [each.taken_at] if has_recovered(before, state) else []
    return found


def test_a_breach_is_over_when_the_value_is_back_within_bounds():
    spec = replace(STEADY, for_seconds=0, until=Bound(80), cooldown_seconds=0)
    assert recovered_at(spec, every_5s(95, 85, None, 91, 80, 70, 95, 10)) == [120, 135]


def test_what_never_fired_does_not_recover():
    assert recovered_at(STEADY, every_5s(95, 95, 10)) == []


def test_a_new_run_does_not_recover_from_the_breach_of_another():
    samples = [sample(100, 95), sample(105, 10, run_id=2, began=100)]
    assert recovered_at(replace(STEADY, for_seconds=0), samples) == []


def test_no_rule_stands_in_for_a_limit_that_the_kernel_holds_with_another_value():
    limits = ResourceLimits(memory_max_bytes=100)
    refused = LimitState(100, 300, reason="not changed while it runs: 200 are in use")
    assert builtin_rules(limits, {"memory_max": refused}) == ()
