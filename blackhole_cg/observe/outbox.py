"""What is to be in the database and is not yet: written together in one transaction, or kept and tried again.

Each store notes what it has to say and asks for a flush; what was noted together is stored together, so that
no crash comes between an event and the status it led to.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from blackhole_cg.errors import StoreError

RETRY_SECONDS: Final = 1.0

Write = Callable[[Callable[[sqlite3.Connection], None]], None]


class Part(Protocol):
    """One store's share."""

    @property
    def is_waiting(self) -> bool:
        """Whether there is anything to write."""

    def write(self, connection: sqlite3.Connection) -> None:
        """Write it; may be called again, also for another file, before `written`."""

    def written(self) -> None:
        """It is stored."""

    def held(self, error: StoreError) -> None:
        """It is not, and has to wait."""


class Outbox:
    """The shares of all stores of one database; `write` does work in a transaction, or raises StoreError.

    What could not be stored is tried again by itself, where an event loop runs: until then a crash would
    lose it, and nothing else may happen for long.
    """

    def __init__(self, write: Write) -> None:
        self._write = write
        self._parts: list[Part] = []
        self._depth = 0
        self._retry: asyncio.TimerHandle | None = None

    def join(self, part: Part) -> None:
        """Take part in every flush from now on."""
        self._parts.append(part)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Store what is noted meanwhile in one transaction, at the end. Nothing is awaited in between."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            self.flush()

    def flush(self) -> StoreError | None:
        """Store what waits, unless this is part of something larger; why it could not be done."""
        if self._depth or not any(part.is_waiting for part in self._parts):
            return None
        try:
            self._write(self._write_parts)
        except StoreError as error:
            for part in self._parts:
                part.held(error)
            self._try_later()
            return error
        for part in self._parts:
            part.written()
        return None

    def close(self) -> None:
        """Try no more by itself."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    def _try_later(self) -> None:
        if self._retry is None:
            with contextlib.suppress(RuntimeError):  # no event loop runs: whoever writes comes again
                self._retry = asyncio.get_running_loop().call_later(RETRY_SECONDS, self._try_again)

    def _try_again(self) -> None:
        self._retry = None
        self.flush()

    def _write_parts(self, connection: sqlite3.Connection) -> None:
        for part in self._parts:
            part.write(connection)
