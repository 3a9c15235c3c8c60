"""The section of a service's socket that the supervisor holds for it."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Annotated, Any, Final

from blackhole_cg.core.config.kinds import Flag, JsonSchema, Kind, Whole, Words, describe
from blackhole_cg.core.config.section import Section, key
from blackhole_cg.core.config.service_kinds import Mask
from blackhole_cg.core.socket_spec import DEFAULT_BACKLOG, DEFAULT_MODE

LOOPBACK: Final = "127.0.0.1"
KINDS: Final = ("tcp", "udp", "unix")

_PORT: Final = r"([0-9]{1,5}|\{tcp_port\})"
_ADDRESS: Final = re.compile(rf"(?:(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+|localhost)):)?{_PORT}")

_Path = Words("a path", allowed="a path, absolute or relative to this file")
_Account = Words("an account", r"[^\s:/]+", "a name or a number")
SocketName = Annotated[
    str,
    Words(
        "a socket's name",
        "[A-Za-z0-9][A-Za-z0-9_.-]{0,62}",
        "up to 63 of letters, digits, '-', '_' and '.', beginning with a letter or a digit",
    ),
]


@dataclass(frozen=True)
class ListenAddress(Kind):
    """A numeric address and a port, or a port alone; the port may be the placeholder {tcp_port}."""

    def read(self, value: Any) -> str:
        match = _ADDRESS.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            raise ValueError(f"{describe(value)} is not an address to listen on")
        six, four, port = match.groups()
        host = LOOPBACK if four == "localhost" else six or four or LOOPBACK
        try:
            address = ipaddress.IPv6Address(host) if six else ipaddress.IPv4Address(host)
        except ValueError:
            raise ValueError(f"{describe(value)} is not a numeric address with a port") from None
        if port.isdigit() and not 1 <= int(port) <= 65535:
            raise ValueError(f"{describe(value)} has no port from 1 to 65535")
        shown = f"[{address}]" if six else str(address)
        return f"{shown}:{int(port) if port.isdigit() else port}"

    def accepted(self) -> str:
        return f"ADDRESS:PORT with a numeric address, such as 0.0.0.0:80 or [::]:80, or PORT on {LOOPBACK}"

    def schema(self) -> JsonSchema:
        pattern = rf"^((\[[0-9a-fA-F:.]+\]|[0-9.]+|localhost):)?{_PORT}$"
        return {"anyOf": [Whole(1, 65535).schema(), {"type": "string", "pattern": pattern}]}


class Socket(Section):
    """A socket that the supervisor binds, holds across restarts, and hands to every run of the service."""

    tcp: Annotated[str | None, ListenAddress()] = key(None, "Address of a TCP socket.")
    udp: Annotated[str | None, ListenAddress()] = key(None, "Address of a UDP socket.")
    unix: Annotated[str | None, _Path] = key(None, "Path of a unix stream socket.")
    backlog: Annotated[int | None, Whole(1, 65535)] = key(
        None,
        "Connections that may wait to be accepted; the kernel allows no more than net.core.somaxconn.",
        inherits=f"{DEFAULT_BACKLOG}",
    )
    ipv6only: Annotated[bool, Flag()] = key(False, "An IPv6 socket takes no IPv4 connections.")
    mode: Annotated[int | None, Mask()] = key(
        None, "Permissions of a unix socket, in octal; to connect takes write.", inherits=f"{DEFAULT_MODE:o}"
    )
    owner: Annotated[str | None, _Account] = key(
        None, "User who owns a unix socket.", inherits="the service's user"
    )
    group: Annotated[str | None, _Account] = key(
        None, "Group that owns a unix socket.", inherits="the service's group"
    )
