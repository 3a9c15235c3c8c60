"""What a later supervisor must know: the status of every service, and the identity of every live run.

Written as it happens and before it is acted on; forgotten at the end of an ordered shutdown.
"""

from __future__ import annotations

import logging
from typing import Final

from blackhole_cg.core.record import Memory, RunRecord, parse_run, parse_status, render_run, render_status
from blackhole_cg.core.status import ServiceStatus
from blackhole_cg.errors import StoreError
from blackhole_cg.observe.database import Database

_SAVE: Final = (
    "INSERT INTO memory (kind, name, text) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET text = excluded.text"
)
_DELETE: Final = "DELETE FROM memory WHERE kind = ? AND name = ?"

logger = logging.getLogger(__name__)


class StateStore:
    """The memory table. A write that fails is told once, kept, and tried again at the next one."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._held_back: dict[tuple[str, str], str | None] = {}

    def load(self) -> Memory:
        """What the last supervisor left; nothing where it ended in order. What cannot be read is left out."""
        try:
            rows = self._database.read(
                lambda connection: connection.execute("SELECT kind, name, text FROM memory").fetchall()
            )
        except StoreError as error:
            logger.error("%s: services of an earlier supervisor are not recognised", error)
            return Memory()
        boot_id, statuses, runs, ports = "", {}, {}, {}
        for kind, name, text in rows:
            try:
                if kind == "boot":
                    boot_id = text
                elif kind == "status":
                    statuses[name] = parse_status(text)
                elif kind == "run":
                    runs[name] = parse_run(text)
                elif kind == "port":
                    ports[name] = int(text)
            except (ValueError, KeyError, TypeError) as error:
                logger.error("cannot read the %s of %s in %s: %r", kind, name, self._database.path, error)
        return Memory(boot_id, statuses, runs, ports)

    def begin(self, boot_id: str) -> None:
        """From here on it is this boot."""
        self._write("boot", "", boot_id)

    def save_status(self, service: str, status: ServiceStatus) -> None:
        """Remember a status, instead of the one before."""
        self._write("status", service, render_status(status))

    def save_run(self, run: RunRecord) -> None:
        """Remember a live run."""
        self._write("run", run.service, render_run(run))

    def forget_run(self, service: str) -> None:
        """The run has ended."""
        self._write("run", service, None)

    def save_port(self, service: str, port: int) -> None:
        """Remember the port that a service was given, which it is to have again."""
        self._write("port", service, str(port))

    def forget(self, service: str) -> None:
        """There is no such service any more."""
        self._write("port", service, None)
        self._write("run", service, None)
        self._write("status", service, None)

    def clear(self) -> None:
        """Everything has ended in order: there is nothing to take over; services have their ports again."""
        self._held_back.clear()
        try:
            self._database.execute("DELETE FROM memory WHERE kind != 'port'", ())
        except StoreError as error:
            logger.error("%s", error)

    def _write(self, kind: str, name: str, text: str | None) -> None:
        pending = {**self._held_back, (kind, name): text}
        for (each_kind, each_name), each_text in pending.items():
            try:
                if each_text is None:
                    self._database.execute(_DELETE, (each_kind, each_name))
                else:
                    self._database.execute(_SAVE, (each_kind, each_name, each_text))
            except StoreError as error:
                if not self._held_back:
                    logger.error("%s: a crash now would lose the state of services", error)
                self._held_back = pending
                return
        self._held_back = {}
