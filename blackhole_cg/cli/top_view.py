"""What `top` shows. Pure: values of the API in, lines out, never more or wider than the screen."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from blackhole_cg.cli.status_view import NOTHING, STATE_STYLES, health_cell, usage_column
from blackhole_cg.cli.terminal import Cell, Column, Screen, printable, render_table
from blackhole_cg.core.units import format_size

Info = Mapping[str, Any]

TREND_SECONDS: Final = 300
_LEVELS: Final = "▁▂▃▄▅▆▇█"
_WIDEST_TREND: Final = 60
_NARROWEST_TREND: Final = 6
_TREND_TITLES: Final = {"cpu_percent": "CPU 5m", "memory_bytes": "MEM 5m"}
_TRAFFIC: Final = ("io_read_bytes_per_second", "io_write_bytes_per_second")
_WIDE: Final = 100  # on a narrower screen long names are cut
_CUT_NAME: Final = 12
_LEAST_SCALE: Final = {"cpu_percent": 1.0, "memory_bytes": 2.0**20}  # less is noise, and is shown as flat
_SORT_METRICS: Final = {"cpu": "cpu_percent", "memory": "memory_bytes"}
_AROUND: Final = 4  # lines: one on top, titles, two at the bottom


@dataclass(frozen=True, slots=True)
class View:
    """How somebody wants it: sorted by "cpu", "memory" or "name", and how many services are scrolled away."""

    order: str = "cpu"
    offset: int = 0

    def press(self, key: str, page: int, count: int) -> View:
        """The view after a key; `page` of `count` services are seen at once."""
        match key:
            case "c" | "m" | "n":
                return View({"c": "cpu", "m": "memory", "n": "name"}[key])
            case "up" | "down" | "page up" | "page down":
                distance = {"up": -1, "down": 1, "page up": -page, "page down": page}[key]
                return replace(self, offset=max(0, min(self.offset + distance, count - page)))
        return self


class Trails:
    """What services used over the last minutes."""

    def __init__(self) -> None:
        self._points: dict[str, deque[tuple[float, Mapping[str, Any]]]] = {}

    def add(self, name: str, points: Iterable[Mapping[str, Any]]) -> None:
        """Take in samples or points of the past, oldest first; what is known already is left out."""
        trail = self._points.setdefault(name, deque())
        for point in points:
            at = datetime.fromisoformat(point["at_wall"]).timestamp()
            if not trail or at > trail[-1][0] + 0.5:  # a time is not told to the microsecond each time
                trail.append((at, point))
            while trail[0][0] < at - TREND_SECONDS:
                trail.popleft()

    def trend(self, name: str, metric: str, now: float, width: int) -> list[float | None]:
        """The greatest value in each of `width` parts of the last minutes; None where nothing is known."""
        found: list[float | None] = [None] * width
        for at, point in self._points.get(name, ()):
            value = point[metric]
            place = width - 1 - int(max(0.0, now - at) * width / TREND_SECONDS)
            if value is not None and place >= 0:
                found[place] = max(value, found[place] or 0.0)
        return found


def sparkline(values: Sequence[float | None], least_scale: float) -> str:
    """A bar for each value, the greatest of them as high as can be; blank where it is unknown."""
    greatest = max([least_scale, *(value for value in values if value is not None)])
    top = len(_LEVELS) - 1
    return "".join(" " if value is None else _LEVELS[round(top * value / greatest)] for value in values)


@dataclass(frozen=True, slots=True)
class Shown:
    """What is known at one moment. `problem` says why it is old, if it is; `now` is seconds of the epoch."""

    services: Sequence[Info]
    samples: Mapping[str, Mapping[str, Any]]
    now: float
    problem: str | None = None


def page_size(height: int) -> int:
    """How many services a screen has room for."""
    return max(1, height - _AROUND)


def render_top(shown: Shown, trails: Trails, view: View, screen: Screen, height: int) -> list[str]:
    """The lines of a screen of this height."""
    rows = _sort([_with_sample(info, shown.samples) for info in shown.services], view.order)
    page = page_size(height)
    offset = min(view.offset, max(0, len(rows) - page))
    visible = rows[offset : offset + page]
    table = _render_rows(visible, shown, trails, view, screen) if rows else ["no services are configured"]
    lines = [_summary(rows, screen), *table]
    lines += [""] * (height - 2 - len(lines))
    return [*lines, _footer(shown, screen), _keys(view, offset, len(rows), page, screen)][-height:]


def _with_sample(info: Info, samples: Mapping[str, Mapping[str, Any]]) -> Info:
    """The service with what the monitor sampled, whose CPU is of a whole interval."""
    sample = (samples.get(info["name"]) or {}).get("latest") or {}
    usage = {**info["usage"], **{name: value for name, value in sample.items() if value is not None}}
    return {**info, "usage": usage}


def _sort(rows: list[Info], order: str) -> list[Info]:
    if order == "name":
        return sorted(rows, key=lambda info: str(info["name"]))
    metric = _SORT_METRICS[order]

    def rank(info: Info) -> float:
        value = info["usage"].get(metric)
        return float("inf") if value is None else -float(value)

    return sorted(rows, key=rank)


def _render_rows(rows: Sequence[Info], shown: Shown, trails: Trails, view: View, screen: Screen) -> list[str]:
    """The table in the fullest form that leaves room for a trend of what it is sorted by."""
    metric = _SORT_METRICS.get(view.order, "cpu_percent")
    for columns in _layouts(rows, screen):
        used = max(len(line) for line in render_table(columns, Screen())) + 2
        width = _WIDEST_TREND if screen.width is None else min(screen.width - used, _WIDEST_TREND)
        if width >= _NARROWEST_TREND:
            trends = (trails.trend(info["name"], metric, shown.now, width) for info in rows)
            bars = [Cell(sparkline(trend, _LEAST_SCALE[metric]), ("cyan",)) for trend in trends]
            return render_table([*columns, Column(_TREND_TITLES[metric], bars)], screen)
    return render_table(columns, screen)


def _layouts(rows: Sequence[Info], screen: Screen) -> Iterator[list[Column]]:
    """The columns, and then narrower forms: disk traffic in one, usage without limits."""
    first, last = (
        _first_columns(rows, screen),
        Column("RST", _counts(rows, "restarts"), right=True, optional=True),
    )
    read, write = ([info["usage"].get(metric) for info in rows] for metric in _TRAFFIC)
    both = [
        None if one is None or other is None else one + other for one, other in zip(read, write, strict=True)
    ]
    merged = [_rates("I/O/s", both), last]
    yield [*first, _rates("READ/s", read), _rates("WRITE/s", write), last]
    yield [*first, *merged]
    yield [*(_briefer(column) for column in first), *merged]


def _first_columns(rows: Sequence[Info], screen: Screen) -> list[Column]:
    names = [printable(info["name"]) for info in rows]
    if screen.width is not None and screen.width < _WIDE:
        names = [name if len(name) <= _CUT_NAME else f"{name[: _CUT_NAME - 1]}…" for name in names]
    return [
        Column("NAME", [Cell(name, ("bold",)) for name in names], shrinks=True),
        Column("STATE", [Cell(info["state"], STATE_STYLES.get(info["state"], ())) for info in rows]),
        Column("HEALTH", [health_cell(info) for info in rows]),
        usage_column("CPU", rows, "cpu_percent", "cpu_max"),
        usage_column("MEMORY", rows, "memory_bytes", "memory_max"),
        Column("PIDS", _counts([info["usage"] for info in rows], "pids"), right=True, optional=True),
    ]


def _briefer(column: Column) -> Column:
    return column if column.brief is None else replace(column, cells=column.brief)


def _counts(rows: Sequence[Info], name: str) -> list[Cell]:
    return [Cell(NOTHING if row.get(name) is None else f"{row[name]:g}") for row in rows]


def _rates(title: str, values: Sequence[float | None]) -> Column:
    cells = [Cell(NOTHING if value is None else format_size(value)) for value in values]
    return Column(title, cells, right=True, optional=True)


def _summary(rows: Sequence[Info], screen: Screen) -> str:
    """How many services there are, by state."""
    states = Counter(str(info["state"]) for info in rows)
    parts = [
        screen.paint(f"{count} {state}", *STATE_STYLES.get(state, ())) for state, count in states.items()
    ]
    return f"{screen.paint('blackhole-cg', 'bold')}  {', '.join(parts)}"


def _footer(shown: Shown, screen: Screen) -> str:
    """Why what is shown is old, or else what failed last."""
    failed = [info for info in shown.services if info["state"] == "failed" and info["last_error"]]
    text = shown.problem or (f"{failed[0]['name']}: {failed[0]['last_error']}" if failed else "")
    text = printable(text)
    if screen.width is not None and len(text) > screen.width:
        text = text[: screen.width - 1] + "…"
    return screen.paint(text, "red")


def _keys(view: View, offset: int, count: int, page: int, screen: Screen) -> str:
    """The keys there are; the present order is marked, and how far it is scrolled."""
    orders = [("c", "cpu", "CPU"), ("m", "memory", "memory"), ("n", "name", "name")]
    texts = [f"{key} by {title}{'*' if view.order == order else ''}" for key, order, title in orders]
    line = "  ".join(["q quit", *texts])
    if count > page:
        line += f"  up/down {offset + 1}-{min(count, offset + page)} of {count}"
    return screen.paint(line, "dim")
