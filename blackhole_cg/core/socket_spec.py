"""Sockets that the supervisor holds for a service: where they listen, and what they are called."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

DEFAULT_BACKLOG: Final = 4096
DEFAULT_MODE: Final = 0o660
STORE_PREFIX: Final = "svc/"


class SocketKind(StrEnum):
    """What a socket is, in the words of the configuration."""

    TCP = "tcp"
    UDP = "udp"
    UNIX = "unix"


@dataclass(frozen=True, slots=True)
class SocketSpec:
    """One socket, bound before the service starts and handed to each of its runs.

    `address` is HOST:PORT or [HOST]:PORT with a numeric host, or the absolute path of a unix socket.
    """

    name: str
    kind: SocketKind
    address: str
    backlog: int = DEFAULT_BACKLOG  # connections that wait to be accepted; the kernel may allow fewer
    ipv6only: bool = False
    mode: int = DEFAULT_MODE  # of a unix socket, as are its owner and group
    owner: str | None = None
    group: str | None = None

    @property
    def shown(self) -> str:
        """For a person: "tcp 127.0.0.1:8080"."""
        return f"{self.kind} {self.address}"


def split_address(address: str) -> tuple[str, int]:
    """The host and the port of such an address."""
    host, _, port = address.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


def stored_name(service: str, socket: str) -> str:
    """What a held socket is called wherever it outlives the supervisor."""
    return f"{STORE_PREFIX}{service}/{socket}"


def parse_stored_name(name: str) -> tuple[str, str] | None:
    """The service and the socket in such a name; None for any other."""
    service, _, socket = name.removeprefix(STORE_PREFIX).partition("/")
    return (service, socket) if name.startswith(STORE_PREFIX) and service and socket else None
