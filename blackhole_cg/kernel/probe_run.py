"""Commands of exec probes: each runs beside its service, as its user, but in a limited cgroup of its own.

What a command uses is never charged to the service, and nothing of it is left once its end, or the end of its
time, has come. Started as services are, by the same steps.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
from dataclasses import replace
from typing import Final

from blackhole_cg.core.probe_spec import CommandResult
from blackhole_cg.core.spec import ResourceLimits, ServiceSpec
from blackhole_cg.core.words import Isolation, Stream
from blackhole_cg.errors import BlackholeError, SpawnError
from blackhole_cg.kernel.adopt import clear_leftovers
from blackhole_cg.kernel.identity import Identity
from blackhole_cg.kernel.launch import Launcher
from blackhole_cg.kernel.run import LinuxRun

CGROUP_PREFIX: Final = "_probe-"
"""No service's name begins like this."""

NOTIFY_VARIABLES: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC")
"""What a command does not get of the service's: it does not speak for it."""

MARK: Final = "BLACKHOLE_PROBE"
"""Variable that a command has and its service has not: without cgroups, what tells their processes apart."""

LIMITS: Final = ResourceLimits(
    cpu_percent=100.0,
    memory_max_bytes=128 * 2**20,
    memory_swap_max_bytes=0,
    memory_oom_group=True,
    pids_max=64,
)
"""For a client or a script that looks and goes. Where one cannot be enforced, the command runs without it."""

MAX_OUTPUT_BYTES: Final = 4096
END_SECONDS: Final = 5.0
"""How long the answer may wait for what was killed to be gone; it goes on in the background after that."""

_log = logging.getLogger(__name__)


class ProbeCommands:
    """The commands of all services. Needs a running event loop."""

    def __init__(self, launcher: Launcher) -> None:
        writer = replace(launcher.limit_writer, isolation=Isolation.BEST_EFFORT)
        self._launcher = replace(launcher, limit_writer=writer)
        self._numbers = itertools.count(1)
        self._live: set[LinuxRun] = set()
        self._stuck: set[tuple[str, tuple[str, ...]]] = set()
        self._endings: set[asyncio.Task[None]] = set()
        self._all_gone = asyncio.Event()
        self._all_gone.set()

    async def run(self, spec: ServiceSpec, argv: tuple[str, ...], timeout_seconds: float) -> CommandResult:
        """Run a command as the service's user, in its environment and directory, and wait for its end.

        Whatever is left of it then, or after the time limit, is killed; so it is when this is cancelled.

        Raises:
            SpawnError: it cannot be started, or the last one withstands being killed.
        """
        if (spec.name, argv) in self._stuck:
            raise SpawnError(spec.name, "run it", detail="the last one was killed and is still there")
        output = _Output()
        try:
            run = replace(self._launcher, outputs=output, marks=None).launch(self._beside(spec, argv))
            output.listen()
        except BaseException:
            output.close()
            raise
        self._live.add(run)
        self._all_gone.clear()
        status = None
        try:
            async with asyncio.timeout(timeout_seconds):
                await run.executed()
                status = await run.exited()
        except TimeoutError:
            pass
        finally:
            output.close()
            await self._end(run, (spec.name, argv))
        return CommandResult(status, output.kept.decode("utf-8", "replace"))

    async def clear(self) -> None:
        """Kill and remove what an earlier supervisor left. Call it before the first command."""
        tree = self._launcher.tree
        if tree is None:
            return
        for directory in sorted(tree.root.glob(f"{CGROUP_PREFIX}*")):
            await clear_leftovers(self._launcher, directory.name)

    async def close(self) -> None:
        """Kill every command, and return when nothing of any is left."""
        for run in self._live:
            run.kill()
        await self._all_gone.wait()

    def _beside(self, spec: ServiceSpec, argv: tuple[str, ...]) -> ServiceSpec:
        """What to launch: the service, but for the command, the limits and the name.

        The service's own hand-over file and notify socket are there already, and are not ours to remove.
        """
        name = f"{CGROUP_PREFIX}{spec.name}-{next(self._numbers)}"
        environment = {key: text for key, text in spec.environment.items() if key not in NOTIFY_VARIABLES}
        environment[MARK] = name
        ours = replace(spec, handed_config=None, notify_socket=None, binary_sha256=None, sockets=())
        return replace(ours, name=name, argv=argv, environment=environment, limits=LIMITS)

    async def _end(self, run: LinuxRun, key: tuple[str, tuple[str, ...]]) -> None:
        run.kill()
        ending = asyncio.get_running_loop().create_task(self._remove(run, key))
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)
        _, pending = await asyncio.wait({ending}, timeout=END_SECONDS)
        if pending:
            self._stuck.add(key)

    async def _remove(self, run: LinuxRun, key: tuple[str, tuple[str, ...]]) -> None:
        try:
            await run.emptied()
            await run.close()
        except BlackholeError as error:
            _log.error("%s: exec probe: %s", key[0], error, extra={"service": key[0]})
        self._stuck.discard(key)
        self._live.discard(run)
        if not self._live:
            self._all_gone.set()


class _Output:
    """A pipe for stdout and stderr: keeps the beginning, and reads on so that the command is not held up."""

    def __init__(self) -> None:
        self.kept = b""
        self._read_fd, self._write_fd = os.pipe2(os.O_CLOEXEC)
        self._loop: asyncio.AbstractEventLoop | None = None

    def open_writer(self, name: str, stream: Stream, owner: Identity) -> int:
        """See `launch.Outputs`. The command must be able to open its /dev/stdout again."""
        if owner.uid != os.geteuid():
            os.fchown(self._write_fd, owner.uid, owner.gid)
        return os.dup(self._write_fd)

    def listen(self) -> None:
        """After the fork: leave the writing end to the command."""
        os.close(self._write_fd)
        self._write_fd = -1
        os.set_blocking(self._read_fd, False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._read_fd, self._on_readable)

    def close(self) -> None:
        """Take in what has been written by now, up to the bound, and close the pipe."""
        if self._loop is not None and self._read_fd >= 0:
            while len(self.kept) < MAX_OUTPUT_BYTES and self._read():
                continue
            self._loop.remove_reader(self._read_fd)
        for descriptor in (self._read_fd, self._write_fd):
            if descriptor >= 0:
                os.close(descriptor)
        self._read_fd = self._write_fd = -1

    def _on_readable(self) -> None:
        if self._read_fd >= 0 and self._read() == b"" and self._loop is not None:
            self._loop.remove_reader(self._read_fd)  # end of file would be told for ever

    def _read(self) -> bytes | None:
        """A piece; b"" at the end of file, None when nothing waits."""
        try:
            piece = os.read(self._read_fd, 65536)
        except BlockingIOError:
            return None
        self.kept = (self.kept + piece)[:MAX_OUTPUT_BYTES]
        return piece
