"""Tells how a rolling change gets on, for as long as its command waits."""

from __future__ import annotations

import click

from blackhole_cg.cli.terminal import printable
from blackhole_cg.control.client import ControlClient
from blackhole_cg.errors import ControlError


class Progress:
    """Prints to stderr what is stored of rolling changes from now on, each time it is called."""

    def __init__(self, client: ControlClient) -> None:
        self._client = client
        self._seen: int | None = None
        self()

    def __call__(self) -> None:
        """Print what is new."""
        try:
            if self._seen is None:
                newest = self._client.events(tail=1)
                self._seen = newest[-1]["id"] if newest else 0
                return
            for event in self._client.events(after=self._seen):
                self._seen = event["id"]
                if event["kind"] == "rollout":
                    click.echo(f"{printable(event['service'])}: {printable(event['detail'])}", err=True)
        except ControlError:  # the command itself will say what is wrong
            return


def show_progress(client: ControlClient) -> None:
    """Have it told while the commands of this client wait."""
    client.while_waiting = Progress(client)
