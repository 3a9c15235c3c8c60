"""Ports of services: who has which, and the spec of a run once its port is known.

Until then `tcp_port` of a spec is AUTO, and a mark stands where its text would. No text of a configuration
can contain the mark, because NUL can stand in no argument and no variable.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Final

from blackhole_cg.core.probe_spec import Address
from blackhole_cg.core.socket_spec import SocketKind, split_address
from blackhole_cg.core.spec import PortRange, ServiceSpec
from blackhole_cg.core.words import AUTO

PORT_MARK: Final = "\0tcp_port\0"
"""Stands in every text of a spec for the port that is not known yet."""

UNKNOWN_PORT: Final = 0
"""Stands in the addresses of probes for the port that is not known yet."""


def with_port(spec: ServiceSpec, port: int | None) -> ServiceSpec:
    """The spec of a run that listens on `port`; the same spec where that was known, or is not known yet.

    Every text of the spec is looked at, however deep it lies. `tcp_port` stays AUTO, and `config_hash` as it
    is: neither depends on which port it came to be.
    """
    if spec.tcp_port != AUTO or port is None:
        return spec
    filled: ServiceSpec = _fill(spec, port)
    return filled


def written_ports(spec: ServiceSpec) -> frozenset[int]:
    """The TCP ports that are written for a service: its own, and those of its sockets."""
    sockets = [
        each.address for each in spec.sockets if each.kind is SocketKind.TCP and PORT_MARK not in each.address
    ]
    ports = {split_address(address)[1] for address in sockets}
    return frozenset(ports | {spec.tcp_port} if isinstance(spec.tcp_port, int) else ports)


def displaced(services: Mapping[str, ServiceSpec], given: Mapping[str, int]) -> dict[str, tuple[int, str]]:
    """The services that have been given a port that is written for another, which is to run.

    Args:
        services: those of the configuration.
        given: the ports of live runs that were found for them.

    Returns:
        For each the port, and the service it is written for.
    """
    owners = {port: name for name, spec in services.items() if spec.enabled for port in written_ports(spec)}
    return {
        name: (port, owners[port])
        for name, port in given.items()
        if port in owners and name in services and services[name].tcp_port == AUTO
    }


def _fill(value: Any, port: int) -> Any:
    if isinstance(value, Address):
        is_own = value.unix_socket is None and value.port == UNKNOWN_PORT
        return replace(value, port=port) if is_own else value
    if isinstance(value, str):
        return value.replace(PORT_MARK, str(port)) if PORT_MARK in value else value
    if isinstance(value, tuple):
        return tuple(_fill(item, port) for item in value)
    if isinstance(value, Mapping):
        return {name: _fill(item, port) for name, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        changes = {each.name: _fill(getattr(value, each.name), port) for each in fields(value) if each.init}
        return replace(value, **changes)
    return value


@dataclass(frozen=True, slots=True)
class PortHolder:
    """Who has a port that we did not give out; None is what cannot be seen from here."""

    pid: int | None = None
    command: str | None = None  # without its arguments
    uid: int | None = None
    problem: str | None = None  # why the port cannot be had, where that is not because somebody has it
    is_closing: bool = False  # no process has it any more: the kernel closes what is left of connections

    def __str__(self) -> str:
        if self.problem is not None:
            return self.problem
        if self.is_closing:
            return "a connection that the kernel is still closing"
        if self.pid is not None:
            return f"pid {self.pid}" + (f" ({self.command})" if self.command else "")
        return "an unknown process" + ("" if self.uid is None else f" of user {self.uid}")


class PortTable:
    """Which service holds which port, and which it had before; no port is ever held by two.

    Args:
        ports: the range that `candidates` come from.
        fixed: ports that are in it and are given to nobody, because they are written in the configuration.
    """

    def __init__(self, ports: PortRange, fixed: Collection[int] = ()) -> None:
        self._range = ports
        self._fixed = frozenset(fixed)
        self._held: dict[str, int] = {}
        self._holders: dict[int, str] = {}
        self._last: dict[str, int] = {}

    def reconfigure(self, ports: PortRange, fixed: Collection[int]) -> None:
        """Go by another configuration from now on; what is held stays held."""
        self._range, self._fixed = ports, frozenset(fixed)

    def held(self, service: str) -> int | None:
        """The port that a service holds."""
        return self._held.get(service)

    def last(self, service: str) -> int | None:
        """The port that a service holds or had last."""
        return self._last.get(service)

    def holder(self, port: int) -> str | None:
        """The service that holds a port."""
        return self._holders.get(port)

    def is_written(self, port: int | None) -> bool:
        """Whether a port is written in the configuration, and so given to nobody."""
        return port in self._fixed

    def known(self) -> list[str]:
        """The services that hold a port or had one."""
        return list(self._last)

    def candidates(self, service: str) -> Iterator[int]:
        """The ports a service may be given, best first: its own, then those that nobody had, then the rest.

        The lowest comes first; a port that another service had is left to it for as long as others do.
        """
        own = self._last.get(service)
        if own is not None and self._may_have(service, own):
            yield own
        free = [
            port
            for port in range(self._range.low, self._range.high + 1)
            if port != own and self._may_have(service, port)
        ]
        had = set(self._last.values())
        yield from (port for port in free if port not in had)
        yield from (port for port in free if port in had)

    def _may_have(self, service: str, port: int) -> bool:
        if port in self._fixed or port not in self._range:
            return False
        return self._holders.get(port, service) == service

    def hold(self, service: str, port: int) -> bool:
        """Give a port to a service, instead of the one it has; False, and nothing done, if another has it."""
        if self._holders.get(port, service) != service:
            return False
        self.release(service)
        self._held[service] = self._last[service] = port
        self._holders[port] = service
        return True

    def release(self, service: str) -> None:
        """Take the port of a service back; it gets the same again, if that is to be had."""
        port = self._held.pop(service, None)
        if port is not None:
            del self._holders[port]

    def remember(self, service: str, port: int) -> None:
        """A service that holds none had this port before."""
        self._last[service] = port

    def forget(self, service: str) -> None:
        """There is no such service any more, or it shall have another port."""
        self.release(service)
        self._last.pop(service, None)

    def shortage(self, service: str) -> str:
        """Why there is no candidate, or none that can be had."""
        inside = range(self._range.low, self._range.high + 1)
        ours = sum(port in self._fixed or self._holders.get(port, service) != service for port in inside)
        others = len(self._range) - ours
        return (
            f"no port of runtime.orchestrator.ports.range {self._range} is left: "
            f"{ours} with services, {others} with other programs"
        )
