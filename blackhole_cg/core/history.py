"""What a service used over the last day, in a bounded number of bytes: packed columns, no objects.

The last hour is kept point by point, the last day in spans of five minutes with the least, the mean and the
greatest value. Unknown values are NaN inside and None outside.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from blackhole_cg.core.monitor_spec import Metric
from blackhole_cg.core.samples import Sample

KEPT_METRICS: Final = (
    Metric.CPU_PERCENT,
    Metric.MEMORY_BYTES,
    Metric.IO_READ_BYTES_PER_SECOND,
    Metric.IO_WRITE_BYTES_PER_SECOND,
)
POINT_SECONDS: Final = 5.0
POINTS: Final = 720  # an hour
SPAN_SECONDS: Final = 300.0
SPANS: Final = 288  # a day

_EARLY: Final = 0.9  # a sample that comes this early still counts as being on time


@dataclass(frozen=True, slots=True)
class Point:
    """The values of one sample; None is unknown."""

    at: float  # monotonic seconds
    values: dict[Metric, float | None]


@dataclass(frozen=True, slots=True)
class Extent:
    """Least, mean and greatest value of a span."""

    least: float
    mean: float
    greatest: float


@dataclass(frozen=True, slots=True)
class Span:
    """What five minutes came to; None where nothing was known."""

    begins_at: float  # monotonic seconds
    extents: dict[Metric, Extent | None]


class Ring:
    """Rows of a time and `width` numbers; once `length` rows are there, a new one replaces the oldest."""

    def __init__(self, width: int, length: int) -> None:
        self._width = width
        self._length = length
        self._times = array("d")
        self._cells = array("f")  # 24 bits are enough for a size of 60M to be right to 4 bytes
        self._oldest = 0

    def append(self, at: float, row: array[float]) -> None:
        """Add a row."""
        if len(self._times) < self._length:
            self._times.append(at)
            self._cells.extend(row)
            return
        begin = self._oldest * self._width
        self._times[self._oldest] = at
        self._cells[begin : begin + self._width] = row
        self._oldest = (self._oldest + 1) % self._length

    def rows(self) -> Iterator[tuple[float, array[float]]]:
        """Every row, oldest first."""
        count = len(self._times)
        for index in range(count):
            place = (self._oldest + index) % count
            yield self._times[place], self._cells[place * self._width : (place + 1) * self._width]

    @property
    def packed_bytes(self) -> int:
        """Bytes that the rows take."""
        return len(self._times) * self._times.itemsize + len(self._cells) * self._cells.itemsize


class History:
    """The past of one service, across its runs."""

    def __init__(self) -> None:
        self._points = Ring(len(KEPT_METRICS), POINTS)
        self._spans = Ring(3 * len(KEPT_METRICS), SPANS)
        self._last_point_at = -math.inf
        self._open = _OpenSpan(-math.inf)

    def append(self, sample: Sample) -> None:
        """Take a sample in; samples come in the order of their times."""
        values = [sample.value(metric) for metric in KEPT_METRICS]
        if sample.taken_at - self._last_point_at >= POINT_SECONDS * _EARLY:
            row = array("f", [math.nan if value is None else value for value in values])
            self._points.append(sample.taken_at, row)
            self._last_point_at = sample.taken_at
        if sample.taken_at - self._open.begins_at >= SPAN_SECONDS:
            if self._open.begins_at > -math.inf:
                self._spans.append(self._open.begins_at, self._open.row())
            self._open = _OpenSpan(sample.taken_at)
        self._open.add(values)

    def points(self, since: float = -math.inf) -> list[Point]:
        """The points of the last hour, oldest first, from a monotonic time on."""
        return [
            Point(at, dict(zip(KEPT_METRICS, map(_known, row), strict=True)))
            for at, row in self._points.rows()
            if at >= since
        ]

    def spans(self, since: float = -math.inf) -> list[Span]:
        """The finished spans of the last day, oldest first."""
        return [Span(at, _extents(row)) for at, row in self._spans.rows() if at >= since]

    @property
    def packed_bytes(self) -> int:
        """Bytes that the kept numbers take."""
        return self._points.packed_bytes + self._spans.packed_bytes


class _OpenSpan:
    """A span that is still being filled."""

    __slots__ = ("_columns", "begins_at")

    def __init__(self, begins_at: float) -> None:
        self.begins_at = begins_at
        self._columns = tuple([math.inf, 0.0, -math.inf, 0] for _ in KEPT_METRICS)  # least, sum, greatest, n

    def add(self, values: list[float | None]) -> None:
        for column, value in zip(self._columns, values, strict=True):
            if value is not None:
                column[0] = min(column[0], value)
                column[1] += value
                column[2] = max(column[2], value)
                column[3] += 1

    def row(self) -> array[float]:
        row = array("f")
        for least, total, greatest, count in self._columns:
            row.extend((least, total / count, greatest) if count else (math.nan,) * 3)
        return row


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _extents(row: array[float]) -> dict[Metric, Extent | None]:
    extents: dict[Metric, Extent | None] = {}
    for index, metric in enumerate(KEPT_METRICS):
        least, mean, greatest = row[3 * index : 3 * index + 3]
        extents[metric] = None if math.isnan(mean) else Extent(least, mean, greatest)
    return extents
