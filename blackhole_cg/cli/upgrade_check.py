"""`upgrade-check`: asked by a supervisor before an upgrade, with its own command line. Changes nothing."""

from __future__ import annotations

import os
from typing import Any

import click

from blackhole_cg.cli.run import RunOptions, choose_paths, override, run_command
from blackhole_cg.errors import IsolationError


def check(**options: Any) -> None:
    """Say whether this version can take over from the supervisor with these options.

    \b
    Examples:
      blackhole-cg upgrade-check --config blackhole.yaml
    """
    import blackhole_cg.cli.succession  # noqa: F401  as `run` does, to see that it can be imported
    from blackhole_cg.core.words import Isolation
    from blackhole_cg.kernel.asked import host_context
    from blackhole_cg.kernel.files import load
    from blackhole_cg.kernel.host import HostOptions, LinuxHost
    from blackhole_cg.kernel.successor import render_answer
    from blackhole_cg.observe.state_check import check_state

    chosen = RunOptions(**options)
    paths = choose_paths(chosen)
    context = host_context(str(paths.runtime_dir), os.environ)
    spec = override(load(str(chosen.config_file), os.environ, context)[1], chosen)
    isolation = spec.runtime.isolation
    host = LinuxHost(HostOptions(paths.runtime_dir, isolation, chosen.cgroup_root, subreaper=True))
    problems = [problem for service in spec.services.values() for problem in host.problems(service)]
    if problems and isolation is Isolation.REQUIRED:
        raise IsolationError([str(problem) for problem in problems])
    check_state(paths.database)
    click.echo(render_answer(paths.to_json()))


upgrade_check_command = click.Command(
    "upgrade-check", params=run_command.params, callback=check, help=check.__doc__, hidden=True
)
