"""`status`: what every service is doing, or everything about one."""

from __future__ import annotations

import json

import click

from blackhole_cg.cli.options import client_option, json_option
from blackhole_cg.cli.status_view import render_details, render_overview, render_rollout
from blackhole_cg.cli.terminal import screen_of
from blackhole_cg.control.client import ControlClient


@click.command("status")
@click.argument("name", required=False)
@json_option
@client_option
def status_command(name: str | None, as_json: bool, client: ControlClient) -> None:
    """Show all services, or everything about one.

    CPU and MEMORY show usage/limit; a limit in parentheses is not enforced, and
    a note below the table says why.

    \b
    Examples:
      blackhole-cg status
      blackhole-cg status web
      blackhole-cg status --json | jq '.services[] | select(.state == "failed")'
    """
    screen = screen_of()
    if name is None:
        services = client.services()
        if as_json:
            lines = [json.dumps({"services": services})]
        else:
            lines = [*render_overview(services, screen), *map(render_rollout, client.rollouts())]
    else:
        info = client.service(name)
        lines = [json.dumps(info)] if as_json else render_details(info, screen)
    click.echo("\n".join(lines), color=screen.colour)
