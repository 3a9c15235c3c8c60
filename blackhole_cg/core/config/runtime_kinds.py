"""Kinds of values that only the supervisor's own settings have: where it listens."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Any, Final

from blackhole_cg.core.config.kinds import JsonSchema, Kind, describe
from blackhole_cg.core.spec import TcpAddress

_ADDRESS: Final = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)):([0-9]{1,5})")


@dataclass(frozen=True)
class LoopbackAddress(Kind):
    """A numeric address of the loopback interface, and a port."""

    def read(self, value: Any) -> TcpAddress:
        match = _ADDRESS.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            raise ValueError(f"{describe(value)} is not a numeric address with a port")
        try:
            address = ipaddress.ip_address(match[1] or match[2])
        except ValueError:
            raise ValueError(f"{describe(value)} is not a numeric address with a port") from None
        if not address.is_loopback:
            raise ValueError(f"{describe(value)} could be reached from other hosts")
        port = int(match[3])
        if not 1 <= port <= 65535:
            raise ValueError(f"{describe(value)} has no port from 1 to 65535")
        return TcpAddress(str(address), port)

    def accepted(self) -> str:
        return "127.0.0.1:PORT or [::1]:PORT"

    def schema(self) -> JsonSchema:
        return {"type": "string", "pattern": r"^(127\.[0-9.]+|\[::1\]):[0-9]{1,5}$"}

    def show(self, value: Any) -> Any:
        return str(value)
