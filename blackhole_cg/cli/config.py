"""`config show` and `config schema`: what a configuration amounts to, and what can be configured."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import click

from blackhole_cg.cli.options import config_option, json_option


@click.group("config", short_help="Show the configuration in effect, or its schema.")
def config_command() -> None:
    """Show the configuration in effect, or everything that can be configured."""


@config_command.command("show")
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
    from blackhole_cg.cli.loading import load_config

    effective = load_config(config_file).redacted()
    if as_json:
        click.echo(json.dumps(effective))
        return
    import yaml

    click.echo(yaml.safe_dump(effective, sort_keys=False, allow_unicode=True), nl=False)


@config_command.command("schema", short_help="Print the JSON Schema of blackhole.yaml.")
def schema_command() -> None:
    """Print the JSON Schema of blackhole.yaml: every key, its unit, default and meaning.

    \b
    Examples:
      blackhole-cg config schema > blackhole.schema.json
    """
    schema = import_module("blackhole_cg.core.config.schema").config_schema()
    click.echo(json.dumps(schema, indent=2))
