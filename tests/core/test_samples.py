from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from blackhole_cg.core.monitor_spec import Metric
from blackhole_cg.core.samples import Reading, RunFacts, make_sample

FACTS = RunFacts(run_id=3, started_at=90.0, memory_limit_bytes=1000)


def test_rates_are_over_the_time_that_really_went_by():
    before = Reading(100.0, cpu_usec=1e6, io_read_bytes_total=0, io_write_bytes_total=500)
    after = Reading(104.0, cpu_usec=3e6, io_read_bytes_total=400, io_write_bytes_total=500)
    made = make_sample(FACTS, before, after)
    assert (made.cpu_percent, made.io_read_bytes_per_second, made.io_write_bytes_per_second) == (50, 100, 0)
    assert (made.taken_at, made.uptime_seconds, made.run_id) == (104, 14, 3)


def test_memory_is_the_working_set():
    reading = Reading(100.0, memory_current_bytes=900, memory_inactive_file_bytes=300, memory_private_bytes=1)
    made = make_sample(FACTS, None, reading)
    assert (made.memory_bytes, made.memory_percent, made.memory_current_bytes) == (600, 60, 900)


def test_without_a_controller_memory_is_that_of_the_processes():
    assert make_sample(FACTS, None, Reading(100.0, memory_private_bytes=250)).memory_percent == 25


def test_without_a_limit_its_percentage_is_unknown():
    made = make_sample(RunFacts(1, 0.0), None, Reading(1.0, memory_private_bytes=250))
    assert (made.memory_bytes, made.memory_percent) == (250, None)


def test_throttling_is_the_share_of_periods():
    before = Reading(100.0, cpu_periods_total=10, cpu_throttled_periods_total=2)
    after = Reading(105.0, cpu_periods_total=50, cpu_throttled_periods_total=12)
    assert make_sample(FACTS, before, after).cpu_throttled_percent == 25
    asleep = Reading(110.0, cpu_periods_total=50, cpu_throttled_periods_total=12)
    assert make_sample(FACTS, after, asleep).cpu_throttled_percent == 0


def test_a_counter_that_shrank_gives_no_rate():
    made = make_sample(FACTS, Reading(1.0, cpu_usec=5e6), Reading(2.0, cpu_usec=4e6))
    assert made.cpu_percent is None


def test_two_readings_of_one_moment_give_no_rate():
    made = make_sample(FACTS, Reading(1.0, cpu_usec=5e6), Reading(1.0, cpu_usec=6e6))
    assert made.cpu_percent is None


def test_what_was_not_read_is_unknown_and_never_zero():
    made = make_sample(FACTS, None, Reading(100.0))
    assert {metric for metric in Metric if made.value(metric) is not None} == {Metric.UPTIME_SECONDS}
    assert {name for name, value in made.to_json().items() if value is not None} == {
        "taken_at", "run_id", "uptime_seconds",
    }  # fmt: skip


_counters = st.one_of(st.none(), st.integers(0, 2**63))


@given(_counters, _counters, st.floats(0, 1e6), st.floats(0, 1e6))
def test_no_rate_is_ever_negative_or_infinite(first, second, at, later):
    made = make_sample(FACTS, Reading(at, cpu_usec=first), Reading(later, cpu_usec=second))
    assert made.cpu_percent is None or 0 <= made.cpu_percent < float("inf")
