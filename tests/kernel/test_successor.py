"""The next program: found by name, asked before it is executed."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from blackhole_cg.errors import OperationError
from blackhole_cg.kernel import successor
from blackhole_cg.kernel.own_command import own_command, python_command
from blackhole_cg.kernel.successor import PROTOCOL, Successor, render_answer

DIRECTORIES = {"runtime_dir": "/run/x", "state_dir": "/var/lib/x"}
ROOT = Path(__file__).parents[2]


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What this process would be executed as: a shell script to be written."""
    path = tmp_path / "blackhole-cg"
    monkeypatch.setattr(sys, "argv", [str(path), "run", "--config", "x.yaml"])
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    return path


def write(program: Path, script: str) -> None:
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def check(timeout_seconds: float = 30.0) -> str:
    return asyncio.run(Successor(["--config", "x.yaml"], DIRECTORIES).check(timeout_seconds))


def refusal(timeout_seconds: float = 30.0) -> str:
    with pytest.raises(OperationError, match=r"^cannot upgrade: ") as caught:
        check(timeout_seconds)
    return str(caught.value)


def test_it_gets_our_command_line_and_may_warn_before_it_answers(program: Path) -> None:
    write(program, f"echo careful >&2; [ \"$*\" = 'upgrade-check --config x.yaml' ] && echo '{_answer()}'")
    assert check() == "1.2.3"


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("true", "gave no answer"),
        ("echo broken >&2; exit 1", "cannot upgrade: broken"),
        ("echo 17", "cannot upgrade: 17"),
        ("echo '{}'", "cannot upgrade: {}"),
        ('echo \'{"protocol": 99, "version": "9"}\'', "version 9 takes over in another way"),
    ],
)
def test_any_other_answer_is_a_refusal_with_what_it_said(program: Path, script: str, reason: str) -> None:
    write(program, script)
    assert reason in refusal()


def test_one_that_would_look_elsewhere_is_refused(program: Path) -> None:
    write(program, f"echo '{_answer(state_dir='/elsewhere')}'")
    assert "version 1.2.3 would use /elsewhere as state_dir, and this one uses /var/lib/x" in refusal()


def test_one_that_hangs_is_ended_and_refused(program: Path, tmp_path: Path) -> None:
    write(program, f"echo $$ > {tmp_path}/pid; exec sleep 1000")
    assert "did not answer within 1s" in refusal(1.0)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_one_that_is_missing_is_refused(program: Path) -> None:
    assert f"cannot execute {program}: No such file or directory" in refusal()


def _answer(**changes: str) -> str:
    text = render_answer({**DIRECTORIES, **changes})
    assert f'"protocol": {PROTOCOL}' in text
    return text.replace(successor.__version__, "1.2.3")


def test_our_own_name_is_a_script_a_module_or_a_script_without_permission(program: Path) -> None:
    assert own_command("run", "x") == [str(program), "run", "x"]
    program.touch(0o644)
    assert own_command("run") == [sys.executable, str(program), "run"]
    module = "tests.kernel.print_own_command"
    for command in ([sys.executable, "-m", module], python_command(module)):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        assert done.stdout.splitlines() == python_command(module, "once more")
