from __future__ import annotations

from blackhole_cg.core.facts import LimitState
from blackhole_cg.core.monitor_spec import Action, ActionKind
from blackhole_cg.core.spec import ResourceLimits
from blackhole_cg.core.weights import describe_weights, effective_weights, show_weight


def weight(cpu: int | None = None, io: int | None = None) -> Action:
    return Action(ActionKind.WEIGHT, cpu_weight=cpu, io_weight=io)


def test_the_last_rule_that_is_broken_counts_then_the_configuration_then_the_kernels_default():
    limits = ResourceLimits(cpu_weight=400)
    assert effective_weights(limits, [weight(50), weight(10, 20)], weight(30)) == weight(10)
    assert effective_weights(limits, [weight(50)], weight(10, 20)) == weight(50, 100)
    assert effective_weights(limits, [], weight(10)) == weight(400)
    assert effective_weights(ResourceLimits(), [], weight(10)) == weight(100)
    assert describe_weights(weight(400, 100)) == "cpu_weight 400, io_weight 100"


def test_status_shows_what_holds_and_that_a_rule_did_it():
    configured = LimitState(400, 400, enforced=True)
    shown = show_weight(configured, 10)
    assert shown is not None
    assert (shown.requested, shown.effective, shown.enforced) == (400, 10, True)
    assert shown.reason == "changed by a rule, until its metric is back within bounds"
    assert show_weight(configured, 400) == configured
    told = show_weight(LimitState(200, 200, reason="no disk heeds it"), 50)
    assert told is not None
    assert told.reason == "no disk heeds it; changed by a rule, until its metric is back within bounds"


def test_a_weight_that_nobody_asked_for_is_shown_only_while_it_is_changed():
    shown = show_weight(None, 10)
    assert shown is not None
    assert (shown.requested, shown.effective) == (100, 10)
    assert show_weight(None, 100) is None
