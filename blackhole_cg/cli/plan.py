"""`plan`, `apply` and `rollback`: go by another configuration, or see first what that would do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click

from blackhole_cg.cli.options import client_option, config_option, force_option, json_option
from blackhole_cg.cli.progress import show_progress
from blackhole_cg.cli.reload import print_applied, render_rest
from blackhole_cg.cli.terminal import screen_of
from blackhole_cg.control.client import ControlClient
from blackhole_cg.core.units import format_size

_SAID: Final = {
    "added": "to be added",
    "removed": "to be stopped and removed",
    "restart": "to be restarted, if it is wanted up",
    "live": "to be changed without a restart",
}


@click.command("plan", short_help="Show what another configuration would change; change nothing.")
@config_option
@json_option
@client_option
def plan_command(config_file: Path, as_json: bool, client: ControlClient) -> None:
    """Show what `apply` of this configuration would change; change nothing.

    The running supervisor reads the file, with its own environment, checks all
    of it and compares it with what it goes by. Values that may be secret are
    not shown.

    \b
    Examples:
      blackhole-cg plan --config blackhole.yaml && blackhole-cg apply
    """
    plan = client.plan(config_file.absolute())
    if as_json:
        click.echo(json.dumps(plan))
        return
    screen = screen_of()
    for change in plan["changes"]:
        name = screen.paint(change["service"], "bold")
        click.echo(f"{name}: {_SAID[change['change']]}", color=screen.colour)
        if "detail" in change:
            click.echo(f"  needs a restart: {change['detail']}")
        for line in _details(change):
            click.echo(f"  {line}")
    for group, names in plan.get("surge", {}).items():
        name = screen.paint(group, "bold")
        click.echo(f"{name}: {', '.join(names)} in addition while it is replaced", color=screen.colour)
    for line in render_rest(plan):
        click.echo(line)


@click.command("apply", short_help="Go by another configuration.")
@config_option
@force_option
@json_option
@client_option
def apply_command(config_file: Path, force: bool, as_json: bool, client: ControlClient) -> None:
    """Go by this configuration, as `plan` shows it.

    Like `reload`, but of any file. It holds until the next reload or start of
    the supervisor, which read the file that the supervisor was started with.
    Only root, or the user that the supervisor runs as, may do this.

    \b
    Examples:
      blackhole-cg apply --config next.yaml
    """
    show_progress(client)
    print_applied(client.apply(config_file.absolute(), force=force), as_json)


@click.command("rollback", short_help="Return to a configuration that was applied before.")
@click.argument("number", type=click.IntRange(min=1), required=False)
@force_option
@json_option
@client_option
def rollback_command(number: int | None, force: bool, as_json: bool, client: ControlClient) -> None:
    """Return to a configuration that was applied before.

    To the one before the present one, or to NUMBER of `config history`. It is
    the configuration as it was, whatever its files are now, and holds until the
    next reload or start of the supervisor.

    \b
    Examples:
      blackhole-cg rollback
      blackhole-cg rollback 3
    """
    show_progress(client)
    print_applied(client.roll_back(number, force=force), as_json)


def _details(change: dict[str, Any]) -> Iterator[str]:
    for each in change["fields"]:
        old, new = (_shown(each["key"], each[side]) for side in ("old", "new"))
        yield f"{each['key']}: {old} -> {new}"
    if change["dependents"]:
        yield f"needed by {', '.join(change['dependents'])}, which go on running meanwhile"


def _shown(key: str, value: Any) -> str:
    if value is None:
        return "(not set)"
    is_size = key.startswith("resources.memory_") or key == "logs.max"
    if is_size and isinstance(value, int) and not isinstance(value, bool):
        return format_size(value)
    return value if isinstance(value, str) else json.dumps(value)
