"""Where services can be reached, as a file that other programs watch."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import stat
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from blackhole_cg.core.spec import PortRange
from blackhole_cg.core.words import AUTO
from blackhole_cg.supervisor.endpoints import FILE_NAME
from tests.supervisor.test_health import LIVE
from tests.supervisor.test_supervisor import supervisor
from tests.support.builders import service
from tests.support.fake_host import FakeHost

IN_CLOSE_WRITE, IN_MOVED_TO, IN_DELETE, IN_DELETE_SELF = 0x8, 0x80, 0x200, 0x400
SPECS = (
    service("web", tcp_port=AUTO, probes=LIVE),
    service("db", unix_socket="/run/db.sock", tcp_port=5432),
    service("silent"),
)


def read(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / "run" / FILE_NAME).read_text())["endpoints"]
    return found


async def until(directory: Path, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    async with asyncio.timeout(20):
        while not holds(read(directory)):  # noqa: ASYNC110  (it is a file: nobody sets an event)
            await asyncio.sleep(0.01)
    return read(directory)


class Watch:
    """inotify on one path. Source: inotify(7)."""

    def __init__(self, path: Path, events: int) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        assert libc.inotify_add_watch(self._descriptor, os.fsencode(path), events) >= 0

    def read(self) -> list[tuple[int, str]]:
        """(mask, name) of each event so far."""
        try:
            data = os.read(self._descriptor, 65536)
        except BlockingIOError:
            return []
        found, place = [], 0
        while place < len(data):
            _, mask, _, length = struct.unpack_from("iIII", data, place)
            found.append((mask, data[place + 16 : place + 16 + length].rstrip(b"\0").decode()))
            place += 16 + length
        return found

    def close(self) -> None:
        os.close(self._descriptor)


def test_it_tells_who_listens_where_from_the_opening_to_the_end(tmp_path: Path) -> None:
    async def main() -> None:
        it = supervisor(tmp_path, *SPECS, port_range=PortRange(9000, 9000))
        async with it:
            down = {"state": "stopped", "health": "unknown", "ready": False}
            assert read(tmp_path) == {
                "web": {"tcp": None, "unix": None, **down},
                "db": {"tcp": "127.0.0.1:5432", "unix": "/run/db.sock", **down},
            }
            assert stat.S_IMODE((tmp_path / "run" / FILE_NAME).stat().st_mode) == 0o644
            await it.start()
            up = await until(tmp_path, lambda found: found["web"]["ready"] and found["db"]["ready"])
            assert up["web"] == {
                **{"tcp": "127.0.0.1:9000", "unix": None},
                **{"state": "running", "health": "healthy", "ready": True},
            }
            await it.stop("web")
            gone = await until(tmp_path, lambda found: not found["web"]["ready"])
            assert (gone["web"]["tcp"], gone["web"]["state"]) == (None, "stopped")
        assert not (tmp_path / "run" / FILE_NAME).exists()

    asyncio.run(main())


def test_it_stays_while_services_run_on_without_a_supervisor(tmp_path: Path) -> None:
    async def main() -> None:
        it = supervisor(tmp_path, service("web", tcp_port=AUTO), host=FakeHost())
        await it.open()
        await it.start()
        await it.detach()
        assert read(tmp_path)["web"]["tcp"] == "127.0.0.1:30000"

    asyncio.run(main())


def test_it_is_replaced_as_a_whole_and_who_watches_is_told(tmp_path: Path) -> None:
    async def main() -> None:
        async with supervisor(tmp_path, service("web", tcp_port=AUTO)) as it:
            directory = Watch(tmp_path / "run", IN_MOVED_TO | IN_DELETE)
            file = Watch(tmp_path / "run" / FILE_NAME, IN_CLOSE_WRITE | IN_DELETE_SELF)
            with (tmp_path / "run" / FILE_NAME).open() as opened:
                await it.start()
                await until(tmp_path, lambda found: found["web"]["ready"])
                assert not json.load(opened)["endpoints"]["web"]["ready"], "the old one is still whole"
            assert {name for mask, name in directory.read() if mask & IN_MOVED_TO} == {FILE_NAME}
            assert [mask & IN_CLOSE_WRITE for mask, _ in file.read()].count(IN_CLOSE_WRITE) == 0
        assert (IN_DELETE, FILE_NAME) in directory.read()
        directory.close()
        file.close()

    asyncio.run(main())


def test_a_disk_that_is_full_stops_nothing_and_is_told_once(tmp_path: Path, caplog) -> None:
    async def main() -> None:
        async with supervisor(tmp_path, service("web", tcp_port=AUTO)) as it:
            draft = tmp_path / "run" / f".{FILE_NAME}.new"
            draft.mkdir()  # what cannot be written there is as good as a full disk
            await it.start()
            await until(tmp_path, lambda _: "what it tells is out of date" in caplog.text)
            await it.restart()
            assert not read(tmp_path)["web"]["ready"]
            draft.rmdir()
            await it.restart()
            await until(tmp_path, lambda found: found["web"]["ready"])

    asyncio.run(main())
    assert caplog.text.count("what it tells is out of date") == 1
