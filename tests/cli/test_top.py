"""`top`: its screens from values alone, and the whole of it in a terminal."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from blackhole_cg.cli.terminal import Screen
from blackhole_cg.cli.top import read_keys
from blackhole_cg.cli.top_view import TREND_SECONDS, Shown, Trails, View, render_top, sparkline
from tests.cli.conftest import COMMAND, ROOT, Cli
from tests.control.fake_operations import Served, make_info, make_sample

BY_CPU = View()
NOW = datetime(2030, 1, 31, 12, tzinfo=UTC).timestamp()


def at(seconds_ago: float) -> str:
    return datetime.fromtimestamp(NOW - seconds_ago, UTC).isoformat()


def shown(*names: str, problem: str | None = None, **samples: dict[str, Any]) -> Shown:
    services = [make_info(name, usage={}).to_json() for name in names]
    return Shown(
        services, {name: {"latest": make_sample(**samples.get(name, {}))} for name in names}, NOW, problem
    )


def render(what: Shown, view: View = BY_CPU, width: int = 80, height: int = 24) -> list[str]:
    return render_top(what, Trails(), view, Screen(width=width), height)


def names_in(lines: list[str]) -> list[str]:
    return [line.split()[0] for line in lines[2:-2] if line]


THREE = shown(
    "a",
    "b",
    "c",
    a={"cpu_percent": None},
    b={"memory_bytes": 2**30},
    c={"cpu_percent": 80, "memory_bytes": None},
)


@pytest.mark.parametrize(("order", "names"), [("cpu", "c b a"), ("memory", "b a c"), ("name", "a b c")])
def test_services_are_sorted_and_what_is_unknown_comes_last(order: str, names: str) -> None:
    assert names_in(render(THREE, View(order))) == names.split()


@pytest.mark.parametrize(("width", "height"), [(80, 24), (200, 50), (60, 10), (40, 6)])
def test_a_screen_is_as_high_as_the_terminal_and_fits_its_width(width: int, height: int) -> None:
    what = shown(*(f"service-with-a-long-name-{number}" for number in range(30)), problem="gone " * 30)
    lines = render(what, width=width, height=height)
    assert len(lines) == height
    assert max(map(len, lines[:-1])) <= width
    assert lines[-1].startswith("q quit")


def test_usage_stands_beside_limits_and_a_wide_screen_tells_more() -> None:
    narrow, wide = (render(shown("web"), width=width) for width in (80, 200))
    assert " ".join(narrow[1].split()) == "NAME STATE HEALTH CPU MEMORY PIDS I/O/s RST CPU 5m"
    assert narrow[2].split() == ["web", "running", "-", "12%/(200%)", "61.2M/(512M)", "3", "4.1K", "0"]
    assert wide[2].split()[5:8] == ["3", "0B", "4.1K"]
    assert render(shown("web"), width=70)[2].split()[3:5] == ["12%", "61.2M"]


def test_the_summary_counts_states_and_the_last_failure_is_told() -> None:
    what = shown("web")
    failed = make_info("db", state="failed", last_error="exit 3\x1b[2J").to_json()
    lines = render(Shown([*what.services, failed], what.samples, NOW))
    assert lines[0] == "blackhole-cg  1 running, 1 failed"
    assert lines[-2] == "db: exit 3\\x1b[2J"
    assert render(shown())[1] == "no services are configured"


def test_keys_sort_and_scroll_no_further_than_there_is_something() -> None:
    assert read_keys(b"nc\x1b[B\x1bOA\x1b[6~ jQ\x1b") == [
        *("n", "c", "down", "up", "page down", "page down", "down", "q", "\x1b"),
    ]
    view = View().press("n", 5, 12)
    for _ in range(20):
        view = view.press("down", 5, 12)
    assert view == View("name", 7)
    assert view.press("page up", 5, 12).offset == 2
    assert view.press("down", 20, 12).offset == 0
    assert view.press("x", 5, 12) == view
    many = shown(*(f"s{number:02}" for number in range(12)))
    lines = render(many, View("name", 7), height=9)
    assert names_in(lines) == ["s07", "s08", "s09", "s10", "s11"]
    assert lines[-1].endswith("8-12 of 12")


def test_a_trend_is_the_greatest_value_of_each_part_of_the_last_minutes() -> None:
    trails = Trails()
    seconds = (TREND_SECONDS + 60, 290, 280, 100, 1)
    points = [{"at_wall": at(ago), "cpu_percent": float(ago)} for ago in seconds]
    trails.add("web", points)
    trails.add("web", points[-1:])
    assert trails.trend("web", "cpu_percent", NOW, 5) == [290.0, None, None, 100.0, 1.0]
    assert trails.trend("other", "cpu_percent", NOW, 3) == [None] * 3
    later = NOW + TREND_SECONDS - 10
    assert trails.trend("web", "cpu_percent", later, 2) == [1.0, None]


def test_bars_show_shape_and_leave_the_unknown_blank() -> None:
    assert sparkline([0.0, 50.0, 100.0, None], 1.0) == "▁▅█ "
    assert sparkline([0.01, 0.02], 1.0) == "▁▁"
    assert sparkline([], 1.0) == ""


# ---- in a terminal ----


def test_top_without_a_terminal_is_wrong_usage(cli: Cli, served: Served) -> None:
    done = cli("top")
    assert done.returncode == 2
    assert b"top needs a terminal" in done.stderr


class Terminal:
    """A terminal of 80x24 with `top` in it, and all that was written to it."""

    def __init__(self, process: subprocess.Popen[bytes], descriptor: int) -> None:
        self.process = process
        self._descriptor = descriptor
        self.text = ""

    def press(self, keys: str) -> None:
        self.text = ""
        os.write(self._descriptor, keys.encode())

    def until(self, text: str) -> None:
        """Read on until a text has been written."""
        deadline = time.monotonic() + 60
        while text not in self.text:
            assert time.monotonic() < deadline, f"no {text!r} in {self.text!r}"
            if select.select([self._descriptor], [], [], 1)[0]:
                self.text += os.read(self._descriptor, 65536).decode(errors="replace")


@contextmanager
def on_terminal(environment: dict[str, str]) -> Iterator[Terminal]:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    before = termios.tcgetattr(theirs)
    process = subprocess.Popen(
        [*COMMAND, "top"], stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT, env=environment
    )
    try:
        yield Terminal(process, ours)
        assert termios.tcgetattr(theirs) == before
    finally:
        process.kill()
        process.wait()
        os.close(ours)
        os.close(theirs)


SCREEN_ON, SCREEN_OFF = "\x1b[?1049h", "\x1b[?1049l"


def test_top_in_a_terminal_shows_sorts_goes_on_and_leaves_it_as_it_was(
    environment: dict[str, str], served: Served
) -> None:
    with on_terminal({**environment, "NO_COLOR": "1"}) as terminal:
        terminal.until("by CPU*")
        assert SCREEN_ON in terminal.text
        assert "web" in terminal.text
        assert "61.2M" in terminal.text
        terminal.press("m")
        terminal.until("by memory*")
        served.operations.infos["web"] = make_info("web", state="failed", last_error="exit 77")
        terminal.until("web: exit 77")
        terminal.press("q")
        terminal.until(SCREEN_OFF)
        assert terminal.process.wait(30) == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_the_terminal_as_it_was_too(
    environment: dict[str, str], served: Served, number: int, code: int
) -> None:
    with on_terminal(environment) as terminal:
        terminal.until("q quit")
        terminal.process.send_signal(number)
        terminal.until(SCREEN_OFF)
        assert terminal.process.wait(30) == code
        assert "Traceback" not in terminal.text


def test_top_without_a_supervisor_says_so_and_exits_with_3(environment: dict[str, str]) -> None:
    with on_terminal(environment) as terminal:
        terminal.until("no supervisor answers")
        assert terminal.process.wait(30) == 3
        assert SCREEN_ON not in terminal.text
