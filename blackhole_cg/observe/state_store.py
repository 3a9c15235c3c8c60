"""What a later supervisor must know: the status of every service, and the identity of every live run.

Written as it happens and before it is acted on; forgotten at the end of an ordered shutdown, but for the
numbers of runs, which are never given twice.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Mapping
from typing import Final

from blackhole_cg.core.record import (
    Memory,
    RunRecord,
    after_reboot,
    parse_run,
    parse_status,
    render_run,
    render_status,
)
from blackhole_cg.core.status import ServiceStatus
from blackhole_cg.errors import OperationError, StoreError
from blackhole_cg.observe.database import Database

_SAVE: Final = (
    "INSERT INTO memory (kind, name, text) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET text = excluded.text"
)
_DELETE: Final = "DELETE FROM memory WHERE kind = ? AND name = ?"
_DELETE_OLD: Final = "DELETE FROM memory WHERE kind = ?"
_BOOT, _STATUS, _RUN, _RUN_ID, _PORT = "boot", "status", "run", "run_id", "port"
_PASSING: Final = (_BOOT, _STATUS, _RUN)  # the kinds that end with what they are about

_Key = tuple[str, str]

logger = logging.getLogger(__name__)


class StateStore:
    """The memory table, and what should be in it.

    A write that fails is told once, and made up for at the next one; a new file gets everything.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[_Key, str] = {}
        self._changed: dict[_Key, str | None] = {}
        self._generation: int | None = None  # of the file that has what is known; None before it was read
        self._is_troubled = False
        self._outbox = database.outbox
        self._outbox.join(self)

    def begin(self, boot_id: str) -> Memory:
        """From here on it is this boot: what the last supervisor left, as far as it still holds.

        Nothing where that one ended in order. What cannot be read is told, and left out.
        """
        try:
            rows = self._database.read(
                lambda connection: connection.execute("SELECT kind, name, text FROM memory").fetchall()
            )
        except StoreError as error:
            logger.error("%s: services of an earlier supervisor are not recognised", error)
            rows = []
        self._known = {(kind, name): text for kind, name, text in rows}
        self._generation = self._database.generation
        memory = self._parse()
        if memory.boot_id not in ("", boot_id):
            memory = after_reboot(memory, boot_id)
            self._set(dict.fromkeys(key for key in self._known if key[0] == _RUN))
            self._set({(_STATUS, name): render_status(each) for name, each in memory.statuses.items()})
        self._set({(_BOOT, ""): boot_id})
        self._outbox.flush()
        return memory

    def save_status(self, service: str, status: ServiceStatus) -> None:
        """Remember a status, instead of the one before."""
        self._set({(_STATUS, service): render_status(status), (_RUN_ID, service): str(status.run_id)})
        self._outbox.flush()

    def save_run(self, run: RunRecord) -> None:
        """Remember a live run."""
        self._set({(_RUN, run.service): render_run(run)})
        self._outbox.flush()

    def forget_run(self, service: str) -> None:
        """The run has ended."""
        self._set({(_RUN, service): None})
        self._outbox.flush()

    def save_port(self, service: str, port: int) -> None:
        """Remember the port that a service was given, which it is to have again."""
        self._set({(_PORT, service): str(port)})
        self._outbox.flush()

    def forget(self, service: str) -> None:
        """There is no such service any more."""
        self._set({(_RUN, service): None, (_STATUS, service): None, (_PORT, service): None})
        self._outbox.flush()

    def clear(self) -> None:
        """Everything has ended in order: there is nothing to take over; services have their ports again."""
        self._set(dict.fromkeys(key for key in self._known if key[0] in _PASSING))
        self._outbox.flush()

    def confirm(self) -> None:
        """Return once all that has happened outlasts a crash, and a loss of power.

        Raises:
            OperationError: it has happened, and cannot be stored.
        """
        error = self._outbox.flush()
        if error is None:
            try:
                self._database.sync()
                return
            except StoreError as cause:
                error = cause
        raise OperationError(f"this is done, but would be forgotten in a crash: {error}") from error

    def _set(self, changes: Mapping[_Key, str | None]) -> None:
        for key, text in changes.items():
            if self._known.get(key) == text:
                continue
            if text is None:
                del self._known[key]
            else:
                self._known[key] = text
            self._changed[key] = text

    def _is_another_file(self) -> bool:
        return self._generation not in (None, self._database.generation)

    def _parse(self) -> Memory:
        statuses, runs, run_ids, ports = {}, {}, {}, {}
        for (kind, name), text in self._known.items():
            try:
                if kind == _STATUS:
                    statuses[name] = parse_status(text)
                elif kind == _RUN:
                    runs[name] = parse_run(text)
                elif kind == _RUN_ID:
                    run_ids[name] = int(text)
                elif kind == _PORT:
                    ports[name] = int(text)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                logger.error("cannot read the %s of %s in %s: %r", kind, name, self._database.path, error)
        return Memory(self._known.get((_BOOT, ""), ""), statuses, runs, run_ids, ports)

    # ---- Part of the outbox ----

    @property
    def is_waiting(self) -> bool:
        """Whether anything has changed that the file does not have."""
        return bool(self._changed) or self._is_another_file()

    def write(self, connection: sqlite3.Connection) -> None:
        """Write what has changed; everything, into a file that is a new one."""
        changes: Mapping[_Key, str | None] = self._changed
        if self._is_another_file():
            connection.executemany(_DELETE_OLD, [(kind,) for kind in _PASSING])
            changes = self._known
        gone = [key for key, text in changes.items() if text is None]
        connection.executemany(_DELETE, gone)
        connection.executemany(_SAVE, [(*key, text) for key, text in changes.items() if text is not None])

    def written(self) -> None:
        """The file has it all."""
        self._changed.clear()
        if self._generation is not None:
            self._generation = self._database.generation
        self._is_troubled = False

    def held(self, error: StoreError) -> None:
        """It has to wait."""
        if not self._is_troubled and self._changed:
            self._is_troubled = True
            logger.error("%s: a crash now would lose the state of services", error)
