"""`check`: is a configuration valid?"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from blackhole_cg.cli.options import config_option, json_option
from blackhole_cg.errors import ConfigError

if TYPE_CHECKING:
    from blackhole_cg.core.spec import SupervisorSpec


@click.command("check", short_help="Say whether a configuration is valid.")
@config_option
@json_option
def check_command(config_file: Path, as_json: bool) -> None:
    """Say whether a configuration is valid, and if not, everything wrong with it.

    Starts nothing. Errors are printed as FILE:LINE:COLUMN: KEY: what is wrong.
    Programs in services_dir that are refused are noted, which is no error.
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
        said = {"ok": True, "services": list(spec.services), "notes": list(spec.notes)}
        click.echo(json.dumps(said))
        return
    click.echo(f"{config_file}: ok, {_counted(spec)}")
    for note in spec.notes:
        click.echo(f"note: no service: {note}")


def _counted(spec: SupervisorSpec) -> str:
    count = len(spec.services)
    made = sum(service.instance_of is not None for service in spec.services.values())
    found = sum(service.discovered for service in spec.services.values())
    parts = [
        f"{number} {what}" for number, what in ((made, "from templates"), (found, "discovered")) if number
    ]
    return f"{count} service{'' if count == 1 else 's'}" + (f" ({', '.join(parts)})" if parts else "")
