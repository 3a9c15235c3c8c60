"""`events`: what happened, and why."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

import click

from blackhole_cg.cli.options import client_option
from blackhole_cg.cli.status_view import HEALTH_STYLES, STATE_STYLES
from blackhole_cg.cli.terminal import Screen, printable, screen_of
from blackhole_cg.cli.times import local_time
from blackhole_cg.control.client import ControlClient

FOLLOW_TAIL: Final = 10
"""Events that --follow begins with unless told otherwise."""


@click.command("events", short_help="Show what happened, and why.")
@click.argument("name", required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on with events as they happen.")
@click.option(
    "-n",
    "--tail",
    metavar="N",
    type=click.IntRange(min=0),
    help=f"Only the newest N events. [default: 1000; with --follow, {FOLLOW_TAIL}]",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one event on a line, for programs.")
@client_option
def events_command(
    name: str | None, follow: bool, tail: int | None, as_json: bool, client: ControlClient
) -> None:
    """Show what happened to all services or to one, and why; oldest first.

    \b
    Examples:
      blackhole-cg events web --tail 20
      blackhole-cg events --follow
      blackhole-cg events --json | jq 'select(.to == "failed")'
    """
    found: Iterable[dict[str, Any]]
    if follow:
        found = client.follow_events(name, tail=FOLLOW_TAIL if tail is None else tail)
    else:
        found = client.events(name, tail=tail)
    screen = screen_of()
    for event in found:
        click.echo(json.dumps(event) if as_json else render_event(event, screen), color=screen.colour)


def render_event(event: dict[str, Any], screen: Screen) -> str:
    """One line: when, which service, what, and in parentheses why."""
    when = screen.paint(local_time(event["at_wall"]), "dim")
    name = screen.paint(printable(event["service"]) or "blackhole-cg", "bold")  # of the supervisor itself
    if event["to"] is None:
        what = f"{event['kind']}: {printable(event['detail'] or event['reason'])}"
        why = ""
    else:
        styles = STATE_STYLES.get(event["to"]) or HEALTH_STYLES.get(event["to"], ())
        what = screen.paint(event["to"], *styles)
        what = f"{event['from']} -> {what}" if event["from"] else what
        what = what if event["kind"] == "state" else f"{event['kind']}: {what}"
        reason = event["reason"] if event["kind"] == "state" else ""
        why = ": ".join(filter(None, (reason, printable(event["detail"]))))
    run = f"run {event['run_id']}" if event["run_id"] else ""
    notes = ", ".join(filter(None, (why, run)))
    return f"{when} {name}: {what}" + (f" ({notes})" if notes else "")
