"""How long the next supervisor takes to have every service of one that was killed.

    python -m benchmarks.adoption [--services N] [--read-anew] [--write] [--profile]

Starts sleeping services, kills the supervisor with SIGKILL and starts it again. It answers once it has taken
over what there is: that is the first wall time. The second one ends when it has told the state, limits and
usage of each service, all of them running and adopted. The configuration is unchanged, so the next supervisor
goes by what is kept of it; with --read-anew that is lost, as it would be if the configuration had changed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bench import START_SECONDS, print_profile, say, wait_for_start
from benchmarks.procfs import CpuTime, read_cpu
from benchmarks.report import describe_machine, render_table, write_page
from benchmarks.supervised import Supervised, wall_seconds
from blackhole_cg.kernel.config_cache import NAME

AIM_SECONDS = 2.0


@dataclass(frozen=True)
class Figures:
    """Of one supervisor after another; times in seconds."""

    count: int
    launch_to_adopted: float  # from the command until it answers
    launch_to_told: float  # from the command until it has told of each
    first_to_last: float  # between the first service taken over and the last
    cpu: CpuTime  # of the process, from the command on


def measure(count: int, profile: Path | None = None, *, read_anew: bool = False) -> Figures:
    """Starts `count` services, kills their supervisor, and watches the next one."""
    with Supervised(count) as supervised:
        say(f"starting {count} services")
        wait_for_start(supervised)
        cache = supervised.directory / "run" / NAME
        supervised.wait_until(cache.exists, START_SECONDS, poll_seconds=0.1)
        supervised.kill()
        if read_anew:
            cache.unlink()
        say("killed; starting the next supervisor")
        began = time.monotonic()
        supervised.launch(profile)
        supervised.wait_until(supervised.answers, START_SECONDS, poll_seconds=0.01)
        adopted = time.monotonic() - began
        services = supervised.get("/v1/services")["services"]
        told, cpu = time.monotonic() - began, read_cpu(supervised.pid)
        assert all(service["adopted"] and service["state"] == "running" for service in services)
        taken_over = [
            wall_seconds(event) for event in supervised.running_events() if "taken over" in event["detail"]
        ]
        assert len(taken_over) == count
        say("stopping")
    return Figures(count, adopted, told, max(taken_over) - min(taken_over), cpu)


def render(figures: Figures) -> str:
    """As a table."""
    cpu = figures.cpu
    rows = [
        ("every one adopted, from the command", f"{figures.launch_to_adopted:.2f} s", f"{AIM_SECONDS:g} s"),
        ("- from the first one to the last", f"{figures.first_to_last:.2f} s", ""),
        ("every one told about, from the command", f"{figures.launch_to_told:.2f} s", ""),
        ("CPU of the supervisor", f"{cpu.total:.2f} s", ""),
        ("- of it in user / system mode", f"{cpu.user:.2f} / {cpu.system:.2f} s", ""),
    ]
    heading = (f"{figures.count} services", "blackhole-cg", "at most")
    return describe_machine() + "\n\n" + render_table(heading, rows)


def main() -> int:
    """Measures, prints, and writes if asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.adoption", description=__doc__)
    parser.add_argument("--services", type=int, default=500, metavar="N")
    parser.add_argument("--read-anew", action="store_true", help="lose what is kept of the configuration")
    parser.add_argument("--write", action="store_true", help="put the result into docs/benchmarks.md")
    parser.add_argument("--profile", action="store_true", help="also print where the time went")
    arguments = parser.parse_args()
    table = render(measure(arguments.services, read_anew=arguments.read_anew))
    print(table)
    if arguments.write:
        write_page("adoption", table)
    if arguments.profile:
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "profile"
            say("once more, under a profiler, which slows it down")
            measure(arguments.services, path, read_anew=arguments.read_anew)
            print_profile(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
