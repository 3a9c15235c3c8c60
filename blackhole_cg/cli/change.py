"""`start`, `stop`, `restart` and `reset`: ask for a change and wait until it is made."""

from __future__ import annotations

import json
from typing import Any

import click

from blackhole_cg.cli.options import client_option, json_option, read_selection, selection_options
from blackhole_cg.cli.terminal import screen_of
from blackhole_cg.control.client import Action, ControlClient
from blackhole_cg.errors import ControlError

_WHAT_OF_THEM = "nothing was stopped: --cascade stops them too, --force leaves them running"


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
@click.option(
    "--cascade", "dependents", flag_value="stop", help="Stop the running services that depend on them too."
)
@click.option("--force", "dependents", flag_value="leave", help="Leave those that depend on them running.")
@json_option
@client_option
def stop_command(client: ControlClient, as_json: bool, dependents: str | None, **selection: Any) -> None:
    """Stop services, dependents before what they need.

    Returns once no process of theirs is left. A service that ignores its stop
    signal is killed after its stop timeout. When running services depend on one
    of them, nothing is stopped until you say what is to become of those.

    \b
    Examples:
      blackhole-cg stop web
      blackhole-cg stop store --cascade    and what depends on it
      blackhole-cg stop --all
    """
    _change(client, "stop", read_selection(**selection), as_json, dependents)


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


def _change(
    client: ControlClient,
    action: Action,
    selection: list[str] | str,
    as_json: bool,
    dependents: str | None = None,
) -> None:
    names = "*" if isinstance(selection, str) else selection
    try:
        services = client.change(action, names, dependents=dependents)
    except ControlError as error:
        if error.kind == "dependents":
            error = ControlError(error.kind, f"{error}\n{_WHAT_OF_THEM}")
        raise error from None
    if as_json:
        click.echo(json.dumps({"services": services}))
        return
    screen = screen_of()
    for info in services:
        pid = f" (pid {info['pid']})" if info["pid"] is not None else ""
        click.echo(f"{screen.paint(info['name'], 'bold')}: {info['state']}{pid}", color=screen.colour)
