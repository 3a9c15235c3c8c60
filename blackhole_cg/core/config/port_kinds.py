"""Kinds of values that say which TCP port: one of a service, and a range to take them from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from blackhole_cg.core.config.kinds import JsonSchema, Kind, Whole, describe
from blackhole_cg.core.spec import PortRange
from blackhole_cg.core.words import AUTO, Auto

_RANGE: Final = re.compile(r"([0-9]{1,5})-([0-9]{1,5})")
_LAST: Final = 65535


@dataclass(frozen=True)
class TcpPort(Kind):
    """A port, or that any will do."""

    def read(self, value: Any) -> int | Auto:
        if value == AUTO:
            return AUTO
        port: int = Whole(1, _LAST).read(value)
        return port

    def accepted(self) -> str:
        return f"1 to {_LAST}, or {AUTO}"

    def schema(self) -> JsonSchema:
        return {"anyOf": [Whole(1, _LAST).schema(), {"const": AUTO}]}


@dataclass(frozen=True)
class Range(Kind):
    """The first and the last port of a range."""

    def read(self, value: Any) -> PortRange:
        match = _RANGE.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            raise ValueError(f"{describe(value)} is not a range of ports")
        low, high = int(match[1]), int(match[2])
        if not 1 <= low <= _LAST or not 1 <= high <= _LAST:
            raise ValueError(f"{describe(value)} is out of range")
        if low > high:
            raise ValueError(f"{describe(value)} ends before it begins")
        return PortRange(low, high)

    def accepted(self) -> str:
        return f"LOW-HIGH, 1 to {_LAST}"

    def schema(self) -> JsonSchema:
        return {"type": "string", "pattern": f"^{_RANGE.pattern}$"}

    def show(self, value: Any) -> Any:
        return str(value)
