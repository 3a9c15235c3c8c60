"""`logs`: what a service wrote, byte for byte."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from typing import BinaryIO, Final

import click

from blackhole_cg.cli.options import client_option
from blackhole_cg.cli.terminal import screen_of
from blackhole_cg.control.client import ControlClient

FOLLOW_TAIL: Final = 10
"""Lines that --follow begins with unless told otherwise."""


@click.command("logs")
@click.argument("name")
@click.option("-f", "--follow", is_flag=True, help="Go on with new lines as they are written.")
@click.option(
    "-n",
    "--tail",
    metavar="N",
    type=click.IntRange(min=0),
    help=f"Only the newest N lines. [default: all; with --follow, {FOLLOW_TAIL}]",
)
@click.option("--since", metavar="D", help="Only lines from the last 90s, 5m, 2h, 1d, or since a time.")
@click.option("--stream", type=click.Choice(["stdout", "stderr"]), help="Only this output. [default: both]")
@click.option("--json", "as_json", is_flag=True, help="Print the log's own lines: JSON with time and run.")
@client_option
def logs_command(  # noqa: PLR0913, PLR0917 - one for each option
    name: str,
    follow: bool,
    tail: int | None,
    since: str | None,
    stream: str | None,
    as_json: bool,
    client: ControlClient,
) -> None:
    """Print what a service wrote to stdout and stderr, byte for byte.

    On a terminal, a bar marks the lines of stderr.

    \b
    Examples:
      blackhole-cg logs web --follow
      blackhole-cg logs web --since 5m --stream stderr
      blackhole-cg logs web --tail 100 --json | jq -r .time
    """
    if follow and tail is None and since is None:
        tail = FOLLOW_TAIL
    lines = client.logs(name, tail=tail, since=since, stream=stream, follow=follow)
    screen = screen_of()
    marks = {"stderr": screen.paint("| ", "red").encode()} if sys.stdout.isatty() and not stream else {}
    render = _pass_on if as_json else MessagePrinter(marks).render
    _write(lines, render, sys.stdout.buffer, at_once=follow)


class MessagePrinter:
    """Turns log lines back into what was written. `marks` go before each line of a stream."""

    def __init__(self, marks: dict[str, bytes] | None = None) -> None:
        self._marks = marks or {}
        self._unfinished: str | None = None  # the stream whose line the output stands in

    def render(self, line: bytes) -> bytes:
        """The bytes of a log line's message; pieces of one long line are put together again."""
        record = json.loads(line)
        stream = record["stream"]
        continued = self._unfinished == stream
        begin = b"" if continued else self._marks.get(stream, b"")
        if self._unfinished and not continued:
            begin = b"\n" + begin
        partial = bool(record.get("partial"))
        self._unfinished = stream if partial else None
        message: bytes = record["message"].encode("utf-8", "surrogateescape")
        return begin + message + (b"" if partial else b"\n")


def _pass_on(line: bytes) -> bytes:
    return line


def _write(
    lines: Iterable[bytes], render: Callable[[bytes], bytes], output: BinaryIO, *, at_once: bool
) -> None:
    for line in lines:
        output.write(render(line))
        if at_once:
            output.flush()
    output.flush()
