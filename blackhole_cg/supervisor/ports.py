"""The ports of all services: given out before a run begins, kept for as long as it is wanted, taken back."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from blackhole_cg.core.ports import PortHolder, PortTable, written_ports
from blackhole_cg.core.record import Memory
from blackhole_cg.core.spec import ServiceSpec, SupervisorSpec
from blackhole_cg.core.words import AUTO, LIVE_STATES, Desired, Reason, State
from blackhole_cg.errors import SpawnError
from blackhole_cg.runner.host import Host
from blackhole_cg.runner.service import ServiceRunner

_log = logging.getLogger(__name__)

CONFLICTS_TOLD: Final = 3
"""Of the ports that are tried in vain at one start; the rest are counted."""

_AT_REST: Final = frozenset({State.STOPPED, State.FAILED, State.COMPLETED})


class PortSink(Protocol):
    """Where the next supervisor will look."""

    def save_port(self, service: str, port: int) -> None:
        """Remember the port of a service."""


class Ports:
    """Gives ports to services.

    Args:
        spec: the configuration.
        host: knows who else has a port.
        states: remembers ports.
        note: stores (service, detail) as an event.
    """

    def __init__(
        self, spec: SupervisorSpec, host: Host, states: PortSink, note: Callable[[str, str], None]
    ) -> None:
        self._host = host
        self._states = states
        self._note = note
        self._short: set[str] = set()
        self._table = PortTable(spec.runtime.port_range, _fixed(spec))

    def reconfigure(self, spec: SupervisorSpec) -> None:
        """Go by another configuration from now on; a port that is held stays so until its run is over."""
        self._table.reconfigure(spec.runtime.port_range, _fixed(spec))

    def restore(self, memory: Memory, boot_id: str, runners: Mapping[str, ServiceRunner]) -> None:
        """Hold what an earlier supervisor gave to what may still live, before anything is given anew."""
        for name, port in memory.ports.items():
            self._table.remember(name, port)
        if memory.boot_id != boot_id:
            return
        for name, record in memory.runs.items():
            given = record.tcp_port or memory.ports.get(name)
            if given is not None:
                self._table.hold(name, given)
        for name, status in memory.statuses.items():
            is_wanted = status.desired is Desired.UP and status.state not in _AT_REST
            if is_wanted and name in memory.ports and self._table.held(name) is None:
                self._table.hold(name, memory.ports[name])
        for name, runner in runners.items():
            runner.tcp_port = self._table.held(name)

    def settle(self, runners: Mapping[str, ServiceRunner]) -> None:
        """Take back what is not wanted, once it is known what lives and what is configured."""
        for name in self._table.known():
            if name not in runners:
                self._table.forget(name)
        for name, runner in runners.items():
            if runner.run is not None and runner.tcp_port is not None:
                self._table.hold(name, runner.tcp_port)
            self.note(runner)

    def assign(self, runner: ServiceRunner) -> int | None:
        """The port of the run that is to begin, held and stored; None when the service has none.

        Raises:
            SpawnError: none is left, or another service has the one that is written.
        """
        spec = runner.spec
        runner.tcp_port = None
        self._short.discard(spec.name)
        if spec.tcp_port != AUTO:
            self._hold_fixed(spec)
            return spec.tcp_port
        kept = self._table.held(spec.name)
        port = self._find(spec.name)
        if port is None:
            self._table.release(spec.name)
            self._short.add(spec.name)
            raise SpawnError(spec.name, "find a port", detail=self._table.shortage(spec.name))
        self._table.hold(spec.name, port)
        self._states.save_port(spec.name, port)
        if port != kept:
            self._note(spec.name, f"assigned {port}")
            _log.info("%s: port %d is assigned", spec.name, port, extra={"service": spec.name})
        return port

    def is_short(self, name: str) -> bool:
        """Whether the latest start of a service failed only because no port was left."""
        return name in self._short

    def note(self, runner: ServiceRunner) -> None:
        """Take in a new status: a port is kept for as long as there is a run, or another one is wanted.

        One that has been written for another service meanwhile is kept no longer than the run.
        """
        if runner.status.state is State.WAITING:
            self._short.discard(runner.name)
        if runner.status.state in LIVE_STATES:
            return
        is_written = self._table.is_written(self._table.held(runner.name))
        if is_written and runner.spec.tcp_port == AUTO:
            self._host.sockets.release(runner.name)  # whom it is written for may bind it
        if runner.status.state in _AT_REST or runner.spec.tcp_port != AUTO or is_written:
            self._table.release(runner.name)
            runner.tcp_port = None

    def note_end(self, runner: ServiceRunner) -> None:
        """A run is over; if somebody else has its port now, that is why, or at least worth knowing."""
        status, port = runner.status, runner.tcp_port
        if port is None or status.desired is not Desired.UP or status.ending is Reason.OPERATOR:
            return
        holder = self._host.port_holder(port)
        if holder is None or holder.is_closing or holder.pid == os.getpid():
            return
        if runner.spec.tcp_port == AUTO:
            self._tell_conflict(runner.name, f"{_taken(port, holder)}: another is tried at the next start")
            self._table.forget(runner.name)
        else:
            self._tell_conflict(runner.name, f"{_taken(port, holder)}, which is the tcp_port of this service")

    def forget(self, name: str) -> None:
        """There is no such service any more."""
        self._table.forget(name)
        self._short.discard(name)

    def _hold_fixed(self, spec: ServiceSpec) -> None:
        port = spec.tcp_port
        if not isinstance(port, int):
            self._table.release(spec.name)
            return
        if not self._table.hold(spec.name, port):
            holder = self._table.holder(port)
            detail = f"'{holder}' has it for as long as it runs"
            raise SpawnError(spec.name, f"take tcp_port {port}", detail=detail)

    def _find(self, name: str) -> int | None:
        """The first port for this service that nobody has."""
        own, conflicts = self._table.last(name), 0
        for port in self._table.candidates(name):
            holder = self._host.port_holder(port, identify=conflicts < CONFLICTS_TOLD)
            # What we hold ourselves for the service, to hand it over, is no conflict.
            if holder is None or (port == own and holder.pid == os.getpid()):
                self._count_untold(name, conflicts)
                return port
            conflicts += 1
            if conflicts <= CONFLICTS_TOLD:
                self._tell_conflict(name, f"{_taken(port, holder)}: another is tried")
        self._count_untold(name, conflicts)
        return None

    def _count_untold(self, name: str, conflicts: int) -> None:
        if conflicts > CONFLICTS_TOLD:
            self._tell_conflict(name, f"{conflicts - CONFLICTS_TOLD} more ports of the range are taken")

    def _tell_conflict(self, name: str, text: str) -> None:
        _log.warning("%s: %s", name, text, extra={"service": name})
        self._note(name, f"conflict: {text}")


def _taken(port: int, holder: PortHolder) -> str:
    return f"port {port} cannot be had ({holder.problem})" if holder.problem else f"{holder} has port {port}"


def _fixed(spec: SupervisorSpec) -> frozenset[int]:
    """The ports that are written in the configuration."""
    listen = spec.runtime.metrics_listen
    written = {listen.port} if listen is not None else set()
    return frozenset(written.union(*map(written_ports, spec.services.values())))
