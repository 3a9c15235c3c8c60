"""The file itself: set aside when it cannot be used, brought up to date when old, durable when asked."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from blackhole_cg.core.record import RunRecord
from blackhole_cg.core.restart import RestartHistory
from blackhole_cg.core.status import ServiceStatus
from blackhole_cg.core.words import Desired, Health, Reason, State
from blackhole_cg.errors import OperationError, StoreError
from blackhole_cg.observe.database import MIGRATIONS, Database
from blackhole_cg.observe.event_store import EventStore
from blackhole_cg.observe.state_store import StateStore
from tests.observe.test_event_store import details, event

BOOT = "boot"
UP = ServiceStatus(State.RUNNING, Desired.UP, run_id=3, pid=77, health=Health.UNHEALTHY, started_at=5.0)
RUN = RunRecord("web", 3, BOOT, 77, 1234, "/cg/web", "hash", tcp_port=8080, fifos={"stdout": "/run/x"})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "state.db"


def fill(database: Database) -> None:
    """More than a few pages of events, and one service."""
    events, states = EventStore(database), StateStore(database)
    states.begin(BOOT)
    for number in range(1000):
        events.append(event(f"{number} {'x' * 200}"))
    states.save_status("web", UP)
    states.save_run(RUN)


def whole(path: Path) -> None:
    database = Database(path)
    fill(database)
    database.close()


# ---- what cannot be used ----


def garbage(path: Path) -> None:
    path.write_bytes(os.urandom(50_000))


def garbage_header(path: Path) -> None:
    whole(path)
    overwrite(path, 0, os.urandom(100))


def garbage_schema(path: Path) -> None:
    whole(path)
    overwrite(path, 100, b"\xff" * 3000)


def foreign(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE recipes (name)")
        connection.commit()


def newer(path: Path) -> None:
    database = Database(path)
    database.write(lambda connection: connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}"))
    database.close()


def directory(path: Path) -> None:
    path.mkdir()


def truncated(path: Path) -> None:
    whole(path)
    os.truncate(path, path.stat().st_size // 2 // 4096 * 4096 + 100)


def garbage_journal(path: Path) -> None:
    database = Database(path.with_name("whole.db"))
    fill(database)
    for suffix in ("", "-wal"):  # as a crash leaves them
        shutil.copy(f"{database.path}{suffix}", f"{path}{suffix}")
    database.close()
    overwrite(Path(f"{path}-wal"), 0, os.urandom(5000))


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (garbage, "file is not a database"),
        (garbage_header, "file is not a database"),
        (garbage_schema, "malformed"),
        (foreign, "belongs to another program"),
        (newer, f"schema version {len(MIGRATIONS) + 1} is newer"),
        (directory, "is a directory"),
        (truncated, "malformed"),
        (garbage_journal, "its journal is damaged"),
    ],
)
def test_a_file_that_cannot_be_used_is_set_aside(path: Path, spoil, why: str) -> None:  # type: ignore[no-untyped-def]
    path.parent.mkdir()
    spoil(path)
    told: list[str] = []
    now = datetime(2025, 11, 21, 4, 2, tzinfo=UTC)
    database = Database(path, wall_clock=lambda: now, on_set_aside=told.append)
    store, states = EventStore(database), StateStore(database)
    assert states.begin(BOOT).statuses == {}
    record = store.append(event("fresh"))
    assert store.read() == [record]
    aside = f"{path}.set-aside-20251121T040200.000000Z"
    assert len(told) == 1
    assert why in told[0]
    assert aside in told[0]
    assert Path(aside).exists()
    database.close()
    assert EventStore(Database(path)).read() == [record]
    assert len(told) == 1


def test_garbage_in_the_middle_costs_what_is_there_and_no_state_of_services(path: Path) -> None:
    whole(path)
    told: list[str] = []
    database = Database(path, on_set_aside=told.append)
    store, states = EventStore(database), StateStore(database)
    assert states.begin(BOOT).statuses == {"web": UP}
    for page in range(10, path.stat().st_size // 4096 - 20):
        overwrite(path, page * 4096, os.urandom(4096))
    with contextlib.suppress(StoreError):
        store.read()  # finds out
    store.append(event("after"))
    assert len(told) == 1
    again = StateStore(Database(path)).begin(BOOT)
    assert (again.statuses, again.runs, again.run_ids) == ({"web": UP}, {"web": RUN}, {"web": 3})
    assert details(EventStore(Database(path))) == ["after"]


def test_a_new_file_gets_all_that_is_known(path: Path) -> None:
    database = Database(path)
    fill(database)
    path.unlink()
    EventStore(database).append(event("after"))
    memory = StateStore(Database(path)).begin(BOOT)
    assert (memory.statuses, memory.runs, memory.run_ids) == ({"web": UP}, {"web": RUN}, {"web": 3})


def test_events_that_come_before_the_state_is_read_take_nothing_from_it(path: Path) -> None:
    whole(path)
    database = Database(path)
    store, states = EventStore(database), StateStore(database)
    store.append(event("early"))
    assert states.begin(BOOT).statuses == {"web": UP}


def test_a_file_that_may_not_be_written_is_read_and_what_happens_is_held_back(path: Path) -> None:
    whole(path)
    code = """
