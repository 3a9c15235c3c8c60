"""`cgroups`: what runs below the supervisor's cgroup and belongs to no service."""

from __future__ import annotations

import json

import click

from blackhole_cg.cli.options import client_option, json_option
from blackhole_cg.cli.terminal import Cell, Column, printable, render_table, screen_of
from blackhole_cg.control.client import ControlClient


@click.command("cgroups", short_help="Show cgroups that belong to no service.")
@click.option("--kill", "doomed", metavar="NAME", multiple=True, help="End what is in it. May be repeated.")
@json_option
@client_option
def cgroups_command(doomed: tuple[str, ...], as_json: bool, client: ControlClient) -> None:
    """Show cgroups below the supervisor's that belong to no service.

    They are left alone, whoever made them. --kill kills every process in one,
    and removes it; no cgroup of a live service can be named there.

    \b
    Examples:
      blackhole-cg cgroups
      blackhole-cg cgroups --kill old-web
    """
    if not doomed:
        _show(client, as_json)
        return
    killed = {name: client.kill_cgroup(name) for name in dict.fromkeys(doomed)}
    if as_json:
        click.echo(json.dumps({"killed": killed}))
        return
    for name, pids in killed.items():
        click.echo(f"{printable(name)}: removed, {_count(len(pids))} killed")


def _show(client: ControlClient, as_json: bool) -> None:
    cgroups = client.unknown_cgroups()
    if as_json:
        click.echo(json.dumps({"unknown": cgroups}))
        return
    if not cgroups:
        click.echo("every cgroup belongs to a service")
        return
    columns = [
        Column("NAME", [Cell(printable(each["name"]), ("bold",)) for each in cgroups], shrinks=True),
        Column("PROCESSES", [Cell(" ".join(map(str, each["pids"])) or "none") for each in cgroups]),
        Column("CGROUP", [Cell(printable(each["path"])) for each in cgroups], optional=True),
    ]
    screen = screen_of()
    click.echo("\n".join(render_table(columns, screen)), color=screen.colour)


def _count(number: int) -> str:
    return f"{number} process{'' if number == 1 else 'es'}"
