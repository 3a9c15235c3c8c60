"""Rules between the keys of a held socket, and between everything that listens somewhere."""

from __future__ import annotations

import ipaddress
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Final

from blackhole_cg.core.config import placeholders
from blackhole_cg.core.config.loaded import LoadedConfig
from blackhole_cg.core.config.messages import Finding
from blackhole_cg.core.config.service_models import Service
from blackhole_cg.core.config.socket_models import KINDS, Socket
from blackhole_cg.core.config.tree import KeyPath, render_key
from blackhole_cg.core.socket_spec import split_address

_ANY: Final = frozenset({"0.0.0.0", "::"})
_METRICS: Final[KeyPath] = ("runtime", "orchestrator", "metrics", "listen")


def socket_texts(path: KeyPath, service: Service) -> Iterator[tuple[KeyPath, str]]:
    """Every text of the sockets in which placeholders are replaced."""
    for name, socket in service.sockets.items():
        for kind in KINDS:
            text = getattr(socket, kind)
            if text is not None:
                yield (*path, "sockets", name, kind), text


def check_sockets(path: KeyPath, service: Service) -> Iterator[Finding]:
    """What is wrong with each socket of a service by itself."""
    accepted = f"accepted: exactly one of {', '.join(KINDS)}"
    for name, socket in service.sockets.items():
        place = (*path, "sockets", name)
        given = [kind for kind in KINDS if getattr(socket, kind) is not None]
        if not given:
            looks_at = tuple((*place, kind) for kind in KINDS)
            yield Finding(place, f"does not say where to listen ({accepted})", True, looks_at=looks_at)
            continue
        for kind in given[1:]:
            message = f"there is {given[0]} already ({accepted})"
            yield Finding((*place, kind), message, True, looks_at=((*place, given[0]),))
        yield from _misplaced(place, socket, given[0])


def _misplaced(place: KeyPath, socket: Socket, kind: str) -> Iterator[Finding]:
    """Keys that mean nothing for this kind of socket."""
    looks_at = ((*place, kind),)
    for key in ("mode", "owner", "group"):
        if kind != "unix" and getattr(socket, key) is not None:
            yield Finding((*place, key), f"a {kind} socket has none (accepted: with unix)", True, looks_at)
    if kind == "udp" and socket.backlog is not None:
        message = "nobody waits to be accepted at a udp socket (accepted: with tcp, unix)"
        yield Finding((*place, "backlog"), message, True, looks_at)
    if socket.ipv6only and not (getattr(socket, kind) or "").startswith("["):
        message = "this is no IPv6 address (accepted: with an address such as [::]:80)"
        yield Finding((*place, "ipv6only"), message, True, looks_at)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where something of a service listens. `host` None: nobody but the service knows; `path` of a socket."""

    service: str
    key: KeyPath
    kind: str
    host: str | None = None
    port: int | None = None
    path: str | None = None
    ipv6only: bool = False


def check_addresses(loaded: LoadedConfig) -> Iterator[Finding]:
    """Held sockets that collide: with each other, and with the tcp_port or unix_socket of another service."""
    places = [
        place
        for name, service in loaded.config.services.items()
        if service.enabled
        for place in _places(loaded, name, service)
    ]
    near: dict[tuple[str, int | str | None], list[_Place]] = {}
    for place in places:
        near.setdefault((place.kind, place.path or place.port), []).append(place)
    told = set()
    for neighbours in near.values():
        for pair in combinations(neighbours, 2):
            first, second = sorted(pair, key=_is_held)  # told at the held one
            if second.key not in told and _is_held(second) and _collide(first, second):
                told.add(second.key)
                message = f"{render_key(first.key)} listens there already ({loaded.position(first.key)})"
                looks_at = tuple(("services", each.service, "enabled") for each in (first, second))
                yield Finding(second.key, message, looks_at=(first.key, *looks_at))
    yield from _metrics(loaded, places)


def _metrics(loaded: LoadedConfig, places: list[_Place]) -> Iterator[Finding]:
    address = loaded.config.runtime.orchestrator.metrics.listen
    if address is None:
        return
    metrics = _Place("", _METRICS, "tcp", address.host, address.port)
    for place in places:
        if _is_held(place) and _collide(metrics, place):
            message = f"the supervisor's metrics have the same address ({loaded.position(_METRICS)})"
            yield Finding(place.key, message, looks_at=(("services", place.service, "enabled"),))


def _places(loaded: LoadedConfig, name: str, service: Service) -> Iterator[_Place]:
    base: KeyPath = ("services", name)
    if isinstance(service.tcp_port, int):
        yield _Place(name, (*base, "tcp_port"), "tcp", port=service.tcp_port)
    directory = loaded.directory_of(name)
    if service.unix_socket is not None:
        path = posixpath.normpath(posixpath.join(directory, service.unix_socket))
        yield _Place(name, (*base, "unix_socket"), "unix", path=path)
    facts = {"name": name, "tcp_port": service.tcp_port, "unix_socket": service.unix_socket}
    facts |= {"data_dir": service.data_dir, "log_level": service.log_level}
    values = {word: str(fact) for word, fact in facts.items() if fact is not None}
    for key, text in socket_texts(base, service):
        kind = str(key[-1])
        filled = placeholders.fill(text, values)
        if kind == "unix":
            yield _Place(name, key, kind, path=posixpath.normpath(posixpath.join(directory, filled)))
        elif filled.rpartition(":")[2].isdigit():
            host, port = split_address(filled)
            yield _Place(name, key, kind, host, port, ipv6only=service.sockets[str(key[-2])].ipv6only)


def _is_held(place: _Place) -> bool:
    return "sockets" in place.key


def _collide(one: _Place, other: _Place) -> bool:
    if one.kind != other.kind:
        return False
    if one.service == other.service and not (_is_held(one) and _is_held(other)):
        return False  # a service's own tcp_port may well be what is held for it
    if one.path is not None or other.path is not None:
        return one.path == other.path
    return one.port == other.port and _hosts_overlap(one, other)


def _hosts_overlap(one: _Place, other: _Place) -> bool:
    if one.host is None or other.host is None or one.host == other.host:
        return True
    first, second = ipaddress.ip_address(one.host), ipaddress.ip_address(other.host)
    if first.version == second.version:
        return not {one.host, other.host}.isdisjoint(_ANY)
    six = one if first.version == 6 else other
    return six.host == "::" and not six.ipv6only
