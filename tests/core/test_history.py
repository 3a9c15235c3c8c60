from __future__ import annotations

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blackhole_cg.core.history import POINTS, SPANS, Extent, History, Ring
from blackhole_cg.core.monitor_spec import Metric
from blackhole_cg.core.samples import Sample

CPU, MEMORY = Metric.CPU_PERCENT, Metric.MEMORY_BYTES


def sample(at: float, cpu: float | None = None, memory: float | None = None) -> Sample:
    return Sample(at, 1, 0.0, cpu_percent=cpu, memory_bytes=memory)


def test_points_come_back_oldest_first_and_unknown_stays_unknown():
    history = History()
    for at, cpu in ((10.0, 1.0), (15.0, None), (20.0, 3.0)):
        history.append(sample(at, cpu, 60e6))
    assert [(point.at, point.values[CPU]) for point in history.points()] == [(10, 1), (15, None), (20, 3)]
    assert [point.at for point in history.points(since=15.0)] == [15, 20]
    assert history.points()[0].values[MEMORY] == pytest.approx(60e6, abs=4)


def test_points_closer_than_five_seconds_are_left_to_the_spans():
    history = History()
    for number in range(301):
        history.append(sample(float(number), number))
    assert len(history.points()) == 61
    assert history.spans()[0].extents[CPU] == Extent(0, 149.5, 299)


def test_a_span_has_least_mean_and_greatest_of_what_was_known():
    history = History()
    for number, cpu in enumerate([4.0, None, 1.0, 7.0]):
        history.append(sample(60.0 * number, cpu))
    assert history.spans() == []
    history.append(sample(300.0, 9.0))
    (span,) = history.spans()
    assert (span.begins_at, span.extents[CPU], span.extents[MEMORY]) == (0, Extent(1, 4, 7), None)


def test_two_days_take_no_more_than_the_stated_bytes():
    history = History()
    for number in range(2 * 86400 // 5):
        history.append(sample(5.0 * number, number, number))
    assert (len(history.points()), len(history.spans())) == (POINTS, SPANS)
    assert history.points()[-1].at == 2 * 86400 - 5
    assert history.packed_bytes == 33408


@given(st.integers(1, 7), st.lists(st.floats(0, 1e6), max_size=30))
def test_a_ring_is_the_end_of_what_was_appended(length: int, times: list[float]):
    ring = Ring(2, length)
    for number, at in enumerate(times):
        ring.append(at, array("f", [number, -number]))
    kept = [(at, [float(number), -float(number)]) for number, at in enumerate(times)][-length:]
    assert [(at, list(row)) for at, row in ring.rows()] == kept
