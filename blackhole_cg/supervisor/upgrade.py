"""Upgrading in place: this program makes sure that the next one can carry on, and ends in its favour.

The next program is executed in the same process. What it gets that it could not have otherwise are
descriptors: the lock, so that nobody else takes it meanwhile, and the control socket, in which clients wait.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, Protocol

from blackhole_cg.core.words import State
from blackhole_cg.errors import OperationError

if TYPE_CHECKING:
    from blackhole_cg.supervisor.supervisor import Supervisor

LOCK: Final = "lock"
CONTROL_SOCKET: Final = "control"
CLIENT: Final = "upgrade"
"""Names of descriptors that go to the next program; those of the sockets of services begin otherwise."""

QUIET_TIMEOUT_SECONDS: Final = 30.0
"""How long what is under way may take to come to its end before an upgrade is refused because of it."""

_LOOK_SECONDS: Final = 0.05
_UNDER_WAY: Final = frozenset({State.STARTING, State.STOPPING})

_log = logging.getLogger(__name__)


class Successor(Protocol):
    """The program that is to follow."""

    async def check(self) -> str:
        """Its version. Raises OperationError where it cannot carry on from here."""


class Upgrade:
    """At most one upgrade of one supervisor.

    Args:
        supervisor: the one that is to be replaced.
        successor: the program that is to follow.
        leave: given descriptors by name for the next program, when the supervisor is to detach.
        quiet_timeout_seconds: how long to wait for what is under way.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        successor: Successor,
        leave: Callable[[dict[str, int]], None],
        quiet_timeout_seconds: float = QUIET_TIMEOUT_SECONDS,
    ) -> None:
        self._supervisor = supervisor
        self._successor = successor
        self._leave = leave
        self._quiet_timeout_seconds = quiet_timeout_seconds
        self._is_under_way = False

    async def begin(self, client: int) -> None:
        """Check the successor, wait until nothing is half done, and leave; from then on no wish is accepted.

        Raises:
            OperationError: the successor cannot carry on, or something takes too long; nothing has changed.
        """
        if self._is_under_way:
            raise OperationError("cannot upgrade: an upgrade is under way")
        self._is_under_way = True
        try:
            version = await self._successor.check()
            await self._until_quiet()
            if self._supervisor.stopping:
                raise OperationError("cannot upgrade: the supervisor is shutting down")
            kept = self._supervisor.share()
        except OSError as cause:
            raise OperationError(
                f"cannot upgrade: cannot keep what has to stay open: {cause.strerror}"
            ) from cause
        finally:
            self._is_under_way = False
        _log.info("leaving everything to version %s, executed in place of this program", version)
        self._supervisor.stopping = True
        self._leave({**kept, CLIENT: client})

    async def _until_quiet(self) -> None:
        """Looks again and again: what it waits for has many ends, and it seldom waits."""
        try:
            async with asyncio.timeout(self._quiet_timeout_seconds):
                while any(self._obstacles()):  # noqa: ASYNC110  see above
                    await asyncio.sleep(_LOOK_SECONDS)
        except TimeoutError:
            obstacles = ", ".join(self._obstacles())
            if obstacles:
                raise OperationError(
                    f"cannot upgrade: still under way after {self._quiet_timeout_seconds:g}s: {obstacles}"
                ) from None

    def _obstacles(self) -> Iterator[str]:
        """What the next program could not go on with as if nothing had been."""
        if self._supervisor.configuration.is_under_way:
            yield "a reload"
        for operation, count in self._supervisor.services.operations.under_way.items():
            if count:
                yield f"a {operation} of services"
        for runner in self._supervisor.services.runners.values():
            if runner.status.state in _UNDER_WAY:
                yield f"'{runner.name}' is {runner.status.state}"


async def begin_upgrade(upgrade: Upgrade | None, client: int) -> None:
    """Begin it, and close the descriptor if that fails. Raises OperationError."""
    try:
        if upgrade is None:
            raise OperationError("cannot upgrade: this supervisor is a part of another program")
        await upgrade.begin(client)
    except BaseException:
        os.close(client)
        raise
