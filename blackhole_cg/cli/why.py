"""`why`: how a service came to be where it is, and what comes next."""

from __future__ import annotations

import json
from typing import Final

import click

from blackhole_cg.cli.options import client_option, json_option
from blackhole_cg.cli.terminal import screen_of
from blackhole_cg.cli.why_view import Chapter, chapters, render_why
from blackhole_cg.control.client import ControlClient
from blackhole_cg.errors import OperationError

SHOWN: Final = 3
"""Runs that are shown unless one is named: the present one, and what led to it."""


@click.command("why", short_help="Tell why a service is where it is.")
@click.argument("name")
@click.option("--run", "run_id", metavar="N", type=click.IntRange(min=0), help="Only the run of this number.")
@json_option
@client_option
def why_command(name: str, run_id: int | None, as_json: bool, client: ControlClient) -> None:
    """Tell what happened to a service, why, and what comes next.

    The newest runs, or one: what was decided, on which values, and what
    followed.

    \b
    Examples:
      blackhole-cg why web
      blackhole-cg why web --run 4
      blackhole-cg why web --json | jq .now.waits_for
    """
    now = client.why(name)
    found = chapters(client.events(name, after=None if run_id is None else 0))
    shown = found[-SHOWN:] if run_id is None else _pick(found, name, run_id)
    if as_json:
        runs = [{"run_id": each.run_id, "events": list(each.events)} for each in shown]
        click.echo(json.dumps({"service": name, "runs": runs, "now": now}))
        return
    screen = screen_of()
    earlier = len(found) - len(shown) if run_id is None else 0
    click.echo("\n".join(render_why(now, shown, screen, earlier)), color=screen.colour)


def _pick(found: list[Chapter], name: str, run_id: int) -> list[Chapter]:
    picked = [each for each in found if each.run_id == run_id]
    if not picked:
        known = [str(each.run_id) for each in found if each.run_id is not None]
        raise OperationError(f"nothing is stored of run {run_id} of '{name}' (there is: {_range(known)})")
    return picked


def _range(known: list[str]) -> str:
    return "none" if not known else known[0] if len(known) == 1 else f"{known[0]} to {known[-1]}"
