"""The results as Markdown tables, and their place in docs/benchmarks.md."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.bare import BareFigures
    from benchmarks.bench import Figures

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"

AIM_START_SECONDS = 1.0
AIM_IDLE_PERCENT = 0.3
AIM_PSS_MIB = 50
AIM_RESTART_OVERHEAD_MS = 30


def render_single(figures: Figures, bare: BareFigures) -> str:
    """One supervisor beside the bare loop and beside what is aimed for."""
    overhead_ms = 1000 * (figures.kill_median - bare.kill_to_spawned_median)
    cpu = figures.start_cpu
    rows = [
        ("all running, from the first one's start", f"{figures.first_to_running:.2f} s",
         f"{bare.all_spawned:.2f} s", f"{AIM_START_SECONDS:g} s"),
        ("all running, from the command", f"{figures.launch_to_running:.2f} s", "", ""),
        ("CPU to start them", f"{cpu.total:.2f} s", f"{bare.cpu:.2f} s", ""),
        ("- of it in user / system mode", f"{cpu.user:.2f} / {cpu.system:.2f} s", "", ""),
        ("- of it before the first fork: imports, configuration", f"{figures.import_cpu:.2f} s", "", ""),
        ("CPU when idle, of one core", f"{figures.idle_cpu_percent:.3f} %", "", f"{AIM_IDLE_PERCENT:g} %"),
        ("memory, PSS", f"{figures.pss_kib / 1024:.1f} MiB", "", f"{AIM_PSS_MIB} MiB"),
        ("memory, RSS", f"{figures.rss_kib / 1024:.1f} MiB", "", ""),
        ("file descriptors", str(figures.descriptors), "", ""),
        (f"SIGKILL to running again, median of {len(figures.kill_to_running)}",
         f"{1000 * figures.kill_median:.1f} ms", f"{1000 * bare.kill_to_spawned_median:.1f} ms", ""),
        ("- slowest", f"{1000 * figures.kill_slowest:.1f} ms", "", ""),
        ("- more than the bare loop", f"{overhead_ms:.1f} ms", "", f"{AIM_RESTART_OVERHEAD_MS} ms"),
        ("one spawn until exec, median", "", f"{1000 * bare.spawn_median:.1f} ms", ""),
    ]  # fmt: skip
    heading = (f"{figures.count} services", "blackhole-cg", "bare loop", "at most")
    return describe_machine() + "\n\n" + render_table(heading, rows)


def render_scaling(series: Sequence[Figures]) -> str:
    """Several sizes, and what one more service costs between the smallest and the largest."""
    first, last = series[0], series[-1]
    more = last.count - first.count
    rows = [
        (str(item.count), f"{item.first_to_running:.2f} s", f"{item.start_cpu.total:.2f} s",
         f"{item.idle_cpu_percent:.3f} %", f"{item.pss_kib / 1024:.1f} MiB", str(item.descriptors))
        for item in series
    ]  # fmt: skip
    rows.append((
        "each one more",
        f"{1000 * (last.first_to_running - first.first_to_running) / more:.2f} ms",
        f"{1000 * (last.start_cpu.total - first.start_cpu.total) / more:.2f} ms",
        f"{(last.idle_cpu_percent - first.idle_cpu_percent) / more:.5f} %",
        f"{(last.pss_kib - first.pss_kib) / more:.1f} KiB",
        f"{(last.descriptors - first.descriptors) / more:.1f}",
    ))  # fmt: skip
    heading = ("services", "all running", "CPU to start", "CPU when idle", "PSS", "descriptors")
    return describe_machine() + "\n\n" + render_table(heading, rows)


def render_table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, aligned so that it reads well as plain text too."""
    widths = [max(len(cell) for cell in column) for column in zip(heading, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first = cells[0].ljust(widths[0])
        others = (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))
        return "| " + " | ".join((first, *others)) + " |"

    rule = "|" + "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])]) + "|"
    return "\n".join([line(heading), rule, *map(line, rows)])


def describe_machine() -> str:
    """The machine in general terms, as one line."""
    kernel = ".".join(platform.release().split(".")[:2])
    return f"{os.cpu_count()} cores, Linux {kernel}, Python {platform.python_version()}"


def write_page(part: str, text: str, page: Path = PAGE) -> None:
    """Replaces what stands between the markers of `part`."""
    begin, end = f"<!-- {part}: written by make bench -->", f"<!-- {part}: end -->"
    old = page.read_text(encoding="utf-8")
    new, found = re.subn(
        f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: f"{begin}\n{text}\n{end}", old, flags=re.DOTALL
    )
    if found != 1:
        raise ValueError(f"cannot update {page}: the markers of '{part}' are not there once")
    page.write_text(new, encoding="utf-8")
