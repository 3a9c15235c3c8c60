"""Options that several commands share. Imports nothing heavy: every client command pays for it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

import click

from blackhole_cg.control.client import ALL, ControlClient

RUNTIME_DIR_VARIABLE = "BLACKHOLE_CG_RUNTIME_DIR"

_F = TypeVar("_F", bound=Callable[..., Any])

config_option = click.option(
    "--config",
    "config_file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    default="blackhole.yaml",
    show_default=True,
    help="The configuration.",
)

force_option = click.option(
    "--force",
    is_flag=True,
    help="Lower limits below what is in use, too: below its memory limit the kernel kills a service.",
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def client_option(command: _F) -> _F:
    """Adds --runtime-dir and hands the command a `client`."""
    return click.option(
        "--runtime-dir",
        "client",
        metavar="DIR",
        type=click.Path(path_type=Path),
        envvar=RUNTIME_DIR_VARIABLE,
        show_envvar=True,
        callback=_make_client,
        help="Where the supervisor keeps its socket. [default: /run/blackhole-cg; of an ordinary user, "
        "$XDG_RUNTIME_DIR/blackhole-cg]",
    )(command)


def selection_options(command: _F) -> _F:
    """Adds NAME..., --all and --services; the command gets them as `names`, `everything` and `listed`."""
    command = click.option("--services", "listed", metavar="A,B", help="Services, separated by commas.")(
        command
    )
    command = click.option("--all", "everything", is_flag=True, help="Every service.")(command)
    return click.argument("names", metavar="[NAME]...", nargs=-1)(command)


def read_selection(names: tuple[str, ...], everything: bool, listed: str | None) -> list[str] | Literal["*"]:
    """The services that were selected, each once. Raises UsageError when none is, or two ways are mixed."""
    selected = [name.strip() for name in (listed or "").split(",") if name.strip()]
    selected = list(dict.fromkeys([*names, *selected]))
    if everything and selected:
        raise click.UsageError("--all and the names of services exclude each other")
    if everything:
        return ALL
    if not selected:
        raise click.UsageError("name at least one service, or say --all")
    return selected


def _make_client(ctx: click.Context, param: click.Parameter, value: Path | None) -> ControlClient:
    if value is None:
        from blackhole_cg.supervisor.paths import default_paths

        value = default_paths(os.environ, os.geteuid()).runtime_dir
    return ControlClient(value)
