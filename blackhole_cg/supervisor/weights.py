"""Carries out what rules do to weights, and takes it back when their metric has come back within bounds."""

from __future__ import annotations

from collections.abc import Callable

from blackhole_cg.core.monitor_spec import Action, RuleSpec, format_value
from blackhole_cg.core.samples import Sample
from blackhole_cg.core.weights import describe_weights, effective_weights
from blackhole_cg.runner.service import ServiceRunner


class ChangedWeights:
    """The weights that rules have changed, by service; forgotten with the run, whose cgroup goes with it.

    Args:
        adjust: carries out an action.
        record: stores (service, detail) as an event of a rule.
    """

    def __init__(
        self, adjust: Callable[[ServiceRunner, Action], None], record: Callable[[str, str], None]
    ) -> None:
        self._adjust = adjust
        self._record = record
        self._changed: dict[str, dict[str, Action]] = {}
        self._rules: dict[str, tuple[RuleSpec, ...]] = {}  # by which they were changed

    def change(self, runner: ServiceRunner, rule: RuleSpec) -> None:
        """Do what the rule says; of several rules the last that was broken counts."""
        changed = self._changed.setdefault(runner.name, {})
        changed.pop(rule.name, None)
        changed[rule.name] = rule.action
        self._rules[runner.name] = runner.spec.monitor.rules
        self._adjust(runner, rule.action)

    def take_back(self, runner: ServiceRunner, rule: RuleSpec, sample: Sample) -> None:
        """The rule is not broken any more: back to what others, or the configuration, say."""
        changed = self._changed.get(runner.name, {})
        action = changed.pop(rule.name, None)
        if action is None:
            return
        weights = effective_weights(runner.spec.limits, changed.values(), action)
        value = sample.value(rule.metric)
        told = "" if value is None else f" ({rule.metric} {format_value(rule.metric, value)})"
        self._record(runner.name, f"{rule.name}: back within bounds{told}; {describe_weights(weights)}")
        self._adjust(runner, weights)

    def reconfigure(self, runner: ServiceRunner) -> None:
        """Take everything back where the rules are others now: these begin anew, and know of no breach."""
        if self._rules.get(runner.name, runner.spec.monitor.rules) == runner.spec.monitor.rules:
            return
        changed = self._changed.get(runner.name, {})
        self.forget(runner.name)
        for action in changed.values():
            self._adjust(runner, effective_weights(runner.spec.limits, (), action))

    def forget(self, name: str) -> None:
        """The run has ended."""
        self._changed.pop(name, None)
        self._rules.pop(name, None)
