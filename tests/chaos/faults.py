"""What goes wrong: each fault is a coroutine that has undone itself when it returns."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import shutil
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.chaos.world import MEMORY_BYTES, World
from tests.support.real_kernel import in_test_vm

ENDLESS = ("web", "writer", "eater", "needy", "held")
"""Services that are started again however often they end."""
MORTAL = (*ENDLESS, "fragile", "once", "wished")
CLOCK_SECONDS = 3600.0
FREEZE_SECONDS = 2.0


async def kill_supervisor(world: World) -> str:
    world.may_end = True
    world.note_kill()
    pid = world.supervisor_pid
    world.signal_supervisor(signal.SIGKILL)
    return f"pid {pid}"


async def stop_supervisor(world: World) -> str:
    """A supervisor that does not run for a while, as on a host that starves it."""
    pid, seconds = world.supervisor_pid, world.random.uniform(0.5, 3)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(seconds)
        os.kill(pid, signal.SIGCONT)
    return f"{seconds:.1f}s"


async def kill_service(world: World) -> str:
    service = world.random.choice(MORTAL)
    number = world.random.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
    pid = world.main_pid(service)
    if pid is None:
        return f"{service}: is down"
    if pid in world.killed:  # a process takes its time to end, and while it does this is no other death
        return f"{service} pid {pid} ends already"
    world.killed.add(pid)
    world.may_have_ended(service, surely=True)
    world.note_end(service)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
    return f"{service} pid {pid} by {number.name}"


async def kill_grandchild(world: World) -> str:
    main = world.main_pid("web")
    others = [pid for pid in world.pids("web") if pid != main]
    if not others:
        return "there is none"
    pid = world.random.choice(others)
    # A child that is killed just before its parent forks the next one shares nothing with it.
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    return f"web pid {pid}"


async def freeze(world: World) -> str:
    service = world.random.choice(("web", "writer"))
    switch = world.cgroup_root / service / "cgroup.freeze"
    try:
        switch.write_text("1")
        await asyncio.sleep(FREEZE_SECONDS)
        switch.write_text("0")
    except OSError as error:
        return f"{service}: {error.strerror}"
    return service


async def out_of_memory(world: World) -> str:
    pid = world.main_pid("eater")
    limit = world.cgroup_root / "eater" / "memory.max"
    if pid is None or not limit.exists():
        return "no memory.max here"
    world.may_have_ended("eater", surely=True)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGUSR1)
    return f"eater pid {pid}"


async def fill_logs(world: World) -> str:
    return await _fill(world, world.log_dir)


async def fill_state(world: World) -> str:
    return await _fill(world, world.state_dir)


async def _fill(world: World, directory: Path) -> str:
    """Leave no byte free; only on a file system of its own."""
    if os.stat(directory).st_dev == os.stat(directory.parent).st_dev:
        return "is no file system of its own here"
    seconds = world.random.uniform(0.5, 3)
    ballast = directory / ".ballast"
    block = 2**20
    with ballast.open("wb") as file:
        size = 0
        while block >= 512:
            try:
                os.posix_fallocate(file.fileno(), size, block)
                size += block
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EFBIG):
                    raise
                block //= 2
    began = time.time()
    await asyncio.sleep(seconds)
    ballast.unlink()
    if directory == world.log_dir:
        world.full_disks.append((min(began, time.time()), max(began, time.time())))
    return f"{seconds:.1f}s, {size} bytes"


async def no_descriptors(world: World) -> str:
    """EMFILE for whatever the supervisor opens next; one that only starts may end by it, and says so."""
    try:
        await world.ask("/healthz")
    except OSError:
        return "nobody answers"
    pid, seconds = world.supervisor_pid, world.random.uniform(0.5, 2)
    try:
        used = len(os.listdir(f"/proc/{pid}/fd"))
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (min(used, before[1]), before[1]))
        await asyncio.sleep(seconds)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    except (OSError, ProcessLookupError):
        return "it has gone"
    return f"{used} for {seconds:.1f}s"


async def jump_clock(world: World) -> str:
    """The wall clock is set an hour off and back; only in the test VM."""
    if not in_test_vm():
        return "not on this host"
    offset = world.random.choice((-CLOCK_SECONDS, CLOCK_SECONDS))
    time.clock_settime(time.CLOCK_REALTIME, time.time() + offset)
    await asyncio.sleep(2)
    time.clock_settime(time.CLOCK_REALTIME, time.time() - offset)
    return f"{offset:+.0f}s"


async def delete_runtime_directory(world: World) -> str:
    shutil.rmtree(world.run_dir, ignore_errors=True)
    world.note_deletion()
    return ""


async def remove_cgroup(world: World) -> str:
    service = world.random.choice(ENDLESS)
    group = world.cgroup_root / service
    world.may_have_ended(service, surely=True)
    world.note_end(service)
    try:
        (group / "cgroup.kill").write_text("1")
        for _ in range(200):
            try:
                group.rmdir()
                return service
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                await asyncio.sleep(0.005)
    except OSError as error:
        return f"{service}: {error.strerror}"
    return f"{service}: stayed busy"


async def change_of_mind(world: World) -> str:
    """An operator's wish; what was acknowledged must hold in the end."""
    action = world.random.choice(("start", "stop"))
    world.may_have_ended("wished")
    acknowledged = await world.wish(action)
    # Whoever asks for a start that fails is told so, if both live to hear it.
    world.may_not_have_started = action == "start" and not acknowledged
    return f"{action}: {'acknowledged' if acknowledged else 'not answered'}"


async def restart_held(world: World) -> str:
    """Of the service whose socket is held: nobody may be refused."""
    world.may_have_ended("held")
    world.note_end("held")
    problem = await world.command(lambda client: client.change("restart", ["held"]))
    # Whoever asks for a restart that fails is told so; it stays failed where the cause is none that passes.
    passes = os.strerror(errno.EMFILE) in problem
    world.may_have_failed = problem.startswith("cannot start") and not passes
    return problem or "acknowledged"


async def change_limit(world: World) -> str:
    size = world.random.choice(MEMORY_BYTES)
    return f"{size}: {await world.limit(size) or 'acknowledged'}"


async def upgrade(world: World) -> str:
    """The supervisor executes itself anew."""
    return await world.command(lambda client: client.upgrade()) or "acknowledged"


FAULTS: tuple[tuple[int, Callable[[World], Awaitable[str]]], ...] = (
    (6, kill_supervisor),
    (6, kill_service),
    (3, kill_grandchild),
    (3, freeze),
    (3, stop_supervisor),
    (2, out_of_memory),
    (2, fill_logs),
    (2, fill_state),
    (2, no_descriptors),
    (2, jump_clock),
    (1, delete_runtime_directory),
    (3, remove_cgroup),
    (4, change_of_mind),
    (3, restart_held),
    (2, change_limit),
    (2, upgrade),
)
"""How often each comes, relative to the others."""
