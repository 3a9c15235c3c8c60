"""The supervisor and services of a chaos run, and what may be done to them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from blackhole_cg.control.client import ControlClient
from blackhole_cg.errors import BlackholeError
from tests.support.live import COMMAND, ROOT

PROGRAM = Path(__file__).with_name("program.py")
FAST = {"max_restarts": "max", "initial_delay": "100ms", "max_delay": "500ms"}
FRAGILE_RESTARTS = 2


MEMORY_BYTES = (256 * 2**20, 320 * 2**20, 384 * 2**20)
"""What the limit of "writer" is changed to; it needs less than any of them."""


RESTORE_SECONDS = 5.0
"""A supervisor has its runtime directory again by then."""


@dataclass(frozen=True)
class Ports:
    """Where the load goes: to a service that listens by itself, and to one whose socket is held for it."""

    web: int
    held: int


def services(ports: Ports, line_seconds: float, memory_bytes: int) -> dict[str, dict[str, Any]]:
    """What is run. Each keeps its data beside its name."""

    def program(*arguments: str, **keys: Any) -> dict[str, Any]:
        return {"command": [sys.executable, "-S", "-u", str(PROGRAM), *arguments], "restart": FAST, **keys}

    found = {
        "web": program("web", "{tcp_port}", tcp_port=ports.web, health_check={"tcp": {}, "timeout": "10s"}),
        "held": program("held", sockets={"http": {"tcp": f"127.0.0.1:{ports.held}"}}),
        "writer": program("writer", str(line_seconds), resources={"memory_max": memory_bytes}),
        "eater": program("eater", resources={"memory_max": "64M", "memory_high": "max"}),
        "needy": program("idle", depends_on={"web": {"condition": "healthy"}}),
        "wished": program("idle"),
        "fragile": program("idle", restart={**FAST, "max_restarts": FRAGILE_RESTARTS, "reset_after": "1h"}),
        "once": program("idle", restart={"policy": "never"}),
        "job": program("job", type="oneshot", restart={"policy": "never"}),
        "off": program("idle", enabled=False),
    }
    return {name: {**service, "data_dir": f"data/{name}"} for name, service in found.items()}


@dataclass
class World:
    """One supervisor that is started again whenever it has ended."""

    directory: Path
    cgroup_root: Path
    random: random.Random
    began: float = field(default_factory=time.monotonic)
    process: asyncio.subprocess.Process | None = None
    lives: int = 0
    faults: list[dict[str, Any]] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    ends: dict[str, int] = field(default_factory=dict)  # service -> how often a fault may have ended its run
    kills: dict[str, int] = field(default_factory=dict)  # service -> how often one surely has
    wished: set[str] = field(default_factory=lambda: {"up"})  # what "wished" may be wanted to be
    memory: set[int] = field(default_factory=lambda: {MEMORY_BYTES[0]})  # what "writer" may be limited to
    full_disks: list[tuple[float, float]] = field(default_factory=list)  # wall time in which logs had no room
    lost_spools: list[tuple[float, float]] = field(
        default_factory=list
    )  # wall time of kills with no spool left
    answered: list[float] = field(default_factory=list)  # when a supervisor said that it is well
    down_at: dict[str, list[float]] = field(default_factory=dict)  # "supervisor", "held" -> when it was ended
    may_have_failed: bool = False  # whether the newest restart of "held" was answered so
    may_not_have_started: bool = False  # whether the newest start of "wished" may have been answered so
    killed: set[int] = field(default_factory=set)  # main processes that were sent what ends them
    may_end: bool = False  # whether the supervisor may be gone just now
    _killed: float = 0.0  # wall time of the newest kill of a supervisor
    _deleted: float = 0.0  # and of the newest deletion of its directory
    _keeper: asyncio.Task[None] | None = None
    _written: tuple[Ports, float] = (Ports(0, 0), 0.0)

    @property
    def run_dir(self) -> Path:
        return self.directory / "run"

    @property
    def state_dir(self) -> Path:
        return self.directory / "state"

    @property
    def log_dir(self) -> Path:
        return self.directory / "log"

    def write_config(self, ports: Ports, line_seconds: float, memory_bytes: int = MEMORY_BYTES[0]) -> None:
        self._written = (ports, line_seconds)
        orchestrator = {
            "isolation": "best_effort",
            "shutdown_timeout": "60s",
            "resource_limits": {"default_cpu_percent": "max", "default_memory_mb": "max"},
            "logs": {"max_size": "200K", "max_files": 1000},
        }
        config = {
            "runtime": {"orchestrator": orchestrator},
            "services": services(ports, line_seconds, memory_bytes),
        }
        path = self.directory / "blackhole.yaml"
        draft = path.with_suffix(".new")
        draft.write_text(yaml.safe_dump(config))
        draft.rename(path)

    async def start(self) -> None:
        """Start the supervisor, and again whenever it has ended."""
        await self._spawn()
        self._keeper = asyncio.create_task(self._keep())

    async def _spawn(self) -> None:
        self.lives += 1
        places = {"runtime": self.run_dir, "state": self.state_dir, "log": self.log_dir}
        options = [text for name, path in places.items() for text in (f"--{name}-dir", str(path))]
        with (self.directory / "output").open("ab") as output:
            output.write(b"==== life %d\n" % self.lives)
            output.flush()
            self.process = await asyncio.create_subprocess_exec(
                *COMMAND,
                "run",
                "--config",
                str(self.directory / "blackhole.yaml"),
                "--cgroup-root",
                str(self.cgroup_root),
                *options,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=ROOT,
            )

    async def _keep(self) -> None:
        while True:
            assert self.process is not None
            code = await self.process.wait()
            if not self.may_end:
                self.violations.append(f"{self.now():.1f}s: the supervisor ended by itself with {code}")
            self.may_end = False
            await self._spawn()

    async def stop(self) -> int:
        """End the supervisor in order; its exit code."""
        assert self.process is not None and self._keeper is not None
        self._keeper.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._keeper
        self.process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self.process.wait(), 120)

    def now(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self.began

    @property
    def supervisor_pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def signal_supervisor(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.supervisor_pid, number)

    def main_pid(self, service: str) -> int | None:
        """The main process of a service, as the kernel tells it: the one that leads its session."""
        for pid in self.pids(service):
            with contextlib.suppress(OSError):
                if os.getsid(pid) == pid:
                    return pid
        return None

    def pids(self, service: str) -> list[int]:
        """Every process in the cgroup of a service."""
        try:
            text = (self.cgroup_root / service / "cgroup.procs").read_text()
        except OSError:
            return []
        return [int(line) for line in text.split()]

    def may_have_ended(self, service: str, *, surely: bool = False) -> None:
        """Remember that a fault ends the run of a service; what depends on the end of nothing goes on."""
        self.ends[service] = self.ends.get(service, 0) + 1
        if surely:
            self.kills[service] = self.kills.get(service, 0) + 1

    async def ask(self, path: str) -> dict[str, Any]:
        """The answer to a GET, by a client in a process of its own. Raises OSError."""
        reader, writer = await asyncio.open_unix_connection(self.run_dir / "control.sock")
        try:
            writer.write(f"GET {path} HTTP/1.0\r\nHost: x\r\n\r\n".encode())
            answer = await reader.read()
        finally:
            writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        if b" 200 " not in head.split(b"\r\n")[0]:
            raise OSError(head.decode(errors="replace"))
        found: dict[str, Any] = json.loads(body)
        return found

    async def states(self) -> dict[str, dict[str, Any]]:
        """ServiceInfo by name. Raises OSError."""
        found = await self.ask("/v1/services")
        return {each["name"]: each for each in found["services"]}

    async def wish(self, action: str) -> bool:
        """Start or stop the service that is there for wishes; whether that was acknowledged."""
        goal = "up" if action == "start" else "down"
        self.wished.add(goal)
        acknowledged = await self.command(lambda client: client.change(action, ["wished"])) == ""
        if acknowledged:
            self.wished = {goal}
        return acknowledged

    async def limit(self, memory_bytes: int) -> str:
        """Change the memory limit of "writer"; why that was not acknowledged, if it was not."""
        self.memory.add(memory_bytes)
        self.write_config(*self._written, memory_bytes)
        problem = await self.command(lambda client: client.reload())
        if not problem:
            self.memory = {memory_bytes}
        return problem

    async def command(self, ask: Callable[[ControlClient], object]) -> str:
        """Have a client ask for something; what kept it from being done, empty when nothing did."""

        def attempt() -> str:
            try:
                ask(ControlClient(self.run_dir))
            except (BlackholeError, OSError) as error:
                return str(error) or type(error).__name__
            return ""

        return await asyncio.to_thread(attempt)

    async def listen(self) -> None:
        """Note for ever when the supervisor answers."""
        while True:
            asked = self.now()
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(5):
                    await self.ask("/healthz")
                self.answered.append(asked)
            await asyncio.sleep(0.2)

    def note_end(self, what: str) -> None:
        """Remember that a fault ends the supervisor, or the service whose socket is held, about now."""
        self.down_at.setdefault(what, []).append(self.now())

    def note_kill(self) -> None:
        """Remember that the supervisor was killed about now, perhaps before it had its directory again."""
        self.note_end("supervisor")
        self._killed = time.time()
        if self._killed - self._deleted < RESTORE_SECONDS:
            self.lost_spools.append((self._deleted, self._killed))

    def note_deletion(self) -> None:
        """Remember that the runtime directory is gone, and what a killed supervisor took last with it."""
        self._deleted = time.time()
        killed = max(self.down_at.get("supervisor", []), default=0.0)
        if killed and max(self.answered, default=0.0) <= killed:
            self.lost_spools.append((self._killed, self._deleted))
