"""The fake of what runs commands for probes: answers what the test says, and keeps what was asked."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from blackhole_cg.core.facts import ExitStatus
from blackhole_cg.core.probe_spec import CommandResult
from blackhole_cg.core.spec import ServiceSpec
from blackhole_cg.errors import SpawnError


@dataclass
class FakeCommands:
    """Every command takes `seconds` and ends with `result`, or fails to start with `error`.

    Services that are in `failing` have commands that say so.
    """

    result: CommandResult = field(default_factory=lambda: CommandResult(ExitStatus(code=0), ""))
    error: SpawnError | None = None
    seconds: float = 0.0
    asked: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    failing: dict[str, str] = field(default_factory=dict)

    async def run(self, spec: ServiceSpec, argv: tuple[str, ...], timeout_seconds: float) -> CommandResult:
        self.asked.append((spec.name, argv))
        await asyncio.sleep(min(self.seconds, timeout_seconds))
        if self.error is not None:
            raise self.error
        if spec.name in self.failing:
            return CommandResult(ExitStatus(code=1), self.failing[spec.name])
        return self.result if self.seconds <= timeout_seconds else CommandResult(None, self.result.output)

    async def clear(self) -> None:
        pass

    async def close(self) -> None:
        pass
