"""`health`: what the probes of every service, or of one, were answered last."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import click

from blackhole_cg.cli.options import client_option, json_option
from blackhole_cg.cli.status_view import HEALTH_STYLES, NOTHING
from blackhole_cg.cli.terminal import Cell, Column, Screen, printable, render_table, screen_of
from blackhole_cg.cli.times import local_time
from blackhole_cg.control.client import ALL, ControlClient

_Row = tuple[str, Mapping[str, Any], Mapping[str, Any]]  # service, its health, one probe


@click.command("health", short_help="Show what the probes were answered last.")
@click.argument("name", required=False)
@json_option
@client_option
def health_command(name: str | None, as_json: bool, client: ControlClient) -> None:
    """Show what the probes were answered last, of all services or of one.

    FAILURES counts those in a row. A service without probes has no health.

    \b
    Examples:
      blackhole-cg health
      blackhole-cg health web --json
    """
    services = client.health(name or ALL)
    if as_json:
        click.echo(json.dumps({"services": services}))
        return
    screen = screen_of()
    click.echo("\n".join(render_health(services, screen)), color=screen.colour)


def render_health(services: Mapping[str, Mapping[str, Any]], screen: Screen) -> list[str]:
    """A table with a row for each probe, and one for each service that has none."""
    rows: list[_Row] = []
    for name, found in services.items():
        rows += [(name, found, probe) for probe in found["probes"]] or [(name, found, {})]
    if not rows:
        return ["no services are configured"]
    columns = [
        Column("NAME", [Cell(name, ("bold",)) for name, _, _ in rows], shrinks=True),
        Column("HEALTH", [_health(found["health"]) for _, found, _ in rows]),
        Column("PROBE", [_cell(probe.get("kind")) for _, _, probe in rows]),
        Column("TYPE", [_cell(probe.get("type")) for _, _, probe in rows]),
        Column("FAILURES", [_failures(probe) for _, _, probe in rows], right=True),
        Column("ANSWERED", [_when(probe) for _, _, probe in rows], optional=True),
        Column("TOOK", [_latency(probe) for _, _, probe in rows], right=True, optional=True),
        Column("ANSWER", [_cell(probe.get("last_message")) for _, _, probe in rows]),
    ]
    return render_table(columns, screen)


def _cell(text: str | None) -> Cell:
    return Cell(NOTHING if text is None else printable(text))


def _health(health: str) -> Cell:
    return Cell(NOTHING if health == "unknown" else health, HEALTH_STYLES.get(health, ()))


def _failures(probe: Mapping[str, Any]) -> Cell:
    if probe.get("ok") is None:
        return Cell(NOTHING)
    return Cell(str(probe["failures"]), ("red",) if probe["failures"] else ())


def _when(probe: Mapping[str, Any]) -> Cell:
    at_wall = probe.get("last_at_wall")
    return Cell(NOTHING if at_wall is None else local_time(at_wall))


def _latency(probe: Mapping[str, Any]) -> Cell:
    seconds = probe.get("latency_seconds") if probe.get("ok") is not None else None
    return Cell(NOTHING if seconds is None else f"{1000 * seconds:.1f}ms")
