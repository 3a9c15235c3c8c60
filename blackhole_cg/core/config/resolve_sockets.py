"""From the sockets of a service to what the supervisor binds."""

from __future__ import annotations

from blackhole_cg.core.config.resolve_probes import Texts
from blackhole_cg.core.config.service_models import Service
from blackhole_cg.core.config.socket_models import Socket
from blackhole_cg.core.socket_spec import DEFAULT_BACKLOG, DEFAULT_MODE, SocketKind, SocketSpec


def resolve_sockets(service: Service, texts: Texts) -> tuple[SocketSpec, ...]:
    """The sockets of a service, in the order in which they are handed over."""
    specs = (_resolve(name, socket, service, texts) for name, socket in service.sockets.items())
    return tuple(spec for spec in specs if spec is not None)


def _resolve(name: str, socket: Socket, service: Service, texts: Texts) -> SocketSpec | None:
    """None for one that says nowhere to listen, which has been refused."""
    kind = next((kind for kind in SocketKind if getattr(socket, kind) is not None), None)
    if kind is None:
        return None
    address = texts.fill(getattr(socket, kind))
    backlog = DEFAULT_BACKLOG if socket.backlog is None else socket.backlog
    if kind is not SocketKind.UNIX:
        return SocketSpec(name, kind, address, backlog, socket.ipv6only)
    return SocketSpec(
        name,
        kind,
        texts.locate(address),
        backlog,
        mode=DEFAULT_MODE if socket.mode is None else socket.mode,
        owner=socket.owner or service.user,
        group=socket.group or (service.group if socket.owner is None else None),
    )
