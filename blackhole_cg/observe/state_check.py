"""Whether this version can go on from the state that another one keeps. Only reads, and repairs nothing."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from blackhole_cg.core.record import parse_run, parse_status
from blackhole_cg.errors import StoreError
from blackhole_cg.observe.database import APPLICATION_ID, MIGRATIONS

_HAS_MEMORY = "SELECT 1 FROM sqlite_schema WHERE name = 'memory'"  # not so in the first versions
_MEMORY = "SELECT kind, name, text FROM memory"
_PARSERS = {"status": parse_status, "run": parse_run}


def check_state(path: Path) -> None:
    """Read everything in the file that the next supervisor needs; one that is not there is not needed.

    Raises:
        StoreError: it cannot be read, or not all of it is understood.
    """
    if not path.exists():
        return
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            _check_schema(path, database)
            rows = database.execute(_MEMORY).fetchall() if database.execute(_HAS_MEMORY).fetchone() else []
    except sqlite3.Error as error:
        raise StoreError(f"cannot read {path}: {error}") from error
    for kind, name, text in rows:
        if parse := _PARSERS.get(kind):
            try:
                parse(text)
            except (ValueError, KeyError, TypeError) as error:
                raise StoreError(f"cannot read the {kind} of {name} in {path}: {error!r}") from error


def _check_schema(path: Path, database: sqlite3.Connection) -> None:
    application = database.execute("PRAGMA application_id").fetchone()[0]
    if application != APPLICATION_ID:
        raise StoreError(f"cannot read {path}: it belongs to another program")
    version = database.execute("PRAGMA user_version").fetchone()[0]
    if version > len(MIGRATIONS):
        raise StoreError(
            f"cannot read {path}: its schema version {version} is newer than {len(MIGRATIONS)}, "
            "the newest this version knows"
        )
