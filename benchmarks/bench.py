"""First figures: how fast many services start, and what supervising them costs. Run it with `make bench`.

Starts a real supervisor over sleeping services and looks at it from outside: /proc, its events, its API.
Beside it, in the same run, the same processes by a bare `Popen(preexec_fn=...)` loop.
"""

from __future__ import annotations

import argparse
import os
import pstats
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.bare import BareFigures, measure_bare
from benchmarks.procfs import CpuTime, count_descriptors, read_children, read_cpu, read_memory_kib
from benchmarks.report import render_scaling, render_single, write_page
from benchmarks.supervised import COMMAND, Supervised, wall_seconds
from benchmarks.watched import measure_all, render

SCALING_COUNTS = (50, 100, 200, 400)
START_SECONDS = 120.0
SETTLE_SECONDS = 2.0


@dataclass(frozen=True)
class Figures:
    """What one supervisor showed. Times in seconds, memory in KiB."""

    count: int
    launch_to_running: float  # from the command to the last service running
    first_to_running: float  # from the first service waiting or starting to the last one running
    start_cpu: CpuTime  # of the supervisor, from the command on
    import_cpu: float  # the part of it spent before the first service was forked
    idle_cpu_percent: float  # of one core
    pss_kib: int
    rss_kib: int
    descriptors: int
    kill_to_running: tuple[float, ...]

    @property
    def kill_median(self) -> float:
        """Median time from the SIGKILL to the next run."""
        return median(self.kill_to_running)

    @property
    def kill_slowest(self) -> float:
        """The slowest of them."""
        return max(self.kill_to_running)


def measure(count: int, idle_seconds: float, kills: int, profile: Path | None = None) -> Figures:
    """Starts `count` services, leaves them alone for a while, kills some, and stops everything."""
    with Supervised(count, profile) as supervised:
        say(f"starting {count} services")
        import_cpu, start_cpu = wait_for_start(supervised)
        events = supervised.running_events()
        began = min(map(wall_seconds, events))
        running = max(wall_seconds(event) for event in events if event["to"] == "running")
        time.sleep(SETTLE_SECONDS)
        say(f"watching them do nothing for {idle_seconds:g} s")
        idle_cpu_percent = measure_idle(supervised.pid, idle_seconds)
        memory = read_memory_kib(supervised.pid)
        descriptors = count_descriptors(supervised.pid)
        kill_seconds = measure_kills(supervised, kills)
        say("stopping")
    return Figures(
        count, running - supervised.launched_at, running - began, start_cpu, import_cpu,
        idle_cpu_percent, memory["Pss"], memory["Rss"], descriptors, kill_seconds,
    )  # fmt: skip


def wait_for_start(supervised: Supervised) -> tuple[float, CpuTime]:
    """Processor time before the first fork, and until all run.

    It counts child processes, which costs the supervisor nothing, and asks it only when all are there.
    """
    before_first = 0.0

    def all_forked() -> bool:
        nonlocal before_first
        children = len(read_children(supervised.pid))
        if not children:
            before_first = read_cpu(supervised.pid).total
        return children >= supervised.count

    def all_running() -> bool:
        services = supervised.get("/v1/services")["services"]
        return all(service["state"] == "running" for service in services)

    supervised.wait_until(all_forked, START_SECONDS, poll_seconds=0.002)
    time.sleep(0.2)  # the last ones exec; asking meanwhile would only slow them down
    cpu = read_cpu(supervised.pid)
    supervised.wait_until(all_running, START_SECONDS, poll_seconds=0.1)
    return before_first, cpu


def measure_idle(pid: int, seconds: float) -> float:
    """Percent of one core that the process used while nothing happened."""
    begin, before = time.monotonic(), read_cpu(pid)
    time.sleep(seconds)
    return 100 * (read_cpu(pid) - before).total / (time.monotonic() - begin)


def measure_kills(supervised: Supervised, kills: int) -> tuple[float, ...]:
    """Seconds from each SIGKILL of a main process to the event that its next run is running."""
    if not kills:
        return ()
    say(f"killing {kills} of them, one after the other")
    killed_at: dict[tuple[str, int], float] = {}
    for number in range(kills):
        name = f"sleeper-{number * supervised.count // kills:04}"
        before = supervised.get(f"/v1/services/{name}")

        def is_back(name: str = name, old_run: int = before["run_id"]) -> bool:
            info = supervised.get(f"/v1/services/{name}")
            return bool(info["state"] == "running" and info["run_id"] > old_run)

        killed_at[name, before["run_id"]] = time.time()
        os.kill(before["pid"], signal.SIGKILL)
        time.sleep(0.1)  # normally it is back by now, and was not disturbed
        supervised.wait_until(is_back, 10.0, poll_seconds=0.05)
    back_at = {
        (event["service"], event["run_id"]): wall_seconds(event)
        for event in supervised.running_events()
        if event["to"] == "running"
    }
    return tuple(
        min(at for (other, run_id), at in back_at.items() if other == name and run_id > old_run) - killed
        for (name, old_run), killed in killed_at.items()
    )


def print_profile(path: Path, lines: int = 25) -> None:
    """The functions that took most of the supervisor's time, by themselves and with what they called."""
    for order in ("tottime", "cumulative"):
        pstats.Stats(str(path), stream=sys.stdout).strip_dirs().sort_stats(order).print_stats(lines)


def say(message: str) -> None:
    """Progress, apart from the result."""
    print(f"==> {message}", file=sys.stderr, flush=True)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="make bench ARGS=...", description=__doc__)
    parser.add_argument("--services", type=int, default=200, metavar="N")
    parser.add_argument("--idle-seconds", type=float, default=60.0, metavar="SECONDS")
    parser.add_argument("--kills", type=int, default=20, metavar="N", help="services to kill")
    parser.add_argument("--scaling", action="store_true", help=f"{SCALING_COUNTS} services instead")
    parser.add_argument(
        "--watched", action="store_true", help="instead, what it costs to watch and to probe them"
    )
    parser.add_argument(
        "--profile", action="store_true", help="also print where the supervisor spent its time"
    )
    parser.add_argument("--write", action="store_true", help="put the result into docs/benchmarks.md")
    return parser.parse_args()


def run_single(arguments: argparse.Namespace) -> str:
    """The table of one size, beside the bare loop."""
    say(f"spawning {arguments.services} processes in a bare loop")
    bare: BareFigures = measure_bare(COMMAND, arguments.services, arguments.kills)
    return render_single(measure(arguments.services, arguments.idle_seconds, arguments.kills), bare)


def run_scaling(arguments: argparse.Namespace) -> str:
    """The table of several sizes."""
    return render_scaling([measure(count, arguments.idle_seconds, kills=0) for count in SCALING_COUNTS])


def run_watched(arguments: argparse.Namespace) -> str:
    """The table of what watching and probing cost together."""
    costs = list(measure_all(arguments.services, arguments.idle_seconds, say))
    return render(costs, arguments.services)


def main() -> int:
    """Measures, prints, and writes if asked to."""
    arguments = parse_arguments()
    if arguments.watched:
        table = run_watched(arguments)
        print(table)
        if arguments.write:
            write_page("watched", table)
        return 0
    table = run_scaling(arguments) if arguments.scaling else run_single(arguments)
    print(table)
    if arguments.write:
        write_page("scaling" if arguments.scaling else "single", table)
    if arguments.profile:
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "profile"
            say("once more, under a profiler, which slows it down")
            measure(arguments.services, idle_seconds=5.0, kills=arguments.kills, profile=path)
            print_profile(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
