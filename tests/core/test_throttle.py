from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blackhole_cg.core.facts import LimitState
from blackhole_cg.core.spec import ResourceLimits
from blackhole_cg.core.throttle import (
    LATE_SECONDS,
    LONGEST_HOLD_SECONDS,
    LONGEST_LOOK_SECONDS,
    MOST_DEBT_SECONDS,
    SHORTEST_LOOK_SECONDS,
    Budget,
    Share,
    begin,
    look,
    share_to_keep,
)

UNENFORCED = {"cpu_max": LimitState("20000 100000", reason="cpu: absent")}


@dataclass
class Machine:
    """A service that wants `demand` processors, looked at when that is due and `late` afterwards."""

    share: Share
    now: float = 1000.0
    used: float = 0.0
    looks: int = 0
    holds: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.budget: Budget = begin(self.share, self.now, self.used)

    def run(self, demand: float, seconds: float, late: float = 0.0) -> None:
        end = self.now + seconds
        while self.now < end:
            due = max(self.now, min(self.budget.due + late, end))
            if not self.budget.is_held:
                self.used += demand * (due - self.now)
            self.now = due
            if due >= self.budget.due:
                self._look()

    def _look(self) -> None:
        before = self.budget
        self.budget = look(self.share, before, self.now, self.used)
        self.looks += 1
        if before.held_since is not None and not self.budget.is_held:
            self.holds.append(self.now - before.held_since)


def test_one_that_spins_gets_its_share():
    machine = Machine(Share(0.2))
    machine.run(demand=1.0, seconds=60)
    assert machine.used == pytest.approx(12, rel=0.05)
    assert max(machine.holds) < 0.4


def test_one_that_stays_under_its_share_is_never_held_and_hardly_looked_at():
    machine = Machine(Share(0.2))
    machine.run(demand=0.18, seconds=60)
    assert machine.holds == []
    assert machine.looks < 70


def test_a_pause_is_not_saved_up():
    machine = Machine(Share(0.2))
    machine.run(demand=0.0, seconds=600)
    machine.used = 0.0
    machine.budget = begin(machine.share, machine.now, 0.0)
    machine.run(demand=1.0, seconds=10)
    assert machine.used < 2.2


def test_what_is_used_while_nobody_looks_is_not_held_against_it():
    """A supervisor that was stopped for a minute does not hold a service for five."""
    machine = Machine(Share(0.2))
    machine.run(demand=0.0, seconds=10)
    machine.now += 60
    machine.used += 60
    machine.budget = look(machine.share, machine.budget, machine.now, machine.used)
    before = machine.used
    machine.run(demand=1.0, seconds=20)
    assert machine.used - before >= 20 * 0.2 - LONGEST_LOOK_SECONDS


def test_a_counter_that_shrinks_or_time_that_stands_still_does_no_harm():
    budget = begin(Share(0.2), 10.0, 5.0)
    budget = look(Share(0.2), budget, 10.0, 4.0)
    assert not budget.is_held
    assert budget.due > 10.0


@given(
    processors=st.sampled_from([1, 2, 4]),
    part=st.floats(0.1, 0.9),
    phases=st.lists(st.tuples(st.floats(0, 1), st.floats(0.01, 20)), min_size=1, max_size=12),
    late=st.floats(0, 0.02),
)
def test_over_a_long_time_nobody_gets_more_than_the_share(processors, part, phases, late):
    """Beyond it is only what is used until the first look that finds it, whatever the pattern."""
    machine = Machine(Share(part * processors))
    for demand, seconds in phases:
        machine.run(demand * processors, seconds, late)
    seconds = machine.now - 1000.0
    most = machine.share.rate * seconds + processors * (LONGEST_LOOK_SECONDS + late) + machine.share.capacity
    assert machine.used <= most + 1e-6


@given(
    rate=st.floats(0.001, 8),
    looks=st.lists(st.tuples(st.floats(0, 3), st.floats(0, 3)), max_size=50),
)
def test_no_hold_is_long_and_no_look_far_away(rate, looks):
    share = Share(rate)
    budget = begin(share, 0.0, 0.0)
    now = used = 0.0
    for seconds, grown in looks:
        now, used = now + seconds, used + grown
        budget = look(share, budget, now, used)
        assert now <= budget.due <= now + LONGEST_LOOK_SECONDS + 1e-9
        assert budget.due >= now + SHORTEST_LOOK_SECONDS / 2 - 1e-9
        if budget.held_since is not None:
            assert budget.due - budget.held_since <= LONGEST_HOLD_SECONDS + 1e-9
        assert -MOST_DEBT_SECONDS * rate - 1e-9 <= budget.left <= share.capacity + 1e-9


def test_a_late_look_within_reason_counts_in_full():
    budget = begin(Share(0.2), 0.0, 0.0)
    now = budget.due + LATE_SECONDS / 2
    assert look(Share(0.2), budget, now, now).is_held


@pytest.mark.parametrize(
    ("percent", "states", "rate"),
    [
        (20.0, UNENFORCED, 0.2),
        (20.0, {"cpu_max": LimitState("20000 100000", enforced=True)}, None),
        (20.0, {}, None),
        ("max", UNENFORCED, None),
        (None, UNENFORCED, None),
    ],
)
def test_a_share_is_kept_where_there_is_a_limit_and_the_kernel_does_not_keep_it(percent, states, rate):
    found = share_to_keep(ResourceLimits(cpu_percent=percent), states)
    assert (None if found is None else found.rate) == rate
