"""Whether this version could go on from a state file: asked without touching it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from blackhole_cg.core.record import RunRecord, render_run, render_status
from blackhole_cg.core.status import ServiceStatus
from blackhole_cg.errors import StoreError
from blackhole_cg.observe.database import MIGRATIONS, Database
from blackhole_cg.observe.state_check import check_state
from blackhole_cg.observe.state_store import StateStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of a supervisor with one live service."""
    path = tmp_path / "state.db"
    database = Database(path)
    database.read(lambda connection: None)
    database.close()
    record = RunRecord("web", 1, "boot", 4242, 17, "/bh/web", "hash")
    with sqlite3.connect(path) as connection:
        rows = [("boot", "", "boot"), ("status", "web", render_status(ServiceStatus()))]
        rows.append(("run", "web", render_run(record)))
        connection.executemany("INSERT INTO memory VALUES (?, ?, ?)", rows)
    connection.close()
    return path


def execute(path: Path, statement: str) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(statement)
    connection.close()


def test_what_this_version_wrote_it_can_read_and_leaves_as_it_is(path: Path) -> None:
    before = path.read_bytes()
    check_state(path)
    assert path.read_bytes() == before
    assert StateStore(Database(path)).begin("boot").runs["web"].pid == 4242


def test_no_file_is_no_obstacle_and_none_is_made(tmp_path: Path) -> None:
    check_state(tmp_path / "state.db")
    assert list(tmp_path.iterdir()) == []


def test_an_older_schema_will_be_brought_up_to_date(path: Path) -> None:
    execute(path, "DROP TABLE memory")
    execute(path, "PRAGMA user_version = 1")
    check_state(path)


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        (
            f"PRAGMA user_version = {len(MIGRATIONS) + 1}",
            f"schema version {len(MIGRATIONS) + 1} is newer than {len(MIGRATIONS)}",
        ),
        ("PRAGMA application_id = 1", "belongs to another program"),
        ("UPDATE memory SET text = '{}' WHERE kind = 'run'", "cannot read the run of web"),
        ("UPDATE memory SET text = '[' WHERE kind = 'status'", "cannot read the status of web"),
    ],
)
def test_what_this_version_does_not_understand_is_named(path: Path, statement: str, reason: str) -> None:
    execute(path, statement)
    with pytest.raises(StoreError, match=reason):
        check_state(path)


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_bytes(b"nonsense" * 1000)
    with pytest.raises(StoreError, match="is not a database"):
        check_state(tmp_path / "state.db")
