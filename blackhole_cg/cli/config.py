"""`config show` and `config schema`: what a configuration amounts to, and what can be configured."""

from __future__ import annotations

import json
from pathlib import Path

import click

from blackhole_cg.cli.options import client_option, config_option, json_option
from blackhole_cg.cli.times import local_time
from blackhole_cg.control.client import ControlClient


@click.group("config", short_help="Show the configuration in effect, or its schema.")
def config_command() -> None:
    """Show the configuration in effect, or everything that can be configured."""


@config_command.command("show", short_help="Print the configuration with all defaults filled in.")
@config_option
@json_option
def show_command(config_file: Path, as_json: bool) -> None:
    """Print the configuration with all defaults and variables filled in.

    Values that came from the environment are not shown.

    \b
    Examples:
      blackhole-cg config show --config blackhole.yaml
      blackhole-cg config show --json | jq .services.web.resources
    """
    from blackhole_cg.cli.loading import load_config, make_context
    from blackhole_cg.core.config import render_yaml, show_config

    loaded, _ = load_config(config_file)
    shown = show_config(loaded, make_context())
    click.echo(json.dumps(shown) if as_json else render_yaml(shown), nl=as_json)


@config_command.command("history", short_help="List the configurations that were applied last.")
@json_option
@client_option
def history_command(as_json: bool, client: ControlClient) -> None:
    """List the configurations that were applied last; `rollback` returns to one.

    \b
    Examples:
      blackhole-cg config history
    """
    entries = client.configurations()
    if as_json:
        click.echo(json.dumps({"configurations": entries}))
        return
    for entry in entries:
        source = f" {entry['source']}" if entry["source"] else ""
        count = entry["services"]
        services = f"{count} service{'' if count == 1 else 's'}"
        when = local_time(entry["at_wall"])
        click.echo(f"{entry['number']:>4}  {when}  {entry['how']}{source} ({services})")


@config_command.command("schema", short_help="Print the JSON Schema of blackhole.yaml.")
def schema_command() -> None:
    """Print the JSON Schema of blackhole.yaml: every key, its unit, default and meaning.

    \b
    Examples:
      blackhole-cg config schema > blackhole.schema.json
    """
    from blackhole_cg.core.config import json_schema

    click.echo(json.dumps(json_schema(), indent=2))
