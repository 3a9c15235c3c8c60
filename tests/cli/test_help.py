"""Help, versions, and what a command costs to start."""

from __future__ import annotations

import json
import subprocess
import sys

import click
import pytest

from blackhole_cg import __version__
from blackhole_cg.cli.main import COMMANDS, cli
from tests.cli.conftest import ROOT, Cli
from tests.control.fake_operations import Served

HEAVY = (
    "aiohttp",
    "asyncio",
    "pydantic",
    "rich",
    "yaml",
    "pyroute2",
    "psutil",
    "sqlite3",
    "blackhole_cg.kernel",
)


def every_command() -> list[list[str]]:
    nested = [["config", name] for name in ("show", "history", "schema")]
    return [[], *([name] for name in COMMANDS), *nested]


@pytest.mark.parametrize("path", every_command(), ids=" ".join)
def test_help_fits_80_columns_and_has_examples(cli: Cli, path: list[str]) -> None:
    done = cli(*path, "--help", COLUMNS="80")
    assert (done.returncode, done.stderr) == (0, b"")
    lines = done.stdout.decode().splitlines()
    assert max(map(len, lines)) <= 80
    assert path == ["config"] or any("Examples:" in line for line in lines)
    assert not any(line.rstrip().endswith("...") and line.startswith("  ") for line in lines[5:])


def test_every_command_of_the_table_can_be_imported_and_has_help() -> None:
    context = click.Context(cli)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None and command.name == name
        assert command.help


def test_the_version(cli: Cli) -> None:
    assert cli("--version").stdout.decode() == f"blackhole-cg {__version__}\n"


def test_no_command_is_wrong_usage(cli: Cli) -> None:
    done = cli()
    assert done.returncode in {0, 2}
    assert b"Usage:" in done.stdout + done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["status"],
        ["status", "web"],
        ["events"],
        ["logs", "web"],
        ["stop", "web"],
        ["monitor", "--once"],
        ["why", "web"],
    ],
)
def test_a_client_imports_nothing_heavy(
    served: Served, environment: dict[str, str], arguments: list[str]
) -> None:
    code = (
        "import json, sys\n"
        "from blackhole_cg.cli.main import main\n"
        "try:\n"
        f"    main({arguments!r})\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
        "print('\\n' + json.dumps(sorted(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, cwd=ROOT, env=environment, timeout=60, check=True
    )
    modules = json.loads(done.stdout.splitlines()[-1])
    assert "blackhole_cg.control.client" in modules
    assert [name for name in HEAVY if name in modules] == []
