"""The FIFOs of services, kept by the service manager while there is no supervisor.

The kernel forgets what is in a FIFO once nobody has it open any more. So whatever a service wrote that ended
while nobody supervised would be lost, did the manager not hold it as well. It holds a copy of our descriptors
of both FIFOs, under one name for each service.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, Protocol

from blackhole_cg.core.socket_spec import STORE_PREFIX
from blackhole_cg.core.words import Stream
from blackhole_cg.kernel.inherited import Inheritance

log = logging.getLogger(__name__)

PREFIX: Final = "log/"


class Store(Protocol):
    """Where descriptors outlive this process."""

    def keep_all(self, name: str, descriptors: Sequence[int]) -> bool:
        """Store copies under one name; whether they were taken."""

    def keep_no_more(self, name: str) -> None:
        """Let go of them."""


class StoredStreams:
    """Which FIFOs are stored, and those that came back and nobody has opened yet.

    Args:
        store: where to store them.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._back: dict[tuple[str, str], int] = {}
        self._kept: set[str] = set()
        self._may_be_kept = False  # the program before this one has stored them, in the same process

    def inherit(self, inheritance: Inheritance) -> None:
        """Take what an earlier supervisor has stored."""
        names = inheritance.names
        self._may_be_kept = any(not name.startswith((PREFIX, STORE_PREFIX)) for name in names)
        for stored in names:
            if not stored.startswith(PREFIX):
                continue
            name, count = stored.removeprefix(PREFIX), 0
            while (descriptor := inheritance.take(stored)) is not None:
                place = (name, _stream_of(descriptor))
                if place in self._back:  # never two of one
                    os.close(descriptor)
                else:
                    self._back[place] = descriptor
                count += 1
            if count == len(Stream):
                self._kept.add(name)
            else:  # some are missing or are too many: stored anew with the next run
                self._may_be_kept = True

    def names(self) -> set[str]:
        """The services whose FIFOs came back and have not been taken."""
        return {name for name, _ in self._back}

    def take(self, path: str, name: str, stream: Stream) -> int | None:
        """What came back of a FIFO, for the caller to close; None where it is not the one at `path`.

        A FIFO that has lost its name is still that one.
        """
        descriptor = self._back.pop((name, stream), None)
        if descriptor is None:
            return None
        try:
            is_it = os.path.samestat(os.fstat(descriptor), os.stat(path))  # noqa: PTH116  (as is fstat)
        except FileNotFoundError:
            is_it = True
        except OSError:
            is_it = False
        if is_it:
            return descriptor
        self._kept.discard(name)
        self._may_be_kept = True
        os.close(descriptor)
        return None

    def keep(self, name: str, descriptors: Sequence[int]) -> None:
        """See to it that these are stored: the FIFOs of a service that a run is to write to."""
        if name in self._kept or len(descriptors) < len(Stream):
            return
        if self._may_be_kept:
            self._store.keep_no_more(PREFIX + name)
        if self._store.keep_all(PREFIX + name, descriptors):
            self._kept.add(name)

    def note_adopted(self, name: str, descriptors: Sequence[int], *, are_others: bool) -> None:
        """A live run writes to these, which the one before may have stored; not, if they `are_others`."""
        if are_others:
            self._kept.discard(name)
            self._may_be_kept = True
        if are_others or not self._may_be_kept:
            self.keep(name, descriptors)

    def drop(self, name: str) -> None:
        """There is no such service any more."""
        if name in self._kept or self._may_be_kept:
            self._kept.discard(name)
            self._store.keep_no_more(PREFIX + name)

    def close(self) -> None:
        """Close what nobody has taken."""
        _close_all(self._back.values())
        self._back.clear()


def _stream_of(descriptor: int) -> str:
    """The stream that a FIFO is for: its name says so, also where it has been deleted."""
    try:
        path = str(Path(f"/proc/self/fd/{descriptor}").readlink())
    except OSError:
        return ""
    return Path(path.removesuffix(" (deleted)")).suffix[1:]


def _close_all(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
