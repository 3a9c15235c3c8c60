"""Commands as questions: what their ends mean, and what is said about them."""

from __future__ import annotations

import pytest

from blackhole_cg.core.facts import ExitStatus
from blackhole_cg.core.probe_spec import Answer, CommandResult, ExecTarget
from blackhole_cg.errors import SpawnError
from blackhole_cg.observe.probes.ask import Asker
from tests.support.builders import service
from tests.support.fake_commands import FakeCommands
from tests.support.virtual_loop import run_virtual

TARGET = ExecTarget(("/opt/web/ask", "--password", "hunter2"))


async def answer(commands: FakeCommands) -> Answer:
    return await Asker(service("web"), commands)(TARGET, 2.0)


@pytest.mark.parametrize(
    ("status", "output", "ok", "message"),
    [
        (ExitStatus(code=0), "", True, "exit 0"),
        (ExitStatus(code=0), "all\n well ", True, "exit 0: all well"),
        (ExitStatus(code=1), "no\x1b[31m database\n", False, "exit 1: no\\x1b[31m database"),
        (ExitStatus(signal=11), "", False, "killed by SIGSEGV"),
        (ExitStatus(signal=9, oom_killed=True), "", False, "killed by the kernel: out of memory"),
        (None, "still", False, "killed, as it took more than 2s: still"),
        (ExitStatus(), "", False, "exit status unknown"),
    ],
)
def test_only_exit_0_is_a_success(status: ExitStatus | None, output: str, ok: bool, message: str) -> None:
    commands = FakeCommands(CommandResult(status, output))
    found = run_virtual(answer(commands))
    assert (found.ok, found.message) == (ok, f"exec ask: {message}")
    assert commands.asked == [("web", TARGET.argv)]


def test_a_command_that_cannot_be_started() -> None:
    commands = FakeCommands(error=SpawnError("web", "execute /opt/web/ask", 2))
    found = run_virtual(answer(commands))
    assert (found.ok, found.message) == (False, "exec ask: execute /opt/web/ask: No such file or directory")


def test_a_command_that_takes_too_long() -> None:
    found = run_virtual(answer(FakeCommands(seconds=50.0)))
    assert (found.ok, found.latency_seconds) == (False, 2.0)
