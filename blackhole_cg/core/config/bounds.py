"""Bounds of monitor rules as text: 60M, 80%, 50% of host, 1h, 90. What fits depends on the metric."""

from __future__ import annotations

import math
import re
from typing import Final

from blackhole_cg.core.monitor_spec import HOST_METRICS, LIMITED_METRICS, Bound, Metric, Whole
from blackhole_cg.core.units import DURATION_FORMS, SIZE_FORMS, parse_duration, parse_size

_NUMBER: Final = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,15})?")
_PERCENT: Final = re.compile(rf"({_NUMBER.pattern})\s*%(?:\s+of\s+(?:the\s+)?(limit|host))?")
_WHOLES: Final = {None: Whole.LIMIT, "limit": Whole.LIMIT, "host": Whole.HOST}


def parse_bound(metric: Metric, text: str) -> Bound:
    """The bound in the metric's unit, or as a percentage of the limit or of the host.

    Raises:
        ValueError: a sentence without the text itself, which may be secret.
    """
    try:
        bound = _percentage(metric, text.strip())
        return Bound(_absolute(metric, text.strip())) if bound is None else bound
    except ValueError:
        raise ValueError(f"is not a bound for {metric} (accepted: {accepted_bounds(metric)})") from None


def accepted_bounds(metric: Metric) -> str:
    """What a bound for this metric can be, in words."""
    forms = DURATION_FORMS if metric.is_seconds else "a number"
    if metric.is_bytes:
        forms = SIZE_FORMS
    if metric in LIMITED_METRICS:
        forms += "; 80%, which is of the limit"
    elif metric.is_percent:
        forms += ", with or without %"
    return forms + ("; 80% of host" if metric in HOST_METRICS else "")


def is_bound(text: str) -> bool:
    """Whether the text is a bound for any metric at all."""
    return any(
        _fits(metric, text) for metric in (Metric.CPU_PERCENT, Metric.MEMORY_BYTES, Metric.UPTIME_SECONDS)
    )


def _fits(metric: Metric, text: str) -> bool:
    try:
        parse_bound(metric, text)
    except ValueError:
        return False
    return True


def _percentage(metric: Metric, text: str) -> Bound | None:
    """The bound of a text with a percent sign; None when there is none."""
    match = _PERCENT.fullmatch(text)
    if match is None:
        return None
    whole = _WHOLES[match[2]]
    allowed = HOST_METRICS if whole is Whole.HOST else LIMITED_METRICS
    if metric in allowed:
        return Bound(float(match[1]), whole)
    if metric.is_percent and match[2] is None:
        return Bound(float(match[1]))
    raise ValueError


def _absolute(metric: Metric, text: str) -> float:
    if metric.is_bytes:
        return float(parse_size(text))
    if metric.is_seconds:
        return parse_duration(text)
    if not _NUMBER.fullmatch(text) or not math.isfinite(float(text)):
        raise ValueError
    return float(text)
