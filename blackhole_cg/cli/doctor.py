"""`doctor`: what can this host enforce, and what is missing?"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from blackhole_cg.cli.options import client_option, json_option
from blackhole_cg.cli.terminal import Cell, Column, printable, render_table, screen_of
from blackhole_cg.control.client import ControlClient
from blackhole_cg.errors import BlackholeError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from blackhole_cg.core.doctor import Finding, Survey

_STYLES: Final = {"ok": ("green",), "note": ("yellow",), "problem": ("red", "bold")}


@click.command("doctor", short_help="Say what this host can enforce, and what is missing.")
@click.option(
    "--config",
    "config_file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Also look at the limits in this configuration.",
)
@click.option("--cgroup-root", metavar="DIR", help="As `run` would be told.")
@json_option
@client_option
@click.pass_context
def doctor_command(
    ctx: click.Context,
    config_file: Path | None,
    cgroup_root: str | None,
    as_json: bool,
    client: ControlClient,
) -> None:
    """Say what this host can enforce, what is missing, and what to do about it.

    Changes nothing. The exit code is 1 when something is a problem: a limit
    that nobody would keep, a directory that cannot be written to. A note is
    something to know.

    \b
    Examples:
      blackhole-cg doctor
      blackhole-cg doctor --config blackhole.yaml    are its limits enforceable?
    """
    from blackhole_cg.core.doctor import Verdict, examine
    from blackhole_cg.kernel.survey import survey
    from blackhole_cg.supervisor.paths import default_paths

    paths = replace(default_paths(os.environ, os.geteuid()), runtime_dir=client.runtime_dir)
    directories = {"runtime": paths.runtime_dir, "state": paths.state_dir, "logs": paths.log_dir}
    found = survey(os.environ, os.geteuid(), cgroup_root, directories)
    found = replace(found, supervisor=_supervisor(client))
    findings = examine(found)
    if config_file is not None:
        findings += _examine_config(config_file, found)
    problems = [each for each in findings if each.verdict is Verdict.PROBLEM]
    if as_json:
        report = {"ok": not problems, "findings": [each.to_json() for each in findings]}
        click.echo(json.dumps(report))
    else:
        _show(findings, len(problems))
    if problems:
        ctx.exit(1)


def _supervisor(client: ControlClient) -> str | None:
    with suppress(BlackholeError):
        root = client.host()["cgroup_root"]
        return f"one answers in {client.runtime_dir}; its services are below {root or 'no cgroup'}"
    return None


def _examine_config(path: Path, found: Survey) -> list[Finding]:
    from blackhole_cg.cli.loading import load_config
    from blackhole_cg.core.doctor import Finding, Verdict, examine_limits
    from blackhole_cg.core.words import Isolation
    from blackhole_cg.kernel.survey import limit_problems

    _, spec = load_config(path)
    problems = limit_problems(found, spec.services.values())
    if not problems:
        return [Finding("configuration", Verdict.OK, f"every limit in {path} can be enforced")]
    return examine_limits(problems, required=spec.runtime.isolation is Isolation.REQUIRED)


def _show(findings: Iterable[Finding], problems: int) -> None:
    screen = screen_of()
    shown = [each if each.advice is None else _with_advice(each) for each in findings]
    columns = [
        Column("ABOUT", [Cell(each.topic, ("bold",)) for each in shown]),
        Column("", [Cell(str(each.verdict), _STYLES[each.verdict]) for each in shown]),
        Column("FOUND", [Cell(printable(each.text)) for each in shown], wraps=True),
    ]
    count = "no problems" if not problems else f"{problems} problem{'' if problems == 1 else 's'}"
    click.echo("\n".join([*render_table(columns, screen), "", count]), color=screen.colour)


def _with_advice(finding: Finding) -> Finding:
    return replace(finding, text=f"{finding.text} → {finding.advice}")
