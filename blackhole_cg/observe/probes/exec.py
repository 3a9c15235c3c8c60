"""A command as a question. How it is run is the kernel edge's business: see `CommandRunner`."""

from __future__ import annotations

import posixpath
from functools import partial
from typing import Final, Protocol

from blackhole_cg.core.probe_spec import Answer, CommandResult, ExecTarget
from blackhole_cg.core.spec import ServiceSpec
from blackhole_cg.errors import SpawnError
from blackhole_cg.observe.probes.question import NotOk, excerpt, put

SPARE_SECONDS: Final = 30.0
"""The runner keeps the time limit; past it by this much, something is wrong with the runner."""


class CommandRunner(Protocol):
    """Runs commands beside services. `kernel.probe_run.ProbeCommands` is the real one."""

    async def run(self, spec: ServiceSpec, argv: tuple[str, ...], timeout_seconds: float) -> CommandResult:
        """Run a command as the service's user, in its environment and directory, and wait for its end.

        What is left of it after that, or after the time limit, is killed; so it is when this is cancelled.

        Raises:
            SpawnError: it cannot be started.
        """


async def ask(
    target: ExecTarget, timeout_seconds: float, spec: ServiceSpec, commands: CommandRunner
) -> Answer:
    """Whether the command exits with 0."""
    label = f"exec {posixpath.basename(target.argv[0])}"  # arguments may be secrets
    question = partial(_run, target, timeout_seconds, spec, commands)
    return await put(label, question, timeout_seconds + SPARE_SECONDS)


async def _run(target: ExecTarget, timeout_seconds: float, spec: ServiceSpec, commands: CommandRunner) -> str:
    try:
        result = await commands.run(spec, target.argv, timeout_seconds)
    except SpawnError as cause:
        raise NotOk(cause.cause) from cause
    text = excerpt(result.output.encode())
    said = f": {text}" if text else ""
    if result.status is None:
        raise NotOk(f"killed, as it took more than {timeout_seconds:g}s{said}")
    if result.status.code != 0:
        raise NotOk(f"{result.status}{said}")
    return f"{result.status}{said}"
