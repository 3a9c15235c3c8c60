"""A supervisor that only pretends, and a way to have it served in the background of a test."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from blackhole_cg.control import SOCKET_NAME
from blackhole_cg.control.answers import answer_handed
from blackhole_cg.control.server import ControlServer
from blackhole_cg.core.facts import EventRecord, HostFacts, LimitState, ServiceInfo
from blackhole_cg.core.plan import Change, ChangeKind, Plan
from blackhole_cg.core.probe_spec import ProbeKind
from blackhole_cg.core.words import Dependents
from blackhole_cg.errors import OperationError, UnknownServiceError
from blackhole_cg.observe.log_reader import LogQuery
from blackhole_cg.observe.metrics import Measured
from blackhole_cg.observe.probes.schedule import ProbeFacts

T = TypeVar("T")

V1 = "bound to cgroup v1 on this host"
LIMITS = {
    "cpu_max": LimitState("200000 100000", None, False, f"cpu: {V1}"),
    "memory_max": LimitState(536870912, None, False, f"memory: {V1}"),
    "pids_max": LimitState(100, 100, True),
    "nofile": LimitState(10000, 10000, True),
}


def make_info(name: str, **changes: Any) -> ServiceInfo:
    """A running service."""
    info = ServiceInfo(
        name=name,
        state="running",
        desired="up",
        health="unknown",
        enabled=True,
        pid=4242,
        run_id=1,
        restarts=0,
        uptime_seconds=90.0,
        started_wall="2030-01-31T12:00:00.000000Z",
        cgroup=f"/blackhole/{name}",
        adopted=False,
        outdated=False,
        tcp_port=None,
        unix_socket=None,
        instance_of=None,
        limits=LIMITS,
        usage={"cpu_percent": 12.5, "memory_bytes": 64225280, "pids": 3},
        logs={"lines_total": 7, "dropped_total": 0},
    )
    return replace(info, **changes)


def make_sample(**changes: Any) -> dict[str, Any]:
    """What a service used."""
    sample = {"at_wall": "2030-01-31T12:00:00.000000Z", "run_id": 1, "uptime_seconds": 90.0}
    sample |= {"cpu_percent": 12.5, "memory_bytes": 64225280, "memory_percent": 11.96, "pids": 3}
    rates = {"io_read_bytes_per_second": 0.0, "io_write_bytes_per_second": 4198.4}
    unknown = dict.fromkeys(("cpu_throttled_percent", "open_files", "connections"))
    return {**sample, **rates, **unknown, **changes}


def make_why(name: str = "web", info: ServiceInfo | None = None, **changes: Any) -> dict[str, Any]:
    """Why a service is where it is, beside its events."""
    restart = {"policy": "always", "type": "simple", "recent": 1, "max_restarts": 5, "window_seconds": 3600.0}
    known = {"service": (info or make_info(name)).to_json(), "problem": None, "waits_for": []}
    return {**known, "restart": restart, **changes}


def make_event(number: int, service: str = "web", **changes: Any) -> EventRecord:
    """A service that was killed."""
    event = EventRecord(
        at_wall=f"2030-01-31T12:00:{number % 60:02}.000000Z",
        service=service,
        run_id=4,
        kind="state",
        from_state="running",
        to_state="restarting",
        reason="signalled",
        detail="killed by SIGKILL",
        id=number,
    )
    return replace(event, **changes)


def make_line(message: str, stream: str = "stdout", **more: Any) -> bytes:
    """A line of NAME.log."""
    record = {"time": "2030-01-31T12:00:00.000000Z", "service": "web", "stream": stream, "run_id": 1}
    return json.dumps({**record, "message": message, **more}).encode() + b"\n"


class FakeOperations:
    """Satisfies `Operations`. Operations are held while `gate` is closed, and fail with `failure`."""

    def __init__(self, infos: Sequence[ServiceInfo]) -> None:
        self.infos = {info.name: info for info in infos}
        self.stored: list[EventRecord] = []
        self.lines: list[bytes] = []
        self.taken: list[dict[str, Any]] = [{"service": "web", **make_sample()}]
        self.queries: list[LogQuery] = []
        self.calls: list[tuple[str, tuple[str, ...]]] = []
        self.finished: list[str] = []
        self.failure: Exception | None = None
        self.log_failure: Exception | None = None
        self.stopping = False
        self.followers = 0
        self.abandons = False  # an upgrade after which nobody answers
        self.gate = asyncio.Event()
        self.gate.set()
        self.changed = asyncio.Condition()

    def names(self) -> Sequence[str]:
        return tuple(self.infos)

    def services(self) -> Sequence[ServiceInfo]:
        return tuple(self.infos.values())

    def service(self, name: str) -> ServiceInfo:
        if name not in self.infos:
            raise UnknownServiceError(name, self.infos)
        return self.infos[name]

    def health(self, name: str) -> dict[str, Any]:
        if name == "spare":
            return {"health": "unknown", "probes": []}
        asked = ProbeFacts(
            ProbeKind.LIVENESS, "http", False, 2, "2030-01-31T12:00:00.000000Z", "GET http://x/: 500", 0.0123
        )
        probes = [ProbeFacts(ProbeKind.STARTUP, "tcp").to_json(), asked.to_json()]
        return {"health": "unhealthy", "probes": probes}

    def endpoints(self) -> dict[str, dict[str, Any]]:
        web = {"tcp": "127.0.0.1:30000", "unix": None, "state": "running", "health": "healthy", "ready": True}
        down = {"tcp": None, "unix": "/run/s", "state": "stopped", "health": "unknown", "ready": False}
        return {"store": down, "web": web}

    def measurements(self) -> Sequence[Measured]:
        return [Measured(info) for info in self.infos.values()]

    def samples(self, name: str, *, history: bool = False, since: datetime | None = None) -> dict[str, Any]:
        mine = [each for each in self.taken if each["service"] == name]
        points = [each for each in mine if since is None or each["at_wall"] >= since.isoformat()]
        latest = {key: value for key, value in mine[-1].items() if key != "service"} if mine else None
        return {"latest": latest} | ({"history": {"points": points, "spans": []}} if history else {})

    async def follow_samples(self, names: Sequence[str]) -> AsyncIterator[dict[str, Any]]:
        async for sample in self._follow(lambda: self.taken):
            if not names or sample["service"] in names:
                yield sample

    def processes(self, name: str) -> list[dict[str, Any]]:
        return [{"pid": 4242, "command": f"/opt/{name} --serve", "cpu_percent": None, "threads": 1}]

    def why(self, name: str) -> dict[str, Any]:
        return make_why(name, self.service(name))

    async def start(self, names: Sequence[str]) -> None:
        await self._change("start", names, state="running", pid=4243)

    async def stop(self, names: Sequence[str], dependents: Dependents = Dependents.REFUSE) -> list[str]:
        self.dependents = dependents
        await self._change("stop", names, state="stopped", pid=None)
        return list(names)

    async def restart(self, names: Sequence[str]) -> None:
        await self._change("restart", names, state="running", pid=4244)

    def reset(self, names: Sequence[str]) -> None:
        self.calls.append(("reset", tuple(names)))

    async def plan(self, path: str) -> dict[str, Any]:
        self.calls.append(("plan", (path,)))
        return Plan((), ("spare",), (), ()).to_json()

    async def apply(self, path: str, *, force: bool = False) -> dict[str, Any]:
        self.calls.append(("apply", (path, *(["force"] if force else []))))
        return await self.reload()

    async def roll_back(self, number: int | None, *, force: bool = False) -> dict[str, Any]:
        self.calls.append(("rollback", (str(number),)))
        return await self.reload()

    def configurations(self) -> list[dict[str, Any]]:
        return [{"number": 1, "at_wall": "2030-01-31T12:00:00Z", "how": "run", "source": None, "services": 2}]

    async def reload(self, *, force: bool = False) -> dict[str, Any]:
        self.calls.append(("reload", ()))
        await self.gate.wait()
        if self.failure:
            raise self.failure
        changes = (
            Change("store", ChangeKind.LIVE, ("stop",)),
            Change("web", ChangeKind.RESTART, ("command", "umask")),
            Change("new", ChangeKind.ADDED),
        )
        return Plan(changes, ("spare",), ("max_processes",), ("isolation",)).to_json()

    async def upgrade(self, client: int) -> None:
        """Answers as the next program would."""
        self.calls.append(("upgrade", ()))
        if self.failure:
            os.close(client)
            raise self.failure
        if not self.abandons:
            upgraded = {"pid": 4000, "version_before": "1.0.0", "version": "1.1.0", "services": {"web": 4242}}
            answer_handed(client, upgraded)
        else:
            os.close(client)

    def host(self) -> HostFacts:
        controllers = {"pids": None, "memory": V1}
        return HostFacts("boot", "6.1.0", 4096, "/sys/fs/cgroup", "/sys/fs/cgroup/bh", None, controllers)

    def unknown_cgroups(self) -> list[dict[str, Any]]:
        return [{"name": "old", "path": "/sys/fs/cgroup/bh/old", "pids": [7, 8]}]

    async def kill_cgroup(self, name: str) -> list[int]:
        if name != "old":
            raise OperationError(f"there is no cgroup '{name}' that belongs to no service")
        return [7, 8]

    def events(
        self, service: str | None = None, after_id: int | None = None, newest: int | None = None
    ) -> Sequence[EventRecord]:
        found = [each for each in self.stored if service in (None, each.service)]
        found = [each for each in found if each.id > (after_id or 0)]
        return found if newest is None else found[len(found) - newest :] if newest < len(found) else found

    async def follow_events(self, service: str | None, after_id: int) -> AsyncIterator[EventRecord]:
        async for event in self._follow(lambda: self.events(service, after_id)):
            yield event

    async def log_lines(self, name: str, query: LogQuery) -> AsyncIterator[bytes]:
        self.queries.append(query)
        for line in self.lines:
            yield line
        if self.log_failure:
            raise self.log_failure

    async def follow_logs(self, name: str, query: LogQuery) -> AsyncIterator[bytes]:
        self.queries.append(query)
        async for line in self._follow(lambda: self.lines):
            yield line

    async def announce(self) -> None:
        """Wake the followers."""
        async with self.changed:
            self.changed.notify_all()

    async def _follow(self, read: Callable[[], Sequence[T]]) -> AsyncIterator[T]:
        self.followers += 1
        seen = 0
        try:
            while True:
                found = list(read())
                for item in found[seen:]:
                    yield item
                seen = len(found)
                async with self.changed:
                    if len(read()) == seen:  # else something came while the last ones were sent
                        await self.changed.wait()
        finally:
            self.followers -= 1

    async def _change(self, action: str, names: Sequence[str], **changes: Any) -> None:
        self.calls.append((action, tuple(names)))
        await self.gate.wait()
        if self.failure:
            raise self.failure
        for name in names or self.infos:
            self.infos[name] = replace(self.infos[name], **changes)
        self.finished.append(action)


class Served:
    """FakeOperations behind a real ControlServer, in an event loop in a thread of its own."""

    def __init__(self, runtime_dir: Path, *infos: ServiceInfo, group: str | None = None) -> None:
        self.runtime_dir = runtime_dir
        self.socket_path = runtime_dir / SOCKET_NAME
        self._infos = infos or (make_info("store"), make_info("web"), make_info("spare", enabled=False))
        self._group = group
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._error: BaseException | None = None

    def __enter__(self) -> Served:
        self._thread.start()
        assert self._ready.wait(30)
        if self._error:
            raise self._error
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._over.set)
            self._thread.join(30)
        assert not self._thread.is_alive(), "the server did not close"

    def call(self, function: Callable[[], Any]) -> Any:
        """Run a function, or what a coroutine function does, in the server's loop."""

        async def run() -> Any:
            answer = function()
            return await answer if asyncio.iscoroutine(answer) else answer

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(30)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        self.operations = FakeOperations(self._infos)
        self.server = ControlServer(self.operations, self.socket_path, self._group)
        try:
            await self.server.open()
        except BaseException as error:
            self._error = error
            return
        finally:
            self._ready.set()
        await self._over.wait()
        await self.server.close()
