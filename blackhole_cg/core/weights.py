"""Weights that rules have changed: which hold now, and what they were before."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from blackhole_cg.core.facts import LimitState
from blackhole_cg.core.monitor_spec import Action, ActionKind
from blackhole_cg.core.spec import ResourceLimits

DEFAULT_WEIGHT: Final = 100
"""Of cpu.weight and io.weight. Source: kernel Documentation/admin-guide/cgroup-v2.rst."""


def effective_weights(limits: ResourceLimits, changed: Iterable[Action], touched: Action) -> Action:
    """The weights to write, of those `touched` names: by the last of `changed`, or else by the limits."""
    cpu = limits.cpu_weight or DEFAULT_WEIGHT
    io = limits.io_weight or DEFAULT_WEIGHT
    for action in changed:
        cpu, io = action.cpu_weight or cpu, action.io_weight or io
    return Action(
        ActionKind.WEIGHT,
        cpu_weight=None if touched.cpu_weight is None else cpu,
        io_weight=None if touched.io_weight is None else io,
    )


def describe_weights(weights: Action) -> str:
    """ "cpu_weight 10, io_weight 100"."""
    named = (("cpu_weight", weights.cpu_weight), ("io_weight", weights.io_weight))
    return ", ".join(f"{name} {value}" for name, value in named if value is not None)


def show_weight(configured: LimitState | None, weight: int) -> LimitState | None:
    """What status says of a weight that has been written; None where it has nothing to say."""
    usual = DEFAULT_WEIGHT if configured is None else configured.requested
    if weight == usual:
        return configured
    reason = "changed by a rule, until its metric is back within bounds"
    if configured is None:
        return LimitState(DEFAULT_WEIGHT, weight, enforced=True, reason=reason)
    if configured.reason:
        reason = f"{configured.reason}; {reason}"
    return replace(configured, effective=weight, reason=reason)
