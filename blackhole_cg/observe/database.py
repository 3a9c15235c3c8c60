"""The supervisor's SQLite file: opening, schema, and what to do when it is not usable.

Stores share one Database and bring their own SQL. WAL with synchronous=NORMAL: what was committed survives a
crash of the process; a power loss may take the commits since the last `sync`, and never leaves the file
inconsistent.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeVar

from blackhole_cg.errors import StoreError
from blackhole_cg.observe.outbox import Outbox

T = TypeVar("T")

APPLICATION_ID: Final = 0x62686367
"""Marks the file as ours. Source: sqlite.org pragma application_id."""

MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        """CREATE TABLE events (
            id INTEGER PRIMARY KEY,
            at_wall TEXT NOT NULL,
            service TEXT NOT NULL,
            run_id INTEGER NOT NULL,
            kind TEXT NOT NULL,
            from_state TEXT,
            to_state TEXT,
            reason TEXT NOT NULL,
            detail TEXT NOT NULL
        )""",
        "CREATE INDEX events_by_service ON events (service, id)",
    ),
    ("CREATE TABLE memory (kind TEXT, name TEXT, text TEXT NOT NULL, PRIMARY KEY (kind, name))",),
)
"""Statements from each schema version to the next; PRAGMA user_version counts those applied."""

_SIDECARS: Final = ("-wal", "-shm")
_JOURNAL_MAGIC: Final = (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")
"""How a write-ahead log begins. Source: sqlite.org/fileformat2.html, section 4.1."""
_DAMAGE: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

logger = logging.getLogger(__name__)


class _UnusableError(Exception):
    """The file is not a database this program can use; the text says why."""


class Database:
    """One file, opened at first use and after trouble; what cannot be used is set aside, never deleted.

    Args:
        path: the file; its directory is made when missing.
        wall_clock: aware; names a file set aside.
        on_set_aside: told in one sentence when that happened.
        sync: makes what was written to a descriptor outlast a loss of power; raises OSError.

    Attributes:
        outbox: what the stores of this file want written.
        generation: grows whenever the file is another one than before, and so lacks what was written.
    """

    def __init__(
        self,
        path: Path,
        *,
        wall_clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        on_set_aside: Callable[[str], None] | None = None,
        sync: Callable[[int], None] = os.fdatasync,
    ) -> None:
        self.path = path
        self.outbox = Outbox(self.write)
        self.generation = 0
        self._sync = sync
        self._is_synced = self._has_journal = True
        self._synced_journal = (0, 0)
        self._wall_clock = wall_clock
        self._on_set_aside = on_set_aside
        self._connection: sqlite3.Connection | None = None
        self._file_id = (0, 0)

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """What `work` returns, which only reads; also on a full disk. Raises StoreError."""
        try:
            return self._attempt("read", work)
        except StoreError:
            if self._connection is not None or not self.path.is_file():
                raise
            with contextlib.suppress(sqlite3.Error, OSError, _UnusableError):
                return self._read_alone(work)
            raise

    def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """What `work` returns, done in one transaction: all of it or nothing. Raises StoreError."""

        def transact(connection: sqlite3.Connection) -> T:
            self._is_synced = False
            with _transaction(connection):
                return work(connection)

        return self._attempt("write", transact)

    def sync(self) -> None:
        """Return once everything that was written outlasts a loss of power. Raises StoreError.

        All of it is in the journal: SQLite itself makes a checkpoint durable before it overwrites that.
        Closing this other descriptor drops no lock: SQLite's are on the file and on its shared memory.
        """
        if not self._is_synced:
            self._attempt("make durable", lambda connection: self._sync_journal())
        self._is_synced = True

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        self.outbox.close()
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def _sync_journal(self) -> None:
        if not self._has_journal:
            return
        descriptor = os.open(f"{self.path}-wal", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._sync(descriptor)
            journal = _identity(os.fstat(descriptor))
        finally:
            os.close(descriptor)
        if journal != self._synced_journal:
            self._sync_names()
            self._synced_journal = journal

    def _sync_names(self) -> None:
        """The names of new files are durable with their directory only. Source: fsync(2)."""
        descriptor = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _attempt(self, verb: str, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            try:
                return work(self._connect())
            except sqlite3.DatabaseError as error:
                if not _is_damage(error):
                    raise
                self._set_aside(f"it is damaged: {error}")
                return work(self._connect())
        except (sqlite3.Error, OSError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise StoreError(f"cannot {verb} {self.path}: {why}") from error

    def _read_alone(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Read where the file cannot be opened as usual, since the disk has no room for what that needs.

        Connections share an index of the journal in a file; one that excludes all others needs none.
        Source: sqlite.org/wal.html, "Use of WAL Without Shared-Memory".
        """
        _check_journal(Path(f"{self.path}-wal"))
        with contextlib.closing(sqlite3.connect(self.path, timeout=0, isolation_level=None)) as connection:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            _check_ours(connection)
            found = work(connection)
        self._note_file()
        return found

    def _connect(self) -> sqlite3.Connection:
        if self._connection is not None and not self._was_replaced():
            return self._connection
        self.close()
        try:
            self._connection = self._open()
        except _UnusableError as error:
            self._set_aside(str(error))
            self._connection = self._open()
        self._note_file()
        return self._connection

    def _note_file(self) -> None:
        file_id = _identity(self.path.stat())
        self.generation += file_id != self._file_id
        self._file_id = file_id

    def _was_replaced(self) -> bool:
        """Whether someone deleted or moved the file; SQLite would go on writing to what no name leads to."""
        try:
            return _identity(self.path.stat()) != self._file_id
        except FileNotFoundError:
            return True

    def _open(self) -> sqlite3.Connection:
        if self.path.is_dir():
            raise _UnusableError("it is a directory")
        if not self.path.exists():
            self._create()
        _check_journal(Path(f"{self.path}-wal"))
        # No busy timeout: the loop must not wait for an operator's sqlite3 shell. autocommit, so that
        # transactions begin where _transaction says and nowhere else.
        connection = sqlite3.connect(self.path, timeout=0, isolation_level=None)
        try:
            _check_ours(connection)
            mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            self._has_journal = mode == "wal"  # on some network file systems it cannot be had
            connection.execute(f"PRAGMA synchronous = {'NORMAL' if self._has_journal else 'FULL'}")
            _migrate(connection)
        except sqlite3.DatabaseError as error:
            connection.close()
            if _is_damage(error):
                raise _UnusableError(f"it is damaged: {error}") from error
            raise
        except _UnusableError:
            connection.close()
            raise
        return connection

    def _create(self) -> None:
        """An empty file, without the journal of one that is gone, which would be replayed into it."""
        self._file_id = (0, 0)  # its number may be that of the one before
        self.path.parent.mkdir(parents=True, exist_ok=True)
        for suffix in _SIDECARS:
            Path(f"{self.path}{suffix}").unlink(missing_ok=True)
        os.close(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))

    def _set_aside(self, why: str) -> None:
        self.close()
        stamp = self._wall_clock().astimezone(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        target = f"{self.path}.set-aside-{stamp}"
        self.path.rename(target)
        for suffix in _SIDECARS:
            with contextlib.suppress(FileNotFoundError):
                Path(f"{self.path}{suffix}").rename(f"{target}{suffix}")
        message = f"{self.path} cannot be used and was moved to {target}, a new one is begun: {why}"
        logger.error("%s", message)
        if self._on_set_aside is not None:
            self._on_set_aside(message)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # some errors, such as a full disk, have rolled back already
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
        raise


def _is_damage(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGE


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def _check_ours(connection: sqlite3.Connection) -> None:
    tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if not tables and not _pragma(connection, "user_version"):
        return
    if _pragma(connection, "application_id") != APPLICATION_ID:
        raise _UnusableError("it belongs to another program")
    version = _pragma(connection, "user_version")
    if version > len(MIGRATIONS):
        raise _UnusableError(
            f"its schema version {version} is newer than {len(MIGRATIONS)}, the newest this version knows"
        )


def _check_journal(path: Path) -> None:
    """SQLite takes a journal it cannot read for an empty one: what was in it would be lost in silence."""
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except FileNotFoundError:
        return
    if magic and magic not in _JOURNAL_MAGIC:
        raise _UnusableError("its journal is damaged")


def _migrate(connection: sqlite3.Connection) -> None:
    """Apply what is missing, each step in a transaction with its version number."""
    for version in range(_pragma(connection, "user_version"), len(MIGRATIONS)):
        with _transaction(connection):
            for statement in MIGRATIONS[version]:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {version + 1}")
