"""The program that takes the place of this one in an upgrade: asked whether it can, then executed.

It is what our own name leads to now. The process stays the same, so that its children stay its children.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any, Final

import prctl

from blackhole_cg import __version__
from blackhole_cg.errors import OperationError
from blackhole_cg.kernel.child_output import read_output
from blackhole_cg.kernel.inherited import laid_out
from blackhole_cg.kernel.own_command import own_command

PROTOCOL: Final = 1
"""How one version hands over to another: the names of the descriptors, and what the check answers."""

CHECK_COMMAND: Final = "upgrade-check"
VERSION_VARIABLE: Final = "BLACKHOLE_CG_UPGRADED_FROM"
"""In the environment of the next program: the version of the one before."""

CHECK_TIMEOUT_SECONDS: Final = 120.0
"""A check takes as long as a start, on a busy machine several seconds."""

_MAX_REASON_LENGTH: Final = 4000


class Successor:
    """The next program, with the command line of this one.

    Args:
        arguments: what follows the command `run` on our command line.
        directories: where we keep what the next program has to find, by what they are for.
    """

    def __init__(self, arguments: Sequence[str], directories: Mapping[str, str]) -> None:
        self._arguments = list(arguments)
        self._directories = dict(directories)

    async def check(self, timeout_seconds: float = CHECK_TIMEOUT_SECONDS) -> str:
        """Ask it whether it can carry on from here; its version.

        Raises:
            OperationError: it cannot, or is not there; the text says why.
        """
        command = own_command(CHECK_COMMAND, *self._arguments)
        child = _begin(command)
        try:
            async with asyncio.timeout(timeout_seconds):
                said = (await read_output(child)).decode(errors="replace")
        except TimeoutError:
            raise _refusal(f"{command[0]} did not answer within {timeout_seconds:g}s") from None
        return self._judge(parse_answer(said), said)

    def execute(self, handed: Mapping[str, int]) -> None:
        """Become it. What `handed` names outlives that, and is otherwise as it was. Raises OSError."""
        command = own_command("run", *self._arguments)
        prctl.set_child_subreaper(True)  # given back already, but orphans must fall to us all along
        with laid_out(handed) as variables:
            environ = {**os.environ, **variables, VERSION_VARIABLE: __version__}
            os.execve(command[0], command, environ)

    def _judge(self, answer: Mapping[str, Any] | None, said: str) -> str:
        if answer is None:
            raise _refusal(said.strip()[-_MAX_REASON_LENGTH:] or "the new version gave no answer")
        version = str(answer.get("version"))
        if answer.get("protocol") != PROTOCOL:
            raise _refusal(f"version {version} takes over in another way than this one hands over")
        for purpose, path in self._directories.items():
            if (other := answer.get(purpose)) != path:
                raise _refusal(f"version {version} would use {other} as {purpose}, and this one uses {path}")
        return version


def _begin(command: Sequence[str]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
    except OSError as cause:
        raise _refusal(f"cannot execute {command[0]}: {cause.strerror}") from cause


def render_answer(directories: Mapping[str, str]) -> str:
    """What a version that can take over says of itself."""
    return json.dumps({"protocol": PROTOCOL, "version": __version__, **directories})


def parse_answer(said: str) -> dict[str, Any] | None:
    """The answer in the last line of what a program says; None where it is none."""
    lines = said.strip().splitlines()
    try:
        answer = json.loads(lines[-1]) if lines else None
    except ValueError:
        return None
    return answer if isinstance(answer, dict) and "protocol" in answer else None


def _refusal(reason: str) -> OperationError:
    return OperationError(f"cannot upgrade: {reason}")
