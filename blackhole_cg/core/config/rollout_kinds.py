"""The kind of value that says how many of a group: a number, or a part of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from blackhole_cg.core.config.kinds import JsonSchema, Kind, Whole, describe

_PERCENT: Final = re.compile(r"([0-9]{1,3})%")
_ALL: Final = 100
_NUMBER: Final = Whole(0, 1000)


@dataclass(frozen=True)
class Share(Kind):
    """A number of instances, or a percentage of them."""

    def read(self, value: Any) -> int | str:
        match = _PERCENT.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            try:
                number: int = _NUMBER.read(value)
            except ValueError as error:
                text = str(error).replace("a whole number", "a whole number or a percentage")
                raise ValueError(text) from None
            return number
        percent = int(match[1])
        if percent > _ALL:
            raise ValueError(f"{describe(value)} is out of range")
        return f"{percent}%" if percent else 0

    def accepted(self) -> str:
        return f"{_NUMBER.accepted()}, or 0% to {_ALL}%"

    def schema(self) -> JsonSchema:
        return {"anyOf": [_NUMBER.schema(), {"type": "string", "pattern": "^(100|[0-9]{1,2})%$"}]}
