"""The sockets that the supervisor holds for its services, so that a restart refuses nobody.

A socket is bound before the first run of its service, and stays open between its runs: the kernel completes
connections meanwhile, and they wait to be accepted. Each is also stored with the service manager, where there
is one, and is found again in the processes of a service that outlived an earlier supervisor.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterable
from typing import Protocol

from blackhole_cg.core.socket_spec import parse_stored_name, stored_name
from blackhole_cg.core.spec import ServiceSpec
from blackhole_cg.kernel.bind import bind_socket, is_the_same, refresh, remove_file
from blackhole_cg.kernel.borrow import borrow_sockets
from blackhole_cg.kernel.identity import Identity
from blackhole_cg.kernel.inherited import Inheritance

log = logging.getLogger(__name__)


class Store(Protocol):
    """Where descriptors outlive this process."""

    def keep(self, name: str, descriptor: int) -> None:
        """Store a copy."""

    def keep_no_more(self, name: str) -> None:
        """Let go of it."""


class HeldSockets:
    """Bound sockets by service and name.

    Args:
        store: where to store each.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._held: dict[str, dict[str, socket.socket]] = {}

    def inherit(self, inheritance: Inheritance) -> None:
        """Take what an earlier supervisor held."""
        for stored in inheritance.names:
            place = parse_stored_name(stored)
            if place is None:
                continue
            service, name = place
            while (descriptor := inheritance.take(stored)) is not None:
                try:
                    inherited = socket.socket(fileno=descriptor)
                except OSError as cause:
                    os.close(descriptor)
                    log.warning("%s: what was stored as %s is no socket: %s", service, stored, cause)
                    continue
                if former := self._held.setdefault(service, {}).pop(name, None):
                    former.close()
                self._held[service][name] = inherited

    def prepare(self, spec: ServiceSpec, identity: Identity) -> dict[str, socket.socket]:
        """What to hand to a run of the service, in order: what is held already, and the rest newly bound.

        Raises:
            SpawnError: one cannot be bound; those that were held stay so, and nothing else does.
        """
        held = self._held.get(spec.name, {})
        wanted = {each.name: each for each in spec.sockets}
        for name in [
            name for name in held if name not in wanted or not is_the_same(held[name], wanted[name])
        ]:
            self._drop(spec.name, name)
        fresh: dict[str, socket.socket] = {}
        try:
            for each in spec.sockets:
                if each.name in held:
                    refresh(spec.name, held[each.name], each, identity)
                else:
                    fresh[each.name] = bind_socket(spec.name, each, identity)
        except BaseException:
            for bound in fresh.values():
                _close(bound)
            raise
        for name, bound in fresh.items():
            self._hold(spec.name, name, bound)
        return {each.name: self._held[spec.name][each.name] for each in spec.sockets}

    def recover(self, spec: ServiceSpec, pids: Iterable[int]) -> None:
        """Take back from the processes of a live run what its service listens on and we do not hold."""
        held = self._held.get(spec.name, {})
        missing = [each for each in spec.sockets if each.name not in held]
        for each, found in borrow_sockets(missing, pids):
            self._hold(spec.name, each.name, found)
            missing.remove(each)
            log.info("%s: took its socket %s (%s) back", spec.name, each.name, each.shown)
        for each in missing:
            log.warning(
                "%s: its socket %s (%s) is not held: no process of the run has it",
                spec.name,
                each.name,
                each.shown,
                extra={"service": spec.name},
            )

    def names(self, service: str) -> frozenset[str]:
        """The sockets that are held for a service."""
        return frozenset(self._held.get(service, ()))

    def ports(self, service: str) -> frozenset[int]:
        """The TCP ports that are held for a service."""
        held = self._held.get(service, {}).values()
        inet = (socket.AF_INET, socket.AF_INET6)
        return frozenset(
            each.getsockname()[1] for each in held if each.family in inet and each.type == socket.SOCK_STREAM
        )

    def services(self) -> list[str]:
        """The services for which something is held."""
        return list(self._held)

    def release(self, service: str) -> None:
        """Close what is held for a service, for good: nobody can connect any more."""
        for name in list(self._held.get(service, ())):
            self._drop(service, name)

    def handed_over(self) -> dict[str, int]:
        """Copies, for the caller to close, for whoever comes next in this process's place; by stored name."""
        return {
            stored_name(service, name): os.dup(held.fileno())
            for service, sockets in self._held.items()
            for name, held in sockets.items()
        }

    def close(self) -> None:
        """Close our descriptors and nothing else: what others hold goes on."""
        for sockets in self._held.values():
            for held in sockets.values():
                held.close()
        self._held.clear()

    def _hold(self, service: str, name: str, bound: socket.socket) -> None:
        self._held.setdefault(service, {})[name] = bound
        self._store.keep(stored_name(service, name), bound.fileno())

    def _drop(self, service: str, name: str) -> None:
        sockets = self._held[service]
        _close(sockets.pop(name))
        if not sockets:
            del self._held[service]
        self._store.keep_no_more(stored_name(service, name))


def _close(bound: socket.socket) -> None:
    """For good: with its file, where it has one."""
    remove_file(bound)
    bound.close()