import os, sys
from pathlib import Path
from tests.observe.test_database import *
path = Path(sys.argv[1])
path.chmod(0o444)
path.parent.chmod(0o755)
for parent in list(path.parents)[1:4]:
    parent.chmod(parent.stat().st_mode | 0o055)
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
database = Database(path)
store, states = EventStore(database), StateStore(database)
states.begin(BOOT)
store.append(event("after"))
assert store.backlog_size == 1
try:
    states.confirm()
except OperationError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=False)
    assert run.stdout.startswith("this is done, but would be forgotten in a crash: cannot write"), run.stderr


# ---- older files ----

SCHEMA_1 = """
CREATE TABLE events (id INTEGER PRIMARY KEY, at_wall TEXT NOT NULL, service TEXT NOT NULL,
    run_id INTEGER NOT NULL, kind TEXT NOT NULL, from_state TEXT,
    to_state TEXT, reason TEXT NOT NULL, detail TEXT NOT NULL);
CREATE INDEX events_by_service ON events (service, id);
INSERT INTO events VALUES (41, '2025-11-20T10:00:00.000000Z', 'web',
    6, 'state', 'stopped', 'waiting', 'operator', 'old');
PRAGMA application_id = 1651008359;
PRAGMA user_version = 1;
"""
SCHEMA_2 = """
CREATE TABLE memory (kind TEXT, name TEXT, text TEXT NOT NULL, PRIMARY KEY (kind, name));
INSERT INTO memory VALUES ('boot', '', 'boot');
INSERT INTO memory VALUES ('status', 'web', '{"state": "running", "desired": "up", "run_id": 6, "pid": 70,
    "cause": "operator", "detail": "pid 70", "ending": null,
    "history": {"restarted_at": [1.5, 2.5], "attempt": 2},
    "restarts": 2, "started_at": 3.5, "restart_at": null, "last_exit": {"run_id": 5, "status": {"code": 1,
    "signal": null, "oom_killed": false}, "reason": "exited", "at": 2.0}, "last_error": null}');
INSERT INTO memory VALUES ('run', 'web', '{"service": "web", "run_id": 6, "boot_id": "boot", "pid": 70,
    "started_ticks": 99, "cgroup": "/cg/web", "config_hash": "abc", "limits": {"memory_max": {"requested": 1,
    "effective": 1, "enforced": true, "reason": null}}}');
PRAGMA user_version = 2;
"""


def test_the_files_of_every_earlier_version_are_read_and_brought_up_to_date(path: Path) -> None:
    path.parent.mkdir()
    for script, has_state in ((SCHEMA_1, False), (SCHEMA_1 + SCHEMA_2, True)):
        path.unlink(missing_ok=True)
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.executescript(script)
        database = Database(path)
        store, states = EventStore(database), StateStore(database)
        memory = states.begin(BOOT)
        assert store.newest_run_ids() == {"web": 6}
        assert store.append(event()).id == 42
        if has_state:
            status, run = memory.statuses["web"], memory.runs["web"]
            assert (status.state, status.health) == (State.RUNNING, Health.UNKNOWN)
            assert status.history == RestartHistory((1.5, 2.5), 2)
            assert status.last_exit is not None
            assert (status.last_exit.reason, status.last_exit.status.code) == (Reason.EXITED, 1)
            assert (run.pid, run.tcp_port, run.limits["memory_max"].enforced) == (70, None, True)
        else:
            assert memory.statuses == {}
        database.close()
        with contextlib.closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)


# ---- durable when asked ----


class Disk:
    """What a loss of power would leave: the files as they were at the last sync."""

    def __init__(self, path: Path, kept: Path) -> None:
        self.syncs = 0
        self._path, self._kept = path, kept

    def sync(self, descriptor: int) -> None:
        assert os.readlink(f"/proc/self/fd/{descriptor}") == f"{self._path}-wal"
        self.syncs += 1
        self._kept.parent.mkdir(exist_ok=True)
        for suffix in ("", "-wal"):
            shutil.copy(f"{self._path}{suffix}", f"{self._kept}{suffix}")


