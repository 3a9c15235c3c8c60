"""What can go wrong with the VM itself, as opposed to with the command that runs in it."""

from __future__ import annotations


class Unavailable(Exception):
    """The VM cannot be had on this host; the text says what is missing and how to get it."""


class VmError(Exception):
    """The VM was expected to work and did not."""


class Interrupted(Exception):
    """This process was asked to end by a signal."""

    def __init__(self, number: int) -> None:
        super().__init__(f"ended by signal {number}")
        self.number = number
