"""`top`: what services do and use, live."""

from __future__ import annotations

import os
import re
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

import click

from blackhole_cg.cli.options import client_option
from blackhole_cg.cli.terminal import Screen, screen_of
from blackhole_cg.cli.top_view import TREND_SECONDS, Shown, Trails, View, page_size, render_top
from blackhole_cg.control.client import ControlClient
from blackhole_cg.errors import ControlError

REFRESH_SECONDS: Final = 2.0

_KEYS: Final = {
    b"\x1b[A": "up",
    b"\x1bOA": "up",
    b"\x1b[B": "down",
    b"\x1bOB": "down",
    b"\x1b[5~": "page up",
    b"\x1b[6~": "page down",
    b" ": "page down",
    b"k": "up",
    b"j": "down",
}
"""What a terminal sends for keys that have names here."""

_ONE_KEY: Final = re.compile(rb"\x1b\[[0-9;]*[A-Za-z~]|\x1bO.|.", re.DOTALL)


@click.command("top", short_help="Show what services do and use, live.")
@client_option
def top_command(client: ControlClient) -> None:
    """Show what services do and use, live, until q.

    CPU and MEMORY show usage/limit; the bars are the last five minutes of what
    it is sorted by.

    \b
    Keys:
      q quit   c by CPU   m by memory   n by name   up, down, page up, page down

    \b
    Examples:
      blackhole-cg top
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError("top needs a terminal; `status` and `monitor` do not")
    trails = Trails()
    shown = _look(client, trails, with_past=True)
    with _keyboard() as wait_for_keys, _live() as show:
        _run(client, trails, shown, wait_for_keys, show)


def _run(
    client: ControlClient,
    trails: Trails,
    shown: Shown,
    wait_for_keys: Callable[[float], list[str]],
    show: Callable[[list[str]], None],
) -> None:
    view, due = View(), time.monotonic() + REFRESH_SECONDS
    while True:
        width, height = os.get_terminal_size(sys.stdout.fileno())
        screen = Screen(screen_of().colour, width)
        show(render_top(shown, trails, view, screen, height))
        for key in wait_for_keys(due - time.monotonic()):
            if key == "q":
                return
            view = view.press(key, page_size(height), len(shown.services))
        if time.monotonic() >= due:
            shown = _look_again(client, trails, shown)
            due = time.monotonic() + REFRESH_SECONDS


def _look(client: ControlClient, trails: Trails, *, with_past: bool = False) -> Shown:
    services = client.services()
    samples = client.samples(history=with_past, since=f"{TREND_SECONDS}s" if with_past else None)
    for name, found in samples.items():
        trails.add(name, found["history"]["points"] if with_past else ())
        trails.add(name, [found["latest"]] if found["latest"] else ())
    return Shown(services, samples, time.time())


def _look_again(client: ControlClient, trails: Trails, before: Shown) -> Shown:
    """What is known now; while nobody answers, as during an upgrade, what was known before."""
    try:
        return _look(client, trails)
    except ControlError as error:
        return replace(before, now=time.time(), problem=str(error))


def read_keys(typed: bytes) -> list[str]:
    """The keys in what a terminal sent, by letter or by name."""
    return [_KEYS.get(key) or key.decode("ascii", "replace").lower() for key in _ONE_KEY.findall(typed)]


@contextmanager
def _keyboard() -> Iterator[Callable[[float], list[str]]]:
    """Keys at once and without an echo; the terminal is as before afterwards, also after SIGTERM."""
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)

    def wait(seconds: float) -> list[str]:
        """The keys that were pressed, none when the time was over first."""
        ready, _, _ = select.select([descriptor], [], [], max(0.0, seconds))
        if not ready:
            return []
        typed = os.read(descriptor, 1024)
        return read_keys(typed) if typed else ["q"]  # nothing: the terminal has gone

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    tty.setcbreak(descriptor)
    try:
        yield wait
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


@contextmanager
def _live() -> Iterator[Callable[[list[str]], None]]:
    """The whole screen, which is as before afterwards."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(highlight=False)
    with Live(console=console, screen=True, auto_refresh=False) as live:

        def show(lines: list[str]) -> None:
            text = Text.from_ansi("\n".join(lines), no_wrap=True, overflow="crop")
            live.update(text, refresh=True)

        yield show
