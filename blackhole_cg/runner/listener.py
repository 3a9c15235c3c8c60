"""Who is told what a service does: its composer, and whoever takes in what it writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from blackhole_cg.core.events import Announce
from blackhole_cg.runner.host import Run

if TYPE_CHECKING:
    from blackhole_cg.runner.service import ServiceRunner


class Output(Protocol):
    """Where a service's output goes; told which run writes it."""

    def begin_run(self, run_id: int) -> None:
        """From here on, lines belong to this run."""

    def end_run(self) -> None:
        """Take in everything that the run has written, an unfinished last line included."""


class Listener(Protocol):
    """Whoever composes services: is told what happens, and answers when one may start."""

    def record(self, runner: ServiceRunner, announcements: Sequence[Announce]) -> None:
        """The status is a new one, and this happened: both are to be stored, before they are acted on."""

    def assign_port(self, runner: ServiceRunner) -> int | None:
        """The port of the run that is to begin, which is stored; None if it has none. Raises SpawnError."""

    def run_began(self, runner: ServiceRunner, run: Run, run_id: int) -> None:
        """A run has been forked, or is known by another main process or watchdog: to be stored at once."""

    def run_ended(self, runner: ServiceRunner) -> None:
        """Nothing is left of the run; that it has ended is recorded next."""

    def check_dependencies(self, runner: ServiceRunner) -> None:
        """The service waits to start: post DependenciesMet or StartRefused when that is decided."""

    def changed(self, runner: ServiceRunner) -> None:
        """The status of the service is a new one."""