def test_what_was_confirmed_outlasts_a_loss_of_power(path: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept" / "state.db"
    disk = Disk(path, kept)
    database = Database(path, sync=disk.sync)
    store, states = EventStore(database), StateStore(database)
    states.begin(BOOT)
    for number in range(30):
        for name in ("web", "db"):
            states.save_status(name, ServiceStatus(State.STOPPED, run_id=number))
            store.append(event(str(number), service=name))
        states.confirm()
        states.confirm()  # nothing new: nothing to wait for
        assert disk.syncs == number + 1
        left = Database(kept)
        memory = StateStore(left).begin("after the power came back")
        assert {status.run_id for status in memory.statuses.values()} == {number}
        assert details(EventStore(left), newest=2) == [str(number)] * 2
        left.close()


def test_what_cannot_be_made_durable_is_told(path: Path) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    states = StateStore(Database(path, sync=fail))
    states.begin(BOOT)
    for _ in range(2):  # it is not forgotten that it failed
        with pytest.raises(OperationError, match=r"this is done, but would be .*Input/output error"):
            states.confirm()


def test_a_full_disk_is_told_to_who_asked_and_made_up_for_later(path: Path) -> None:
    code = """
import resource, sys
from tests.observe.test_database import *
database = Database(Path(sys.argv[1]))
store, states = EventStore(database), StateStore(database)
states.begin(BOOT)
resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, resource.RLIM_INFINITY))
failed = 0
for number in range(100):
    with database.outbox.together():
        states.save_status("web", ServiceStatus(run_id=number))
        store.append(event(f"{number} {'x' * 1000}"))
    try:
        states.confirm()
    except OperationError:
        failed += 1
assert 10 < failed < 90, failed
kept = StateStore(Database(Path(sys.argv[1]))).begin(BOOT)
assert kept.statuses["web"].run_id == 99 - failed
assert EventStore(Database(Path(sys.argv[1]))).last_id == 100 - failed, "both or none"
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
states.confirm()
kept = StateStore(Database(Path(sys.argv[1]))).begin(BOOT)
assert kept.statuses["web"].run_id == 99
assert EventStore(Database(Path(sys.argv[1]))).last_id == 100
print("done")
"""
    run = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=False)
    assert run.stdout == "done\n", run.stderr


def test_after_a_reboot_the_wishes_hold_and_numbers_go_on(path: Path) -> None:
    database = Database(path)
    states = StateStore(database)
    states.begin(BOOT)
    states.save_status("web", UP)
    states.save_run(RUN)
    states.save_status("idle", ServiceStatus(State.FAILED, Desired.DOWN, run_id=7, restarts=3))
    wanted = {
        "web": ServiceStatus(desired=Desired.UP, run_id=3),
        "idle": ServiceStatus(desired=Desired.DOWN, run_id=7),
    }
    for _ in range(2):  # also for one that crashed before anything changed
        memory = StateStore(Database(path)).begin("another boot")
        assert (memory.statuses, memory.runs) == (wanted, {})
    states = StateStore(Database(path))
    states.begin("another boot")
    states.clear()
    memory = StateStore(Database(path)).begin("another boot")
    assert (memory.statuses, memory.run_ids) == ({}, {"web": 3, "idle": 7})


@pytest.mark.parametrize("ended_by", ["close", "kill"])
def test_what_was_stored_is_known_also_where_the_disk_is_full_by_now(path: Path, ended_by: str) -> None:
    before = f"""
import os, signal, sys
from tests.observe.test_database import *
database = Database(Path(sys.argv[1]))
fill(database)
StateStore(database).begin(BOOT)
if "{ended_by}" == "close":
    database.close()
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", before, path], check=False)
    Path(f"{path}-shm").unlink(missing_ok=True)  # as after an orderly end, which takes it along
    code = """
import resource, sys
from tests.observe.test_database import *
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
database = Database(Path(sys.argv[1]))
store, states = EventStore(database), StateStore(database)
memory = states.begin(BOOT)
assert memory.statuses["web"] == UP, memory
assert memory.runs["web"] == RUN
assert store.last_id == 1000
states.save_status("web", ServiceStatus(run_id=4))
store.append(event("it goes on"))
with pytest.raises(OperationError):
    states.confirm()
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
states.confirm()
left = Database(Path(sys.argv[1]))
assert StateStore(left).begin(BOOT).statuses["web"].run_id == 4
assert EventStore(left).last_id == 1001
assert details(store, newest=2)[-1] == "it goes on"
print("done")
"""
    run = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=False)
    assert run.stdout == "done\n", run.stderr
