"""Where configurations come from, and those that were applied last."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from blackhole_cg.core.spec import SupervisorSpec
from blackhole_cg.errors import OperationError, StoreError
from blackhole_cg.observe.config_history import ConfigHistory, Entry
from blackhole_cg.runner.clock import Clock, wall_text

_log = logging.getLogger(__name__)

Source = Callable[[], Awaitable[SupervisorSpec]]


@dataclass(frozen=True, slots=True)
class Sources:
    """Ways to get a configuration: the one this supervisor was started with, or any file."""

    own: Source | None
    read: Callable[[Path], Awaitable[SupervisorSpec]]

    async def again(self) -> SupervisorSpec:
        """What the supervisor was started with, as it is now. Raises ConfigError, OperationError."""
        if self.own is None:
            raise OperationError("cannot reload: the configuration did not come from a file")
        return await self.own()


class AppliedConfigurations:
    """Keeps each configuration before it is acted on. Where that fails it is told, and all goes on."""

    def __init__(self, directory: Path, clock: Clock) -> None:
        self._history = ConfigHistory(directory)
        self._clock = clock
        self._latest: SupervisorSpec | None = None

    def entries(self) -> list[Entry]:
        """What is kept, oldest first."""
        return self._history.entries()

    def keep(self, spec: SupervisorSpec, how: str, source: str | None) -> None:
        """Keep one, unless it is the one that holds already."""
        if self._history.ends_with(spec) if self._latest is None else spec == self._latest:
            self._latest = spec
            return
        try:
            self._history.add(spec, how, source, wall_text(self._clock.wall()))
            self._latest = spec
        except StoreError as error:
            _log.error("%s: it cannot be returned to", error)

    def before(self, number: int | None) -> tuple[int, SupervisorSpec]:
        """The one with this number, or the one before the newest. Raises OperationError."""
        numbers = [entry.number for entry in self._history.entries()]
        if number is None:
            if len(numbers) < 2:
                raise OperationError("cannot roll back: no configuration before this one is kept")
            number = numbers[-2]
        if number not in numbers:
            kept = ", ".join(map(str, numbers)) or "none"
            raise OperationError(f"cannot roll back to configuration {number}: it is not kept (kept: {kept})")
        try:
            return number, self._history.load(number)
        except StoreError as error:
            raise OperationError(f"cannot roll back: {error}") from error
