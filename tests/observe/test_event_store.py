"""Events: kept through crashes, full disks and files that are not ours."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from blackhole_cg.core.facts import EventRecord
from blackhole_cg.core.words import Reason, State
from blackhole_cg.errors import StoreError
from blackhole_cg.observe.database import Database
from blackhole_cg.observe.event_store import EventStore, Retention

PATIENCE_SECONDS = 60


def event(detail: str = "", service: str = "web", run_id: int = 1) -> EventRecord:
    return EventRecord(
        at_wall="2025-11-21T04:02:00.000001Z",
        service=service,
        run_id=run_id,
        kind="state",
        from_state=State.RUNNING,
        to_state=None,
        reason=Reason.EXITED,
        detail=detail,
    )


def details(store: EventStore, **query: object) -> list[str]:
    return [record.detail for record in store.read(**query)]  # type: ignore[arg-type]


def stored(path: Path) -> list[tuple[int, str]]:
    """What another process sees in the file."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return connection.execute("SELECT id, detail FROM events ORDER BY id").fetchall()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "state.db"


def test_each_event_is_told_with_its_id_also_while_the_database_is_locked(path: Path) -> None:
    told: list[EventRecord] = []
    store = EventStore(Database(path), on_append=told.append)
    store.append(event("one"))
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        store.append(event("two"))
    store.append(event("three"))
    assert [(each.id, each.detail) for each in told] == [(1, "one"), (2, "two"), (3, "three")]


def test_events_come_back_as_they_were(path: Path) -> None:
    store = EventStore(Database(path))
    first = store.append(event("one"))
    second = store.append(event("zwei \0 \U0001f600", run_id=2**40))
    assert (first.id, second.id) == (1, 2)
    assert store.read() == [first, second]
    assert first.to_json()["from"] == "running"
    reopened = EventStore(Database(path))
    assert reopened.read() == [first, second]
    assert reopened.append(event()).id == 3
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_queries(path: Path) -> None:
    store = EventStore(Database(path))
    for number in range(20):
        store.append(event(str(number), service="web" if number % 2 else "db"))
    assert details(store) == [str(number) for number in range(20)]
    assert details(store, newest=3) == ["17", "18", "19"]
    assert details(store, newest=0) == []
    assert details(store, limit=2) == ["0", "1"]
    assert details(store, after_id=18) == ["18", "19"]
    assert details(store, after_id=2, limit=2) == ["2", "3"]
    assert details(store, service="db", newest=2) == ["16", "18"]
    assert details(store, service="web", after_id=10) == ["11", "13", "15", "17", "19"]
    assert details(store, service="none") == []


def test_text_that_is_not_unicode_is_written_out(path: Path) -> None:
    store = EventStore(Database(path))
    record = store.append(event("cannot run /opt/b\udcffin"))
    assert record.detail == "cannot run /opt/b\\udcffin"
    assert store.read() == [record]


def test_600_events_are_cheap(path: Path) -> None:
    store = EventStore(Database(path))
    store.append(event())
    began = time.process_time()
    for number in range(600):
        store.append(event(str(number)))
    spent = time.process_time() - began
    print(f"600 events in {spent * 1000:.1f} ms of CPU")
    assert spent < 0.5  # generous: the machine may be busy; about 20 ms is usual


def test_retention_keeps_the_newest(path: Path) -> None:
    store = EventStore(Database(path), retention=Retention(max_events=100, prune_every=10))
    for number in range(1000):
        store.append(event(str(number)))
        assert len(store.read()) <= 110
    assert details(store)[-100:] == [str(number) for number in range(900, 1000)]
    lowered = EventStore(Database(path), retention=Retention(max_events=10, prune_every=5))
    for number in range(1000, 1030):
        lowered.append(event(str(number)))
    assert len(lowered.read()) <= 15
    assert lowered.last_id == 1030


def test_another_process_reads_while_events_are_written(path: Path) -> None:
    store = EventStore(Database(path))
    store.append(event())
    code = """
import sqlite3, sys
connection = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True, timeout=0)
print("ready", flush=True)
last = 0
while last < 2000:
    found = connection.execute("SELECT count(*), max(id) FROM events").fetchone()
    assert found[0] == found[1] >= last, found
    last = found[1]
print("done", flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "ready\n"
        while store.last_id < 2000:
            store.append(event())
        assert store.backlog_size == 0
        assert reader.stdout.readline() == "done\n"
    assert reader.returncode == 0


def test_no_acknowledged_event_is_lost_when_the_writer_is_killed(path: Path) -> None:
    code = """
import sys
from pathlib import Path
from blackhole_cg.observe.database import Database
from blackhole_cg.observe.event_store import EventStore
from tests.observe.test_event_store import event
store = EventStore(Database(Path(sys.argv[1])))
while True:
    print(store.append(event("x" * 500)).id, flush=True)
