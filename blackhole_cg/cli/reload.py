"""`reload`: have the configuration file read again, and show what changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import click

from blackhole_cg.cli.options import client_option, force_option, json_option
from blackhole_cg.cli.progress import show_progress
from blackhole_cg.cli.terminal import screen_of
from blackhole_cg.control.client import ControlClient

_SAID: Final = {
    "added": "added",
    "removed": "removed",
    "restart": "changed, and restarted where it is wanted up",
    "live": "changed, without a restart",
}


@click.command("reload")
@force_option
@json_option
@client_option
def reload_command(force: bool, as_json: bool, client: ControlClient) -> None:
    """Read the configuration again and apply what has changed.

    A file with an error in it is refused as a whole. Services that did not
    change are not touched; one that changed is restarted only where a run
    depends on what changed. Limits are changed while it runs. SIGHUP does the
    same. `plan` shows beforehand what would happen.

    \b
    Examples:
      blackhole-cg check --config blackhole.yaml && blackhole-cg reload
    """
    show_progress(client)
    print_applied(client.reload(force=force), as_json)


def print_applied(plan: dict[str, Any], as_json: bool) -> None:
    """Tell what was done."""
    if as_json:
        click.echo(json.dumps(plan))
        return
    screen = screen_of()
    for change in plan["changes"]:
        why = ", ".join(filter(None, (*change["keys"], change.get("detail"))))
        name = screen.paint(change["service"], "bold")
        said = _SAID[change["change"]] if change["keys"] or not why else "restarted"
        click.echo(f"{name}: {said}{': ' if why else ''}{why}", color=screen.colour)
    for line in render_rest(plan):
        click.echo(line)


def render_rest(plan: dict[str, Any]) -> Iterator[str]:
    """What there is to tell beside the services that change."""
    if plan["runtime"]:
        yield f"supervisor: changed: {', '.join(plan['runtime'])}"
    if plan["deferred"]:
        keys = ", ".join(plan["deferred"])
        yield f"supervisor: {keys} will change when the supervisor itself is started again"
    count = len(plan["unchanged"])
    yield f"{count} service{'' if count == 1 else 's'} unchanged"
