"""`start`, `stop`, `restart` and `reset`: ask for a change and wait until it is made."""

from __future__ import annotations

import json

import click

from blackhole_cg.cli.options import client_option, json_option, read_selection, selection_options
from blackhole_cg.cli.terminal import screen_of
from blackhole_cg.control.client import Action, ControlClient


@click.command("start")
@selection_options
@json_option
@client_option
def start_command(
    names: tuple[str, ...], everything: bool, listed: str | None, as_json: bool, client: ControlClient
) -> None:
    """Start services, and first what they depend on.

    Returns once they have started. When one cannot, what this command began is
    stopped again and the reason is printed. --all starts what is enabled.

    \b
    Examples:
      blackhole-cg start web
      blackhole-cg start --services=web,worker
    """
    _change(client, "start", read_selection(names, everything, listed), as_json)


@click.command("stop")
@selection_options
@json_option
@client_option
def stop_command(
    names: tuple[str, ...], everything: bool, listed: str | None, as_json: bool, client: ControlClient
) -> None:
    """Stop services, and first what depends on them.

    Returns once no process of theirs is left. A service that ignores its stop
    signal is killed after its stop timeout.

    \b
    Examples:
      blackhole-cg stop web
      blackhole-cg stop --all
    """
    _change(client, "stop", read_selection(names, everything, listed), as_json)


@click.command("restart")
@selection_options
@json_option
@client_option
def restart_command(
    names: tuple[str, ...], everything: bool, listed: str | None, as_json: bool, client: ControlClient
) -> None:
    """Stop services and start them again.

    Returns once they have started again. --all restarts what is enabled.

    \b
    Examples:
      blackhole-cg restart web worker
      blackhole-cg restart --all
    """
    _change(client, "restart", read_selection(names, everything, listed), as_json)


@click.command("reset")
@selection_options
@json_option
@client_option
def reset_command(
    names: tuple[str, ...], everything: bool, listed: str | None, as_json: bool, client: ControlClient
) -> None:
    """Forget why services failed, and how often they were restarted.

    A failed service becomes stopped; nothing is started.

    \b
    Examples:
      blackhole-cg reset web && blackhole-cg start web
    """
    _change(client, "reset", read_selection(names, everything, listed), as_json)


def _change(client: ControlClient, action: Action, selection: list[str] | str, as_json: bool) -> None:
    services = client.change(action, "*" if isinstance(selection, str) else selection)
    if as_json:
        click.echo(json.dumps({"services": services}))
        return
    screen = screen_of()
    for info in services:
        pid = f" (pid {info['pid']})" if info["pid"] is not None else ""
        click.echo(f"{screen.paint(info['name'], 'bold')}: {info['state']}{pid}", color=screen.colour)
