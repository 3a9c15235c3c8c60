"""The yardstick: the same processes, started by nothing but `Popen(preexec_fn=...)` in a loop."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import time
from dataclasses import dataclass
from statistics import median

OPEN_FILES = 256


@dataclass(frozen=True)
class BareFigures:
    """All times in seconds; `cpu` is the loop's own processor time, without its children's."""

    all_spawned: float
    spawn_median: float
    kill_to_spawned_median: float
    cpu: float


def prepare_child() -> None:
    """The least a supervisor does between fork and exec: a session of its own, and a limit."""
    os.setsid()
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))


def spawn(command: list[str]) -> subprocess.Popen[bytes]:
    """One process; returns when exec has succeeded."""
    return subprocess.Popen(
        command,
        preexec_fn=prepare_child,  # noqa: PLW1509 - it is what is to be compared with; there are no threads
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )


def measure_bare(command: list[str], count: int, kills: int) -> BareFigures:
    """Spawns `count` processes, then kills and replaces one `kills` times. Ends all of them."""
    processes: list[subprocess.Popen[bytes]] = []
    try:
        cpu_before, begin = time.process_time(), time.monotonic()
        spawn_seconds = []
        for _ in range(count):
            before = time.monotonic()
            processes.append(spawn(command))
            spawn_seconds.append(time.monotonic() - before)
        all_spawned, cpu = time.monotonic() - begin, time.process_time() - cpu_before
        replace_seconds = [_replace(processes, number % count, command) for number in range(kills)]
    finally:
        _end(processes)
    return BareFigures(all_spawned, median(spawn_seconds), median(replace_seconds), cpu)


def _replace(processes: list[subprocess.Popen[bytes]], index: int, command: list[str]) -> float:
    before = time.monotonic()
    processes[index].send_signal(signal.SIGKILL)
    processes[index].wait()
    processes[index] = spawn(command)
    return time.monotonic() - before


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.kill()
    for process in processes:
        process.wait()
