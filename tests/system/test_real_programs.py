"""nginx, redis and PostgreSQL as Debian ships them: under load, killed one by one, stopped in order."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from blackhole_cg.control.client import ControlClient
from tests.support.configs import config
from tests.support.live import Live, alive, state_times
from tests.support.waiting import eventually

pytestmark = [pytest.mark.needs_kernel, pytest.mark.any_kernel, pytest.mark.timeout(600)]

PORTS = {"web": 80, "cache": 16379, "database": 15432}
USERS = {"web": "www-data", "cache": "redis", "database": "postgres"}
PIDS = ("pid", "run_id", "restarts")

NGINX = """
daemon off; worker_processes 2; error_log stderr; pid nginx.pid;
events {}
http {
    access_log off;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    server { listen 127.0.0.1:80; location / { return 204; } }
}
"""


def postgres_programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    missing = [name for name in ("nginx", "redis-server", "psql") if shutil.which(name) is None]
    if missing or not found:
        pytest.skip(f"not installed: {', '.join(missing) or 'postgresql'}")
    return found[-1]


def stack(programs: Path) -> dict[str, Any]:
    """The web server needs both others; PostgreSQL needs its files, which a oneshot makes."""
    limits = {"cpu_percent": 150, "pids_max": 50, "open_files": 512}
    postgres = {"user": "postgres", "data_dir": "database"}
    initdb = "-D cluster -A trust --no-sync --locale=C.UTF-8 -E UTF8"
    redis = "--bind 127.0.0.1 --dir {data_dir} --appendonly yes --appendfsync always --save ''"
    settings = "-c listen_addresses=127.0.0.1 -c unix_socket_directories="
    services = {
        "web": {
            "command": "nginx -e stderr -p {data_dir}/ -c ../nginx.conf",
            "depends_on": ["cache", "database"],
            "stop": {"signal": "QUIT"},
            "security": {"capabilities": ["NET_BIND_SERVICE"]},
        },
        "cache": {"command": f"redis-server --port {{tcp_port}} {redis}"},
        "database": {
            **postgres,
            "command": f"{programs}/postgres -D cluster -p {{tcp_port}} {settings}",
            "depends_on": {"initdb": {"condition": "completed"}},
            "stop": {"signal": "INT", "timeout": "60s"},
        },
    }
    for name, keys in services.items():
        keys |= {"user": USERS[name], "data_dir": name, "tcp_port": PORTS[name]}
        keys |= {"resources": {**limits, "memory_mb": 160}, "restart": {"initial_delay": "100ms"}}
    services["initdb"] = {
        **postgres,
        "type": "oneshot",
        "command": f"{programs}/initdb {initdb}",
        "resources": {"cpu_percent": 200},
    }
    return services


@pytest.fixture
def live() -> Iterator[Live]:
    programs = postgres_programs()
    with tempfile.TemporaryDirectory(prefix="bh-test-") as name:
        directory = Path(name)
        directory.chmod(0o755)  # every user must reach its data_dir
        (directory / "nginx.conf").write_text(NGINX)
        live = Live(directory, config(stack(programs), isolation="required"))
        try:
            yield live.start().ready()
        finally:
            live.close()


class Load(threading.Thread):
    """Sends one number after the other and notes which are acknowledged; connects again when cut off.

    `greet` begins a conversation and returns what sends a number and returns once it is acknowledged.
    """

    def __init__(self, port: int, greet: Callable[[BinaryIO], Callable[[int], None]]) -> None:
        super().__init__(daemon=True)
        self.acknowledged: list[int] = []
        self._sent = 0
        self._port = port
        self._greet = greet
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(0.1):
            try:
                with socket.create_connection(("127.0.0.1", self._port), timeout=30) as connection:
                    self._talk(connection.makefile("rwb"))
            except (OSError, EOFError):
                continue

    def _talk(self, stream: BinaryIO) -> None:
        send = self._greet(stream)
        while not self._ended.wait(0.005):
            self._sent += 1
            send(self._sent)
            self.acknowledged.append(self._sent)

    def end(self) -> None:
        self._ended.set()
        self.join(40)
        assert not self.is_alive()


def read(stream: BinaryIO, count: int) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        raise EOFError
    return data


def exchange(stream: BinaryIO, request: bytes, last_line: bytes) -> bytes:
    """Send a request and read the lines of the answer up to the last; the first of them."""
    stream.write(request)
    stream.flush()
    lines = [b""]
    while not lines[-1].startswith(last_line) or len(lines) == 1:
        lines.append(stream.readline())
        if not lines[-1].endswith(b"\n"):
            raise EOFError
    return lines[1]


def talk_http(stream: BinaryIO) -> Callable[[int], None]:
    def get(number: int) -> None:
        answer = exchange(stream, b"GET /%d HTTP/1.1\r\nHost: test\r\n\r\n" % number, b"\r\n")
        assert answer.startswith(b"HTTP/1.1 204"), answer

    return get


def talk_redis(stream: BinaryIO) -> Callable[[int], None]:
    def push(number: int) -> None:
        answer = exchange(stream, b"RPUSH numbers %d\r\n" % number, b"")
        if not answer.startswith(b":"):
            raise OSError(answer)  # it says so while it loads its data

    return push


def talk_postgres(stream: BinaryIO) -> Callable[[int], None]:
    """The server's own protocol, version 3. Source: PostgreSQL's manual, "Frontend/Backend Protocol"."""

    def ask(kind: bytes, body: bytes) -> None:
        stream.write(kind + struct.pack("!i", len(body) + 4) + body)
        stream.flush()
        answer = b""
        while answer != b"Z":  # ready for the next
            answer, length = struct.unpack("!ci", read(stream, 5))
            text = read(stream, length - 4)
            if answer == b"E":
                raise OSError(text)  # it says so while it starts, recovers or ends

    ask(b"", struct.pack("!i", 3 << 16) + b"user\0postgres\0database\0postgres\0\0")
    ask(b"Q", b"CREATE TABLE IF NOT EXISTS numbers (number int)\0")
    return lambda number: ask(b"Q", b"INSERT INTO numbers VALUES (%d)\0" % number)


def stored_in_redis() -> set[int]:
    return numbers("redis-cli", "-p", str(PORTS["cache"]), "lrange", "numbers", "0", "-1")


def stored_in_postgres() -> set[int]:
    where = ["-h", "127.0.0.1", "-p", str(PORTS["database"]), "-U", "postgres"]
    return numbers("psql", *where, "-At", "-c", "SELECT number FROM numbers")


def numbers(*command: str) -> set[int]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return set(map(int, done.stdout.split()))


def members(live: Live, name: str) -> list[int]:
    return list(map(int, (live.cgroup_root / name / "cgroup.procs").read_text().split()))


def owner(pid: int) -> int | None:
    """Whose process it is; None when it has ended, as those that serve one connection do."""
    try:
        return Path(f"/proc/{pid}").stat().st_uid
    except FileNotFoundError:
        return None


def more_is_acknowledged(loads: dict[str, Load], what: str) -> None:
    before = {name: len(load.acknowledged) for name, load in loads.items()}
    eventually(
        lambda: all(len(load.acknowledged) >= before[name] + 10 for name, load in loads.items()), what, 90
    )


def kill_and_await_the_next(live: Live, name: str) -> None:
    """Kill a main process; its service comes back by its policy, and the neighbours do not notice."""
    client = ControlClient(live.runtime_dir)
    before = live.services()
    tree = members(live, name)
    os.kill(before[name]["pid"], signal.SIGKILL)
    eventually(lambda: client.service(name)["run_id"] == before[name]["run_id"] + 1, f"{name} runs again", 60)
    after = live.services()
    assert (after[name]["last_exit"]["signal"], after[name]["last_exit"]["reason"]) == (9, "signalled")
    assert [pid for pid in tree if alive(pid)] == [], "nor did its workers outlive it"
    neighbours = USERS.keys() - {name}
    for neighbour in neighbours:
        assert [after[neighbour][key] for key in PIDS] == [before[neighbour][key] for key in PIDS]


def test_under_load_each_is_killed_and_comes_back_with_its_data_and_all_are_stopped_in_order(live):
    loads = {
        name: Load(PORTS[name], greet)
        for name, greet in (("web", talk_http), ("cache", talk_redis), ("database", talk_postgres))
    }
    for load in loads.values():
        load.start()
    for name in USERS:
        more_is_acknowledged(loads, f"all work before {name} is killed")
        kill_and_await_the_next(live, name)
        more_is_acknowledged(loads, f"all work after {name} was killed")
        assert set(loads["cache"].acknowledged) <= stored_in_redis()
        assert set(loads["database"].acknowledged) <= stored_in_postgres()
    for load in loads.values():
        load.end()
    everybody = {name: members(live, name) for name in USERS}
    for name, pids in everybody.items():
        uid = pwd.getpwnam(USERS[name]).pw_uid
        assert {owner(pid) for pid in pids} - {None} == {uid}
        limits = live.status(name)["limits"]
        assert all(limits[each]["enforced"] for each in ("cpu_max", "memory_max", "pids_max", "nofile"))
    assert len(everybody["web"]) == 3, "the master and two workers"
    assert len(everybody["database"]) > 3

    live.cli("stop", "--all")
    stopped = {name: state_times(live.events(name), "stopped")[-1] for name in USERS}
    assert stopped["web"] <= min(stopped["cache"], stopped["database"])
    for name, pids in everybody.items():
        info = live.status(name)
        assert (info["last_exit"]["code"], info["last_exit"]["reason"]) == (0, "operator")
        assert [pid for pid in pids if alive(pid)] == []
    said = {name: [line["message"] for line in live.log_lines(name)] for name in USERS}
    assert any("database system is shut down" in line for line in said["database"][-3:])
    assert any("Redis is now ready to exit" in line for line in said["cache"][-3:])
    assert live.interrupt() == 0
    assert live.leftovers() == []
