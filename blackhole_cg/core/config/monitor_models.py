"""The sections that say how a service is watched: monitor and its rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from blackhole_cg.core.config.bounds import is_bound
from blackhole_cg.core.config.kinds import Choice, Duration, JsonSchema, Kind, Size, Whole, Words, describe
from blackhole_cg.core.config.resource_models import Weight
from blackhole_cg.core.config.section import Section, key
from blackhole_cg.core.config.service_kinds import SignalName
from blackhole_cg.core.monitor_spec import ActionKind, Metric


@dataclass(frozen=True)
class BoundText(Kind):
    """A bound of a rule, as text; whether it fits the metric is seen only beside it."""

    def read(self, value: Any) -> str:
        if isinstance(value, bool | dict | list | None) or not is_bound(str(value)):
            raise ValueError(f"{describe(value)} is not a bound")
        return str(value).strip()

    def accepted(self) -> str:
        return "by the metric: a number, a size, a duration, 80%, 50% of host"

    def schema(self) -> JsonSchema:
        return {"anyOf": [{"type": "string", "pattern": "^[0-9]"}, {"type": "number", "minimum": 0}]}

    def show(self, value: Any) -> Any:
        return int(value) if value.isdigit() else value


class Rule(Section):
    """One rule: a metric, the bound it must keep, and what happens when it does not."""

    name: Annotated[str | None, Words("a name", r"[^\n]{1,80}", "up to 80 characters")] = key(
        None, "What it is called in events.", inherits="its metric and bound"
    )
    metric: Annotated[Metric | None, Choice(Metric)] = key(
        None, "What is looked at, summed over the processes of the service.", inherits="none: it must be set"
    )
    above: Annotated[str | None, BoundText()] = key(None, "Bound that the value must not be above.")
    below: Annotated[str | None, BoundText()] = key(None, "Bound that the value must not be below.")
    until: Annotated[str | None, BoundText()] = key(
        None, "Value it must come back to before it counts as well again.", inherits="the bound"
    )
    for_: Annotated[float | None, Duration()] = key(
        None,
        "How long it must be out of bounds without a break.",
        inherits="0s: one sample is enough",
        alias="for",
    )
    times: Annotated[int | None, Whole(2, 1000, "samples")] = key(
        None, "Instead of `for`: in how many samples it must be out of bounds, with or without breaks."
    )
    within: Annotated[float | None, Duration(low=1.0)] = key(
        None, "The time that the samples of `times` must be in."
    )
    action: Annotated[ActionKind, Choice(ActionKind)] = key(
        ActionKind.LOG, "What is done when the rule is broken; log only tells."
    )
    signal: Annotated[int | None, SignalName()] = key(None, "For `action: signal`: the signal.")
    reclaim: Annotated[int | None, Size(4096)] = key(
        None, "For `action: reclaim`: how much memory the kernel is asked to take back."
    )
    cpu_weight: Annotated[int | None, Weight] = key(None, "For `action: weight`: the new cpu.weight.")
    io_weight: Annotated[int | None, Weight] = key(None, "For `action: weight`: the new io.weight.")
    cooldown: Annotated[float, Duration()] = key(60.0, "Least time from one firing to the next.")


class Monitor(Section):
    """How the service is watched while it runs."""

    interval: Annotated[float, Duration(low=0.1, high=3600.0)] = key(5.0, "Time from one sample to the next.")
    grace: Annotated[float, Duration()] = key(30.0, "Time after a start in which no rule counts anything.")
    rules: tuple[Rule, ...] = key((), "Rules, each on its own; several may be on one metric.")
