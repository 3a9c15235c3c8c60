"""`endpoints`: where services can be reached."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import click

from blackhole_cg.cli.options import client_option, json_option
from blackhole_cg.cli.status_view import HEALTH_STYLES, NOTHING, STATE_STYLES
from blackhole_cg.cli.terminal import Cell, Column, Screen, printable, render_table, screen_of
from blackhole_cg.control.client import ControlClient


@click.command("endpoints", short_help="Show where services can be reached.")
@click.argument("name", required=False)
@json_option
@client_option
def endpoints_command(name: str | None, as_json: bool, client: ControlClient) -> None:
    """Show where services can be reached: all that listen somewhere, or one.

    With --json, or in the file endpoints.json in the runtime directory, for
    programs; `ready` says whether to connect.

    \b
    Examples:
      blackhole-cg endpoints
      blackhole-cg endpoints shop --json | jq -r .endpoints.shop.tcp
    """
    endpoints = client.endpoints(name)
    if as_json:
        click.echo(json.dumps({"endpoints": endpoints}))
        return
    screen = screen_of()
    click.echo("\n".join(render_endpoints(endpoints, screen)), color=screen.colour)


def render_endpoints(endpoints: Mapping[str, Mapping[str, Any]], screen: Screen) -> list[str]:
    """A table with a row for each service."""
    if not endpoints:
        return ["no service has a tcp_port or a unix_socket"]
    rows = endpoints.values()
    columns = [
        Column("NAME", [Cell(name, ("bold",)) for name in endpoints], shrinks=True),
        Column("TCP", [_cell(each["tcp"]) for each in rows]),
        Column("UNIX SOCKET", [_cell(each["unix"]) for each in rows]),
        Column("STATE", [Cell(each["state"], STATE_STYLES.get(each["state"], ())) for each in rows]),
        Column("HEALTH", [_health(each["health"]) for each in rows]),
        Column("READY", [Cell("yes" if each["ready"] else "no") for each in rows]),
    ]
    return render_table(columns, screen)


def _cell(text: str | None) -> Cell:
    return Cell(NOTHING if text is None else printable(text))


def _health(health: str) -> Cell:
    return Cell(NOTHING if health == "unknown" else health, HEALTH_STYLES.get(health, ()))
