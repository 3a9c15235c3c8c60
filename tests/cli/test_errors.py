"""Errors become exit codes in one place, with text and without tracebacks."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from blackhole_cg.cli.main import Commands
from blackhole_cg.errors import (
    BlackholeError,
    ConfigError,
    ControlError,
    Diagnostic,
    IsolationError,
    LockHeldError,
    NoSupervisorError,
    OperationError,
)

DIAGNOSTICS = [
    Diagnostic(
        "a.yaml", 3, 5, "services.web.resources.cpu_percent", "must be positive (accepted: 1 to 100000)"
    ),
    Diagnostic("a.yaml", 0, 0, "", "cannot be read: No such file or directory"),
]


class Failing(Commands):
    """One command, `status`, that raises what it is given."""

    def __init__(self, error: BaseException) -> None:
        super().__init__("blackhole-cg")
        self._error = error

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        def fail() -> None:
            raise self._error

        return click.Command(cmd_name, callback=fail)


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (OperationError("cannot start 'web': exit 3"), 1, "blackhole-cg: cannot start 'web': exit 3\n"),
        (LockHeldError("cannot run: pid 7 does"), 1, "blackhole-cg: cannot run: pid 7 does\n"),
        (ControlError("forbidden", "no"), 1, "blackhole-cg: no\n"),
        (IsolationError(["web: memory_max"]), 1, "  web: memory_max\n"),
        (BlackholeError("odd"), 1, "blackhole-cg: odd\n"),
        (PermissionError(13, "Permission denied", "/x"), 1, "blackhole-cg: /x: Permission denied\n"),
        (NoSupervisorError("/run/x", "gone"), 3, "no supervisor answers on /run/x: gone (is it running?"),
        (KeyboardInterrupt(), 130, ""),
        (BrokenPipeError(32, "Broken pipe"), 0, ""),
    ],
)
def test_exit_codes(error: BaseException, code: int, text: str) -> None:
    done = CliRunner().invoke(Failing(error), ["status"])
    assert (done.exit_code, done.stdout) == (code, "")
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert text or not done.stderr


def test_every_configuration_error_is_on_a_line_of_its_own_that_editors_understand() -> None:
    done = CliRunner().invoke(Failing(ConfigError(DIAGNOSTICS)), ["status"])
    assert (done.exit_code, done.stdout) == (78, "")
    assert done.stderr.splitlines() == [
        "a.yaml:3:5: services.web.resources.cpu_percent: must be positive (accepted: 1 to 100000)",
        "a.yaml: cannot be read: No such file or directory",
        "blackhole-cg: the configuration is invalid: 2 errors",
    ]


def test_a_mistake_of_ours_is_not_hidden() -> None:
    done = CliRunner().invoke(Failing(ZeroDivisionError("oops")), ["status"])
    assert isinstance(done.exception, ZeroDivisionError)
