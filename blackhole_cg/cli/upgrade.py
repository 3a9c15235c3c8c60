"""`upgrade`: have the supervisor replaced by the version that is installed now, under its services."""

from __future__ import annotations

import json

import click

from blackhole_cg.cli.options import client_option, json_option
from blackhole_cg.control.client import ControlClient


@click.command("upgrade")
@json_option
@client_option
def upgrade_command(as_json: bool, client: ControlClient) -> None:
    """Replace the supervisor by the version installed now, in place.

    The new version is asked first whether it can read configuration and state;
    if not, nothing changes and the reason is told. Services run on, stay
    children of the same process, and do not notice.

    \b
    Examples:
      sudo make install && sudo blackhole-cg upgrade
    """
    upgraded = client.upgrade()
    if as_json:
        click.echo(json.dumps(upgraded))
        return
    before, after, count = upgraded["version_before"], upgraded["version"], len(upgraded["services"])
    versions = f"version {after}, as before" if before == after else f"from version {before} to {after}"
    click.echo(
        f"upgraded: {versions}; the same process {upgraded['pid']}, "
        f"and {count} service{'' if count == 1 else 's'} running on"
    )
