"""`check`: is a configuration valid?"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from blackhole_cg.cli.options import config_option, json_option
from blackhole_cg.errors import ConfigError


@click.command("check", short_help="Say whether a configuration is valid.")
@config_option
@json_option
def check_command(config_file: Path, as_json: bool) -> None:
    """Say whether a configuration is valid, and if not, everything wrong with it.

    Starts nothing. Errors are printed as FILE:LINE:COLUMN: KEY: what is wrong.
    The exit code is 78 when there are any.

    \b
    Examples:
      blackhole-cg check --config blackhole.yaml
    """
    from blackhole_cg.cli.loading import load_config

    try:
        _, spec = load_config(config_file)
    except ConfigError as error:
        if as_json:
            click.echo(json.dumps({"ok": False, "errors": [asdict(each) for each in error.diagnostics]}))
        raise
    if as_json:
        click.echo(json.dumps({"ok": True, "services": list(spec.services)}))
    else:
        count = len(spec.services)
        click.echo(f"{config_file}: ok, {count} service{'' if count == 1 else 's'}")
