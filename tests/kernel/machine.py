"""A real host for these tests: its services are real processes in real cgroups, below a root of our own."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import resource
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from blackhole_cg.core.facts import ExitStatus
from blackhole_cg.core.spec import ResourceLimits, SecuritySpec, ServiceSpec
from blackhole_cg.core.words import Isolation, Stream
from blackhole_cg.errors import SpawnError
from blackhole_cg.kernel.facts import find_cgroup_place
from blackhole_cg.kernel.host import HostOptions, LinuxHost
from blackhole_cg.kernel.launch import StepTable
from blackhole_cg.kernel.preexec import preexec_steps
from blackhole_cg.kernel.run import LinuxRun

DEADLINE_SECONDS = 90.0
_numbers = itertools.count()


def new_root_name() -> str:
    """A cgroup root that no other test, and no other test process, uses."""
    return f"bh-test-{os.getpid()}-{next(_numbers)}"


def cgroup_obstacle() -> str | None:
    """Why real cgroups cannot be tested here, or None."""
    if os.geteuid() != 0:
        return "needs root to make cgroups"
    return find_cgroup_place(new_root_name()).problem


@dataclass
class Machine:
    """An open host and what it takes to make services for it."""

    host: LinuxHost
    base: Path
    root: Path | None  # of the cgroups
    names: Iterator[int] = field(default_factory=itertools.count)

    def spec(self, *argv: str, **changes: Any) -> ServiceSpec:
        """A service that runs `argv`."""
        name = changes.pop("name", f"s{next(self.names)}")
        data_dir = str(self.base / "data" / name)
        environment = {
            "PATH": "/usr/bin:/bin",
            "BLACKHOLE_SERVICE": name,
            "BLACKHOLE_DATA_DIR": data_dir,
        }
        plain = ServiceSpec(
            name=name,
            argv=argv,
            data_dir=data_dir,
            environment=environment,
            security=SecuritySpec(no_new_privileges=False),
        )
        return replace(plain, **changes)

    def sh(self, script: str, **changes: Any) -> ServiceSpec:
        """A service that runs a shell script."""
        return self.spec("/bin/sh", "-c", script, **changes)

    async def start(self, spec: ServiceSpec) -> LinuxRun:
        """Launch and wait for exec."""
        run = self.host.launch(spec, 1)
        await run.executed()
        return run

    async def end(self, run: LinuxRun) -> ExitStatus:
        """Kill, wait, close."""
        run.kill()
        await run.emptied()
        status = await run.exited()
        await run.close()
        return status

    async def output(self, spec: ServiceSpec) -> tuple[ExitStatus, str]:
        """Run to the end and return what it wrote to stdout."""
        streams = self.host.open_streams(spec)
        try:
            run = await self.start(spec)
            status = await run.exited()
            await run.emptied()
            await run.close()
            return status, read_all(streams[Stream.STDOUT])
        finally:
            for descriptor in streams.values():
                os.close(descriptor)
            self.host.remove_streams([spec.name])

    async def failure(self, spec: ServiceSpec) -> str:
        """The text of the SpawnError that launching this gives."""
        try:
            run = self.host.launch(spec, 1)
            await run.executed()
        except SpawnError as error:
            return str(error)
        await self.end(run)
        raise AssertionError("it started")


@contextlib.contextmanager
def open_machine(
    base: Path,
    isolation: Isolation = Isolation.BEST_EFFORT,
    make_steps: StepTable = preexec_steps,
    subreaper: bool = False,
) -> Iterator[Machine]:
    """A host over a cgroup root of its own, which must be gone at the end."""
    name = new_root_name()
    (base / "run").mkdir(0o711)
    host = LinuxHost(HostOptions(base / "run", isolation, name, subreaper), make_steps)
    host.open()
    root = Path(host.facts.cgroup_root) if host.facts.cgroup_root else None
    try:
        yield Machine(host, base, root)
    finally:
        host.close()
        if root is not None and root.exists():
            left = [str(path) for path in (root, *root.rglob("*")) if path.is_dir()]
            sweep(root)
            raise AssertionError(f"left behind: {left}")


@contextlib.contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """No more than so many descriptors can be opened."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = {int(name) for name in os.listdir("/proc/self/fd")}
    free = (number for number in itertools.count() if number not in used)
    resource.setrlimit(resource.RLIMIT_NOFILE, (next(itertools.islice(free, count, None)), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def sweep(root: Path) -> None:
    """Kill and remove what a failed test left in its cgroups."""
    (root / "cgroup.kill").write_text("1")
    give_up_at = time.monotonic() + DEADLINE_SECONDS
    while "populated 1" in (root / "cgroup.events").read_text() and time.monotonic() < give_up_at:
        time.sleep(0.01)
    for path in sorted((path for path in root.rglob("*") if path.is_dir()), reverse=True):
        path.rmdir()
    root.rmdir()


@dataclass(frozen=True)
class Traces:
    """What a launch could leave behind."""

    descriptors: dict[str, str]
    children: list[int]
    cgroups: list[str]

    @classmethod
    def take(cls, root: Path | None) -> Traces:
        descriptors = {}
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                descriptors[name] = os.readlink(f"/proc/self/fd/{name}")
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        cgroups = sorted(str(path) for path in root.rglob("*") if path.is_dir()) if root else []
        return cls(descriptors, sorted(map(int, children)), cgroups)


async def eventually(condition: Callable[[], Any], what: str) -> Any:
    """The first truthy answer; for what the kernel gives no event for."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not (answer := condition()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert answer, what
    return answer


def read_all(descriptor: int) -> str:
    """Everything that waits in a FIFO now."""
    pieces = []
    with contextlib.suppress(BlockingIOError):
        while piece := os.read(descriptor, 65536):
            pieces.append(piece)
    return b"".join(pieces).decode()


def is_alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return text[text.rindex(")") + 2] not in "ZX"


@contextlib.asynccontextmanager
async def deadline() -> AsyncIterator[None]:
    """Generous, for a loaded machine."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        yield


def in_time(coroutine: Any) -> Any:
    """Run a test's coroutine with a deadline."""

    async def limited() -> Any:
        async with deadline():
            return await coroutine

    return asyncio.run(limited())


def sleeper(cgroup_procs: Path | None = None) -> subprocess.Popen[bytes]:
    """A process that is not a service, for being in the way."""
    process = subprocess.Popen(["/bin/sleep", "1000"])
    if cgroup_procs is not None:
        cgroup_procs.write_text(str(process.pid))
    return process


def stop(process: subprocess.Popen[bytes]) -> None:
    """End it and reap it."""
    process.send_signal(signal.SIGKILL)
    process.wait()


LIMITS = ResourceLimits(cpu_percent=50, memory_max_bytes=64 << 20, pids_max=50)
