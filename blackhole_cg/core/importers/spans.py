"""Spans of time as other programs spell them."""

from __future__ import annotations

import re
from typing import Final

_NAMES: Final = {
    1e-6: "us usec µs",
    1e-3: "ms msec",
    1.0: "s sec second seconds",
    60.0: "m min minute minutes",
    3600.0: "h hr hour hours",
    86400.0: "d day days",
}
_UNITS: Final = {"": 1.0, **{name: seconds for seconds, names in _NAMES.items() for name in names.split()}}
_PART: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-zµ]*)\s*")


def read_span(text: str) -> float:
    """Seconds of "5min 20s", "1m30s", "1.5h" or "90"; infinity for "infinity".

    Source: systemd.time(7); the form of compose files is a part of it.

    Raises:
        ValueError: it is not a span of time.
    """
    if text.strip() == "infinity":
        return float("inf")
    seconds, end = 0.0, 0
    while end < len(text):
        match = _PART.match(text, end)
        if match is None or match[2] not in _UNITS:
            raise ValueError(f"'{text}' is not a span of time")
        seconds += float(match[1]) * _UNITS[match[2]]
        end = match.end()
    if end == 0:
        raise ValueError("is empty (expected a span of time)")
    return seconds
