"""`run`: be the supervisor, in the foreground."""

from __future__ import annotations

import gc
import os
import sys
from dataclasses import dataclass, fields, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from blackhole_cg.cli.options import RUNTIME_DIR_VARIABLE, config_option

if TYPE_CHECKING:
    from logging import Handler

    from blackhole_cg.cli.logging_setup import LogFormat
    from blackhole_cg.cli.succession import Departure, Handed
    from blackhole_cg.core.spec import SupervisorSpec
    from blackhole_cg.kernel.config_cache import ConfigCache
    from blackhole_cg.kernel.host import LinuxHost
    from blackhole_cg.kernel.inherited import Inheritance
    from blackhole_cg.kernel.service_manager import ServiceManager
    from blackhole_cg.kernel.snapshot import Snapshot
    from blackhole_cg.supervisor.config_file import ConfigFile
    from blackhole_cg.supervisor.paths import Paths

_AUTHORITIES_VARIABLE: Final = "SSL_CERT_FILE"  # Source: SSL_CTX_set_default_verify_paths(3)


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The command line of `run`; None is "by default"."""

    config_file: Path
    runtime_dir: Path | None
    state_dir: Path | None
    log_dir: Path | None
    cgroup_root: str | None
    isolation: str | None
    log_format: LogFormat | None


@click.command("run", short_help="Start the services, watch them, stop them at the end.")
@config_option
@click.option(
    "--runtime-dir",
    metavar="DIR",
    type=click.Path(path_type=Path),
    envvar=RUNTIME_DIR_VARIABLE,
    show_envvar=True,
    help="Sockets and FIFOs, gone at reboot. [default: /run/blackhole-cg]",
)
@click.option(
    "--state-dir",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Events and run history. [default: /var/lib/blackhole-cg]",
)
@click.option(
    "--log-dir",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="What services write. [default: /var/log/blackhole-cg]",
)
@click.option(
    "--cgroup-root",
    metavar="DIR",
    help="Make the services' cgroups below this one. [default: a place that is found to be ours]",
)
@click.option(
    "--isolation",
    type=click.Choice(["required", "best_effort"]),
    help="What happens to limits that this host cannot enforce: refuse to run, or run and say so. "
    "[default: as configured]",
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    help="Of the supervisor's own log on stderr. [default: text on a terminal, else json]",
)
def run_command(**options: Any) -> None:
    """Start every enabled service, watch them, and stop them at the end.

    Stays in the foreground. Ctrl-C (or SIGTERM) stops all services in reverse
    order of their dependencies; a second one kills what is left.

    An ordinary user's directories are $XDG_RUNTIME_DIR/blackhole-cg and
    ~/.local/state/blackhole-cg.

    \b
    Examples:
      blackhole-cg run --config blackhole.yaml
      blackhole-cg run --isolation best_effort    where limits are missing
    """
    from blackhole_cg.kernel.config_process import FirstReading
    from blackhole_cg.kernel.inherited import Inheritance

    gc.disable()  # until everything runs: nearly all that a start makes stays
    chosen = RunOptions(**options)
    if chosen.cgroup_root is None:
        enter_scope()
    inherited = Inheritance.receive(os.environ)
    paths = choose_paths(chosen)
    reading = FirstReading(chosen.config_file, paths.runtime_dir)
    import_supervisor()  # takes as long as the configuration, if that is read, beside it
    import asyncio

    from blackhole_cg.cli.logging_setup import set_up_logging

    handed = _take_handed(inherited)
    with handed.told_of_failure():
        read, snapshot = reading.result()
        spec = override(read, chosen)
    while True:
        log = set_up_logging(spec.runtime.log_level, chosen.log_format)
        with handed.told_of_failure():
            departure = asyncio.run(_serve((spec, snapshot, reading.cache), paths, chosen, log, handed))
        if departure is None:
            return
        handed, spec = departure.execute(), departure.spec  # only where the next program cannot be executed


def import_supervisor() -> None:
    """Import what serves, without the certificate authorities of this host.

    aiohttp's client, which comes with its server and is not used, loads all of them when it is imported: a
    tenth of the time of all imports, and 1.7 MiB for good. Only here, where the process is our own: the
    client of another program needs them.
    """
    before = os.environ.get(_AUTHORITIES_VARIABLE)
    os.environ[_AUTHORITIES_VARIABLE] = os.devnull
    try:
        import_module("blackhole_cg.cli.succession")
    finally:
        del os.environ[_AUTHORITIES_VARIABLE]
        if before is not None:
            os.environ[_AUTHORITIES_VARIABLE] = before


def enter_scope() -> None:
    """Where systemd manages the cgroups and has given us none, begin again in a delegated scope."""
    from blackhole_cg.kernel.delegation import find_manager, scope_command
    from blackhole_cg.kernel.facts import find_cgroup_place
    from blackhole_cg.kernel.own_command import own_command

    manager = find_manager(os.environ, os.geteuid())
    again = own_command(*sys.argv[1:])
    command = scope_command(find_cgroup_place(None), manager, os.environ, again)
    if command is not None:
        os.execv(command[0], command)


def choose_paths(options: RunOptions) -> Paths:
    """The directories asked for, and the default ones where none is."""
    from blackhole_cg.supervisor.paths import Paths, default_paths

    defaults = default_paths(os.environ, os.geteuid())
    asked = {field.name: getattr(options, field.name) for field in fields(Paths)}
    return replace(defaults, **{name: path.absolute() for name, path in asked.items() if path is not None})


def override(spec: SupervisorSpec, options: RunOptions) -> SupervisorSpec:
    """The configuration with what the command line says instead."""
    from blackhole_cg.core.words import Isolation

    if options.isolation is None:
        return spec
    return replace(spec, runtime=replace(spec.runtime, isolation=Isolation(options.isolation)))


def _take_handed(inherited: Inheritance) -> Handed:
    from blackhole_cg.cli.succession import Handed
    from blackhole_cg.kernel.successor import VERSION_VARIABLE

    return Handed(inherited, os.environ.pop(VERSION_VARIABLE, None))


def _make_host(
    spec: SupervisorSpec,
    paths: Paths,
    options: RunOptions,
    inherited: Inheritance,
    manager: ServiceManager,
) -> LinuxHost:
    from blackhole_cg.kernel.host import HostOptions, LinuxHost

    isolation, root = spec.runtime.isolation, options.cgroup_root
    return LinuxHost(HostOptions(paths.runtime_dir, isolation, root, True, inherited, manager))


def _make_source(snapshot: Snapshot, cache: ConfigCache, paths: Paths, options: RunOptions) -> ConfigFile:
    from blackhole_cg.supervisor.config_file import ConfigFile

    def adjust(spec: SupervisorSpec) -> SupervisorSpec:
        return override(spec, options)

    return ConfigFile(options.config_file, paths.runtime_dir, adjust, snapshot, cache)


async def _serve(
    read: tuple[SupervisorSpec, Snapshot, ConfigCache],
    paths: Paths,
    options: RunOptions,
    log: Handler,
    handed: Handed,
) -> Departure | None:
    from blackhole_cg.cli.banner import render_banner
    from blackhole_cg.cli.foreground import Foreground
    from blackhole_cg.cli.succession import Succession
    from blackhole_cg.cli.terminal import Screen, screen_of
    from blackhole_cg.cli.under_systemd import Reports
    from blackhole_cg.kernel.service_manager import ServiceManager
    from blackhole_cg.observe.console import Console
    from blackhole_cg.supervisor.supervisor import Supervisor

    spec, snapshot, cache = read
    screen = screen_of()
    console = Console(sys.stdout.fileno(), colour=screen.colour, names=spec.services)
    manager = ServiceManager.from_environ(os.environ)
    host = _make_host(spec, paths, options, handed.inherited, manager)

    file = _make_source(snapshot, cache, paths, options)
    supervisor = Supervisor(spec, paths=paths, host=host, console=console, source=file)
    reports = Reports(manager, supervisor.enabled_states)
    supervisor.on_change = reports.changed

    def announce() -> None:
        infos = [info.to_json() for info in supervisor.all_services(measured=False)]
        runtime_dir = None if options.runtime_dir is None else str(options.runtime_dir)
        console.note("\n".join(render_banner(infos, runtime_dir, Screen(width=screen.width))))
        reports.ready()

    def is_restart() -> bool:
        reports.stopping()
        return manager.is_restarting_us()

    succession = Succession(supervisor, handed, reports)
    foreground = Foreground(supervisor, announce, is_restart, on_open=succession.confirm)
    succession.prepare(foreground, sys.argv[2:])
    try:
        reports.open()
        await foreground.run()
    finally:
        reports.close()
        console.close()
        log.close()
    return succession.departure