"""
    acknowledged = 0
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            for line in writer.stdout:
                acknowledged = int(line)
                if acknowledged % 700 == 0:
                    writer.send_signal(signal.SIGKILL)
                    break
            for line in writer.stdout:
                if line.endswith(b"\n"):
                    acknowledged = int(line)
        store = EventStore(Database(path))
        ids = [record.id for record in store.read()]
        # One more may have been committed and not announced.
        assert ids == list(range(1, len(ids) + 1))
        assert len(ids) in (acknowledged, acknowledged + 1)
    assert acknowledged >= 2100


def test_damage_that_shows_later_is_no_crash_either(path: Path) -> None:
    told: list[str] = []
    database = Database(path, on_set_aside=told.append)
    store = EventStore(database)
    for _ in range(2000):
        store.append(event("x" * 200))
    database.close()
    pages = path.stat().st_size // 4096
    with path.open("r+b") as file:
        for page in range(3, pages):
            file.seek(page * 4096)
            file.write(os.urandom(4096))
    newest = store.append(event("after"))
    assert newest.id == 2001
    assert details(store)[-1] == "after"
    assert len(told) == 1


def test_a_file_someone_deleted_is_made_anew(path: Path) -> None:
    store = EventStore(Database(path))
    store.append(event("one"))
    path.unlink()
    record = store.append(event("two"))
    assert record.id == 2
    assert stored(path) == [(2, "two")]


def test_a_database_that_cannot_be_written_holds_events_back(path: Path) -> None:
    troubles: list[str | None] = []
    store = EventStore(Database(path), on_trouble=troubles.append)
    store.append(event("before"))
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        held = [store.append(event(str(number), service="db")) for number in range(3)]
        assert [record.id for record in held] == [2, 3, 4]
        assert store.backlog_size == 3
        assert details(store) == ["before", "0", "1", "2"]
        assert details(store, newest=2) == ["1", "2"]
        assert details(store, after_id=2, limit=1) == ["1"]
        assert details(store, service="web") == ["before"]
        assert stored(path) == [(1, "before")]
        assert troubles == [f"cannot write {path}: database is locked"]
        other.execute("ROLLBACK")
    store.append(event("after"))
    assert store.backlog_size == 0
    assert stored(path) == [(1, "before"), (2, "0"), (3, "1"), (4, "2"), (5, "after")]
    assert troubles[1:] == [None]


def test_what_could_not_be_stored_is_tried_again_though_nothing_else_happens(path: Path) -> None:
    async def main() -> None:
        store = EventStore(Database(path))
        store.append(event("before"))
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            store.append(event("meanwhile"))
            assert stored(path) == [(1, "before")]
            other.execute("ROLLBACK")
        async with asyncio.timeout(PATIENCE_SECONDS):
            while store.backlog_size:  # noqa: ASYNC110  (nothing tells of it)
                await asyncio.sleep(0.05)
        assert stored(path) == [(1, "before"), (2, "meanwhile")]

    asyncio.run(main())


def test_a_full_disk_holds_events_back_and_an_old_backlog_is_bounded(path: Path) -> None:
    code = """
import resource, sys
from pathlib import Path
from blackhole_cg.observe.database import Database
from blackhole_cg.observe.event_store import EventStore, Retention
from tests.observe.test_event_store import event, stored
path = Path(sys.argv[1])
store = EventStore(Database(path), retention=Retention(max_backlog=50))
store.append(event("0"))
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
for number in range(1, 400):
    assert store.append(event(str(number))).id == number + 1
kept = len(stored(path))
assert 0 < kept < 300, kept
assert store.backlog_size == 50
assert store.lost_total == 400 - kept - 50
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert store.flush()
assert [detail for _, detail in stored(path)] == [*map(str, range(kept)), *map(str, range(350, 400))]
print("done")
"""
    run = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=False)
    assert run.stdout == "done\n", run.stderr


def test_a_start_without_a_database_numbers_its_events_after_the_old_ones(path: Path) -> None:
    store = EventStore(Database(path))
    for number in range(3):
        store.append(event(str(number)))
    hidden = path.parent.with_name("hidden")
    path.parent.rename(hidden)
    path.parent.write_text("not a directory")
    troubles: list[str | None] = []
    store = EventStore(Database(path), on_trouble=troubles.append)
    assert store.append(event("3")).id == 1
    assert len(troubles) == 1
    with pytest.raises(StoreError, match="cannot read"):
        store.read()
    path.parent.unlink()
    hidden.rename(path.parent)
    assert store.append(event("4")).id == 5
    assert stored(path) == [(number + 1, str(number)) for number in range(5)]
    assert troubles[1:] == [None]


def test_followers_get_each_event_once_and_in_order(path: Path) -> None:
    async def follow(store: EventStore, service: str | None, pause: float) -> list[int]:
        found = []
        async for record in store.follow(after_id=1, service=service):
            found.append(record.id)
            if pause:
                await asyncio.sleep(pause)
        return found

    async def scenario() -> list[list[int]]:
        store = EventStore(Database(path))
        store.append(event())
        store.append(event())
        cases: list[tuple[str | None, float]] = [(None, 0), (None, 0.0005), ("db", 0)]
        followers = [asyncio.ensure_future(follow(store, *case)) for case in cases]
        for number in range(1200):
            store.append(event(service="db" if number % 2 else "web"))
            if number % 7 == 0:
                await asyncio.sleep(0)
        store.close()
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await asyncio.gather(*followers)

    everything = list(range(2, 1203))
    assert asyncio.run(scenario()) == [everything, everything, list(range(4, 1203, 2))]


def test_a_follower_from_now_on_is_woken_by_the_event(path: Path) -> None:
    async def scenario() -> None:
        store = EventStore(Database(path))
        store.append(event("old"))
        following = store.follow()
        async with asyncio.timeout(PATIENCE_SECONDS):
            for number in range(3):
                waiting = asyncio.ensure_future(anext(following))
                await asyncio.sleep(0)
                assert not waiting.done()
                record = store.append(event(str(number)))
                assert await waiting == record
        await following.aclose()

    asyncio.run(scenario())


def test_work_that_fails_leaves_nothing_behind(path: Path) -> None:
    database = Database(path)
    store = EventStore(database)

    def half(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM events")
        raise ValueError

    record = store.append(event())
    with pytest.raises(ValueError):
        database.write(half)
    assert store.read() == [record]
