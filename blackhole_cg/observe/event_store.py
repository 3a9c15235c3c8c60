"""What happened, kept: appending events, reading them back, following them.

An event is acknowledged by `append` returning: it then survives a crash of this process. When the database
cannot be written, events wait in a bounded backlog, in which they are just as visible.
"""

from __future__ import annotations

import logging
import sqlite3
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, fields, replace
from operator import attrgetter
from typing import Any, Final

from blackhole_cg.core.facts import EventRecord
from blackhole_cg.errors import StoreError
from blackhole_cg.observe.bell import Bell
from blackhole_cg.observe.database import Database

_COLUMNS: Final = tuple(field.name for field in fields(EventRecord))
_row: Final[Callable[[EventRecord], tuple[Any, ...]]] = attrgetter(*_COLUMNS)
_COLUMN_LIST: Final = ", ".join(_COLUMNS)
_INSERT: Final = f"INSERT INTO events ({_COLUMN_LIST}) VALUES ({', '.join('?' * len(_COLUMNS))})"
_PRUNE: Final = "DELETE FROM events WHERE id IN (SELECT id FROM events WHERE id <= ? ORDER BY id LIMIT ?)"
_FOLLOW_BATCH: Final = 500

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Retention:
    """How many events are kept: in the database, up to a pruning batch more, and waiting for it."""

    max_events: int = 100_000
    max_backlog: int = 10_000
    prune_every: int = 1_000  # events; at most five times as many are deleted at once


