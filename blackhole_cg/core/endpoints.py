"""Where services can be reached: what other programs on this host need to know of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from blackhole_cg.core.spec import ServiceSpec
from blackhole_cg.core.status import ServiceStatus
from blackhole_cg.core.topology import is_up

HOST: Final = "127.0.0.1"
"""Where programs on this host find a service, whichever of its addresses it listens on."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One service that listens somewhere. `tcp` is None for as long as it has no port."""

    service: str
    tcp: str | None
    unix: str | None
    state: str
    health: str
    ready: bool  # whether to connect: it runs, and is healthy if there is a way to tell

    def to_json(self) -> dict[str, Any]:
        """The object that stands under the name of the service."""
        return {name: getattr(self, name) for name in self.__slots__ if name != "service"}


def find_endpoint(spec: ServiceSpec, status: ServiceStatus, port: int | None) -> Endpoint | None:
    """Where a service listens, `port` being where its run does or will; None for one that listens nowhere."""
    if spec.tcp_port is None and spec.unix_socket is None:
        return None
    return Endpoint(
        service=spec.name,
        tcp=None if port is None else f"{HOST}:{port}",
        unix=spec.unix_socket,
        state=str(status.state),
        health=str(status.health),
        ready=is_up(spec, status),
    )
