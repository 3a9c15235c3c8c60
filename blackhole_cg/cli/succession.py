"""Programs that follow each other in one process: what `run` gets from one, and leaves to the next."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from blackhole_cg import __version__
from blackhole_cg.cli.foreground import Foreground
from blackhole_cg.cli.under_systemd import Reports
from blackhole_cg.control.answers import answer_handed, refuse_handed
from blackhole_cg.core.spec import SupervisorSpec
from blackhole_cg.errors import BlackholeError
from blackhole_cg.kernel.inherited import Inheritance
from blackhole_cg.kernel.successor import Successor
from blackhole_cg.supervisor.supervisor import Supervisor
from blackhole_cg.supervisor.upgrade import CLIENT, Upgrade

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Handed:
    """What the program before this one has left.

    `version` is its version, None where there was no such program; `problem` says why the next one could not
    be executed, so that the same program goes on.
    """

    inherited: Inheritance
    version: str | None = None
    problem: str | None = None

    def confirm(self, services: dict[str, int]) -> None:
        """The services with these pids are taken over: tell whoever asked for the upgrade how it came out."""
        if self.problem is not None:
            logger.error("%s", self.problem)
            self._refuse(self.problem)
        elif self.version is not None:
            logger.info("upgraded from version %s to %s in the same process", self.version, __version__)
            versions = {"version_before": self.version, "version": __version__}
            if (client := self.inherited.take(CLIENT)) is not None:
                answer_handed(client, {"pid": os.getpid(), **versions, "services": services})
        self.inherited.close()

    @contextmanager
    def told_of_failure(self) -> Iterator[None]:
        """Whoever asked for the upgrade learns why there is no supervisor any more."""
        try:
            yield
        except (BlackholeError, OSError) as error:
            self._refuse(f"upgraded, but version {__version__} cannot begin: {error}")
            raise

    def _refuse(self, reason: str) -> None:
        if (client := self.inherited.take(CLIENT)) is not None:
            refuse_handed(client, reason)


@dataclass(frozen=True, slots=True)
class Departure:
    """What this program leaves to the next: descriptors by name, which are the next one's to close."""

    successor: Successor
    descriptors: dict[str, int]
    spec: SupervisorSpec

    def execute(self) -> Handed:
        """Become the next program; returns only where that is not possible, with what it would have got."""
        try:
            self.successor.execute(self.descriptors)
            problem = "it was not executed"
        except (OSError, ValueError) as cause:
            problem = str(cause)
        inherited = Inheritance({name: [descriptor] for name, descriptor in self.descriptors.items()})
        return Handed(inherited, __version__, f"cannot upgrade: {problem}; version {__version__} goes on")


class Succession:
    """One supervisor's place in the line.

    Args:
        supervisor: not open yet.
        handed: what the program before has left.
        reports: the service manager is told by these.
    """

    def __init__(self, supervisor: Supervisor, handed: Handed, reports: Reports) -> None:
        self.departure: Departure | None = None  # once this program is to be replaced, and has detached
        self._supervisor = supervisor
        self._handed = handed
        self._reports = reports
        supervisor.inherited = handed.inherited

    def prepare(self, foreground: Foreground, arguments: Sequence[str]) -> None:
        """Let the supervisor be replaced by a program with these arguments after its command `run`."""
        successor = Successor(arguments, self._supervisor.paths.to_json())

        def leave(descriptors: dict[str, int]) -> None:
            async def depart() -> None:
                await self._supervisor.detach()
                self.departure = Departure(successor, descriptors, self._supervisor.spec)

            self._reports.upgrading()
            foreground.leave(depart)

        self._supervisor.upgrade = Upgrade(self._supervisor, successor, leave)

    def confirm(self) -> None:
        """The supervisor is open: what ran before runs on."""
        if self._handed.version is not None:
            self._reports.upgraded()
        self._handed.confirm(self._supervisor.services.pids())