class EventStore:
    """The events table.

    Args:
        database: shared with other stores; closed by whoever made it.
        retention: how many events are kept.
        on_trouble: told why when events begin to be held back, and None when all are stored again.
        on_append: told each new event.
    """

    def __init__(
        self,
        database: Database,
        *,
        retention: Retention | None = None,
        on_trouble: Callable[[str | None], None] | None = None,
        on_append: Callable[[EventRecord], None] | None = None,
    ) -> None:
        self.changed = Bell()  # rings after every append
        self.lost_total = 0  # dropped from a full backlog, never stored
        self._database = database
        self._retention = retention or Retention()
        self._on_trouble = on_trouble
        self._on_append = on_append
        self._backlog: deque[EventRecord] = deque()
        self._fresh = 0  # how many at the end of the backlog are not told of yet
        self._newest: EventRecord | None = None
        self._troubled = False
        self._until_prune = 0
        self._last_id = 0
        self._outbox = database.outbox
        self._outbox.join(self)
        try:
            self._last_id = database.read(_newest_id)
        except StoreError as error:
            self._hold_back(error)

    @property
    def last_id(self) -> int:
        """The newest event's id; 0 when there is none."""
        return self._last_id

    @property
    def backlog_size(self) -> int:
        """Events that are not in the database yet."""
        return len(self._backlog)

    def append(self, record: EventRecord) -> EventRecord:
        """Store an event; the same with its id, as it can be read from now on."""
        self._last_id += 1
        self._backlog.append(_storable(replace(record, id=self._last_id)))
        self._fresh += 1
        self._newest = self._backlog[-1]
        self._outbox.flush()
        return self._newest

    def flush(self) -> bool:
        """Try to store the backlog; whether it is empty now."""
        self._outbox.flush()
        return not self._backlog

    def read(
        self,
        *,
        service: str | None = None,
        after_id: int = 0,
        limit: int | None = None,
        newest: int | None = None,
    ) -> list[EventRecord]:
        """Events in order: of one service, after an id, and of those the first `limit` or the last `newest`.

        Raises:
            StoreError: the database cannot be read.
        """
        where, values = "id > ?", [after_id]  # type: tuple[str, list[Any]]
        if service is not None:
            where, values = f"{where} AND service = ?", [*values, service]
        order, bound = ("DESC", newest) if newest is not None else ("ASC", limit)
        sql = f"SELECT {_COLUMN_LIST} FROM events WHERE {where} ORDER BY id {order} LIMIT ?"
        values.append(-1 if bound is None else max(0, bound))
        rows = self._database.read(lambda connection: connection.execute(sql, values).fetchall())
        found = [EventRecord(*row) for row in (reversed(rows) if newest is not None else rows)]
        if self._backlog:
            found += [
                record
                for record in self._backlog
                if record.id > after_id and service in (None, record.service)
            ]
        if newest is not None:
            found = found[max(0, len(found) - newest) :]
        return found if limit is None else found[:limit]

    def newest_run_ids(self) -> dict[str, int]:
        """The highest run_id stored of each service, so that numbers go on and are never given twice.

        Raises:
            StoreError: the database cannot be read.
        """
        sql = "SELECT service, max(run_id) FROM events GROUP BY service"
        return dict(self._database.read(lambda connection: connection.execute(sql).fetchall()))

    async def follow(
        self, *, after_id: int | None = None, service: str | None = None
    ) -> AsyncIterator[EventRecord]:
        """Events after an id (None: from now on) as they happen, none missed unless retention was faster.

        Ends when the store is closed.
        """
        seen = self._last_id if after_id is None else after_id
        while True:
            try:
                found = self.read(service=service, after_id=seen, limit=_FOLLOW_BATCH)
            except StoreError as error:
                logger.warning("%s", error)  # the next event will be another occasion
                found = []
            for record in found:
                seen = record.id
                yield record
            if not found:
                if self.changed.closed:
                    return
                await self.changed.wait()

    def close(self) -> None:
        """Try once more to store the backlog, and end every follower; the database stays open."""
        if not self.flush():
            self.lost_total += len(self._backlog)
            logger.error("%d events could not be stored", len(self._backlog))
        self.changed.close()

    # ---- Part of the outbox ----

    @property
    def is_waiting(self) -> bool:
        """Whether there is a backlog."""
        return bool(self._backlog)

    def write(self, connection: sqlite3.Connection) -> None:
        """Insert the backlog, and prune from time to time."""
        if self._backlog:
            self._insert_backlog(connection)

    def written(self) -> None:
        """The backlog is stored."""
        fresh = self._take_fresh()
        self._backlog.clear()
        self._tell(fresh)
        if self._troubled:
            self._troubled = False
            logger.warning("events are stored again, %d were lost", self.lost_total)
            if self._on_trouble is not None:
                self._on_trouble(None)

    def held(self, error: StoreError) -> None:
        """The backlog has to wait, in which it is just as visible."""
        fresh = self._take_fresh()
        self._hold_back(error)
        self._tell(fresh)

    def _take_fresh(self) -> list[EventRecord]:
        """What was appended since the last flush, with the ids it has now."""
        fresh = [self._backlog[-number] for number in range(self._fresh, 0, -1)]
        self._fresh = 0
        return fresh

    def _tell(self, records: Sequence[EventRecord]) -> None:
        for record in records:
            self._newest = record
            if self._on_append is not None:
                self._on_append(record)
        if records:
            self.changed.ring()

    def _insert_backlog(self, connection: sqlite3.Connection) -> None:
        taken = _newest_id(connection)
        if taken >= self._backlog[0].id:  # only after a start at which the database could not be read
            self._backlog = deque(
                replace(record, id=taken + number) for number, record in enumerate(self._backlog, 1)
            )
            self._last_id = self._backlog[-1].id
        connection.executemany(_INSERT, [_row(record) for record in self._backlog])
        self._until_prune -= len(self._backlog)
        if self._until_prune <= 0:
            self._until_prune = self._retention.prune_every
            bound = self._last_id - self._retention.max_events
            connection.execute(_PRUNE, (bound, 5 * self._retention.prune_every))

    def _hold_back(self, error: StoreError) -> None:
        while len(self._backlog) > self._retention.max_backlog:
            self._backlog.popleft()
            self.lost_total += 1
        if not self._troubled:
            self._troubled = True
            logger.error("events wait in memory: %s", error)
            if self._on_trouble is not None:
                self._on_trouble(str(error))


def _newest_id(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT coalesce(max(id), 0) FROM events").fetchone()[0])


def _storable(record: EventRecord) -> EventRecord:
    """The same; text from undecodable bytes, which SQLite refuses, has them written out."""
    try:
        for value in _row(record):
            if isinstance(value, str):
                value.encode("utf-8")
    except UnicodeEncodeError:
        cleaned: dict[str, Any] = {
            column: value.encode("utf-8", "backslashreplace").decode("utf-8")
            for column, value in zip(_COLUMNS, _row(record), strict=True)
            if isinstance(value, str)
        }
        return replace(record, **cleaned)
    return record
