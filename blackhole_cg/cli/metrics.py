"""`metrics`: what Prometheus would be told."""

from __future__ import annotations

import click

from blackhole_cg.cli.options import client_option
from blackhole_cg.control.client import ControlClient


@click.command("metrics", short_help="Print the metrics of all services.")
@client_option
def metrics_command(client: ControlClient) -> None:
    """Print the metrics of all services, in Prometheus' text format.

    Prometheus itself can fetch them where runtime.orchestrator.metrics.listen
    says.

    \b
    Examples:
      blackhole-cg metrics | grep restarts_total
      blackhole-cg metrics | promtool check metrics
    """
    click.echo(client.metrics(), nl=False)
