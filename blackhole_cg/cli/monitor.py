"""`monitor`: what services use, a line for each sample."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import click

from blackhole_cg.cli.options import client_option
from blackhole_cg.cli.status_view import NOTHING, percent
from blackhole_cg.cli.terminal import Screen, printable, screen_of
from blackhole_cg.cli.times import local_time
from blackhole_cg.control.client import ALL, ControlClient
from blackhole_cg.core.units import format_size

_SHARES: Final = {
    "cpu_throttled_percent": "throttled",
    "cpu_pressure_percent": "waits for CPU",
    "memory_pressure_percent": "waits for memory",
    "io_pressure_percent": "waits for I/O",
}
"""Shown only where there is something to see."""

_COUNTS: Final = {"memory_rss_bytes": "RSS", "open_files": "open files", "connections": "connections"}
"""Shown only where a rule has them sampled."""


@click.command("monitor", short_help="Show what services use, sample by sample.")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--once", is_flag=True, help="Only the newest sample of each.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one sample on a line, for programs.")
@client_option
def monitor_command(names: tuple[str, ...], once: bool, as_json: bool, client: ControlClient) -> None:
    """Show what all services use, or some: a line for each sample, until Ctrl-C.

    CPU is of one core. MEMORY is without the page cache that can be dropped at
    once. What is not known is shown as "-", in JSON as null.

    \b
    Examples:
      blackhole-cg monitor
      blackhole-cg monitor web worker --once
      blackhole-cg monitor --json | jq 'select(.memory_percent > 90)'
    """
    screen = screen_of()
    wanted = list(dict.fromkeys(names)) or ALL
    samples = _newest(client.samples(wanted)) if once else client.follow_samples(wanted)
    for sample in samples:
        if not as_json:
            click.echo(render_sample(sample, screen), color=screen.colour)
        elif "at_wall" in sample:
            click.echo(json.dumps(sample))


def _newest(services: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    for name, found in services.items():
        yield {"service": name, **(found["latest"] or {})}


def render_sample(sample: Mapping[str, Any], screen: Screen) -> str:
    """One line: when, which service, and what it used."""
    name = screen.paint(printable(sample["service"]), "bold")
    if "at_wall" not in sample:
        return f"{name}: no sample: it does not run, or not for long enough"
    when = screen.paint(local_time(sample["at_wall"]), "dim")
    return f"{when} {name}: {', '.join(_parts(sample))}"


def _parts(sample: Mapping[str, Any]) -> Iterator[str]:
    yield f"CPU {_percent(sample['cpu_percent'])}"
    of_limit = sample["memory_percent"]
    share = "" if of_limit is None else f" ({percent(of_limit)} of the limit)"
    yield f"memory {_size(sample['memory_bytes'])}{share}"
    yield f"pids {_count(sample['pids'])}"
    yield f"read {_size(sample['io_read_bytes_per_second'], '/s')}"
    yield f"write {_size(sample['io_write_bytes_per_second'], '/s')}"
    for metric, title in _COUNTS.items():
        value = sample.get(metric)
        if value is not None:
            yield f"{title} {_size(value) if metric.endswith('_bytes') else _count(value)}"
    for metric, title in _SHARES.items():
        value = sample.get(metric)
        if value:
            yield f"{title} {percent(value)}"


def _percent(value: float | None) -> str:
    return NOTHING if value is None else percent(value)


def _size(value: float | None, per: str = "") -> str:
    return NOTHING if value is None else format_size(value) + per


def _count(value: float | None) -> str:
    return NOTHING if value is None else f"{value:g}"
