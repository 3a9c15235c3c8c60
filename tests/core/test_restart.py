from __future__ import annotations

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blackhole_cg.core.facts import ExitStatus
from blackhole_cg.core.restart import (
    NO_HISTORY,
    Done,
    GiveUp,
    RestartAfter,
    RestartHistory,
    RunEnd,
    backoff_delay_seconds,
    decide_restart,
)
from blackhole_cg.core.spec import RestartPolicy
from blackhole_cg.core.words import RestartWhen, ServiceType
from tests.support.builders import service

CRASH = RunEnd(ExitStatus(code=1), uptime_seconds=0.5)


def decide(policy: RestartPolicy, history=NO_HISTORY, end=CRASH, now=100.0, jitter=0.0, **fields):
    return decide_restart(service(restart=policy, **fields), history, end, now, jitter)


def test_delays_double_up_to_the_cap():
    policy = RestartPolicy(initial_delay_seconds=1, backoff_factor=2, max_delay_seconds=10)
    assert [backoff_delay_seconds(policy, n, 0.0) for n in range(6)] == [1, 2, 4, 8, 10, 10]


def test_a_huge_attempt_number_is_the_cap_and_no_overflow():
    assert backoff_delay_seconds(RestartPolicy(max_delay_seconds=60), 10**6, 0.0) == 60


@given(
    attempt=st.integers(0, 5000),
    jitter=st.floats(-1, 1),
    width=st.floats(0, 1),
    first=st.floats(0, 100),
    cap=st.floats(0, 1000),
    factor=st.floats(1, 10),
)
def test_a_delay_stays_within_the_jitter_around_its_base(attempt, jitter, width, first, cap, factor):
    policy = RestartPolicy(
        jitter=width, initial_delay_seconds=first, max_delay_seconds=cap, backoff_factor=factor
    )
    base = backoff_delay_seconds(policy, attempt, 0.0)
    assert 0 <= base <= cap
    delay = backoff_delay_seconds(policy, attempt, jitter)
    assert base * (1 - width) - 1e-9 <= delay <= base * (1 + width) + 1e-9


def test_gives_up_after_max_restarts_within_the_window():
    policy = RestartPolicy(max_restarts=3)
    history, delays, now = NO_HISTORY, [], 0.0
    while isinstance(decision := decide(policy, history, now=now), RestartAfter):
        delays.append(decision.delay_seconds)
        history, now = decision.history, now + decision.delay_seconds
    assert delays == [1, 2, 4]
    assert isinstance(decision, GiveUp)
    assert decision.detail == "exit 1; gave up after 3 restarts within 3600s"


def test_restarts_that_left_the_window_do_not_count():
    policy = RestartPolicy(max_restarts=2, window_seconds=100)
    history = RestartHistory((0.0, 50.0), attempt=2)
    assert isinstance(decide(policy, history, now=99.0), GiveUp)
    assert isinstance(decide(policy, history, now=100.0), RestartAfter)


def test_a_healthy_run_clears_delay_and_counter():
    policy = RestartPolicy(max_restarts=2, reset_after_seconds=60)
    history = RestartHistory((0.0, 1.0), attempt=2)
    decision = decide(policy, history, RunEnd(ExitStatus(code=1), uptime_seconds=60), now=70.0)
    assert isinstance(decision, RestartAfter)
    assert (decision.delay_seconds, decision.history) == (1, RestartHistory((70.0,), 1))


@pytest.mark.parametrize(
    ("when", "end", "kind"),
    [
        (RestartWhen.ALWAYS, RunEnd(ExitStatus(code=0), 1), RestartAfter),
        (RestartWhen.ON_FAILURE, RunEnd(ExitStatus(code=0), 1), Done),
        (RestartWhen.ON_FAILURE, RunEnd(ExitStatus(signal=signal.SIGTERM), 1), Done),
        (RestartWhen.ON_FAILURE, RunEnd(ExitStatus(signal=signal.SIGKILL), 1), RestartAfter),
        (RestartWhen.ON_FAILURE, RunEnd(ExitStatus(code=3), 1), RestartAfter),
        (RestartWhen.ON_FAILURE, RunEnd(ExitStatus(), 1), RestartAfter),
        (RestartWhen.ON_FAILURE, RunEnd(ExitStatus(code=0), 1, forced="no answer"), RestartAfter),
        (RestartWhen.ON_FAILURE, RunEnd(ExitStatus(signal=signal.SIGTERM, oom_killed=True), 1), RestartAfter),
        (RestartWhen.NEVER, RunEnd(ExitStatus(code=0), 1), Done),
        (RestartWhen.NEVER, RunEnd(ExitStatus(code=1), 1), GiveUp),
        (RestartWhen.NEVER, RunEnd(ExitStatus(), 0, error="cannot start"), GiveUp),
    ],
)
def test_what_each_policy_makes_of_each_exit(when, end, kind):
    assert isinstance(decide(RestartPolicy(when=when), end=end), kind)


def test_a_oneshot_that_succeeds_is_done_even_if_always_restarted():
    decision = decide(RestartPolicy(), end=RunEnd(ExitStatus(code=0), 1), type=ServiceType.ONESHOT)
    assert isinstance(decision, Done)


@given(st.lists(st.tuples(st.floats(0, 30), st.floats(0, 200)), max_size=60), st.integers(0, 6))
def test_no_window_ever_holds_more_than_max_restarts(runs, max_restarts):
    policy = RestartPolicy(max_restarts=max_restarts, window_seconds=100, reset_after_seconds=10**9)
    history, now, restarts = NO_HISTORY, 0.0, []
    for uptime, idle in runs:
        now += uptime
        decision = decide(policy, history, RunEnd(ExitStatus(code=1), uptime), now=now)
        if isinstance(decision, RestartAfter):
            restarts.append(now)
            history = decision.history
        else:
            now += idle
    for at in restarts:
        assert sum(at <= other < at + 100 for other in restarts) <= max_restarts
    assert len(history.restarted_at) <= max(max_restarts, 0)


def test_unlimited_restarts_keep_a_bounded_history():
    history = NO_HISTORY
    for n in range(1000):
        decision = decide(RestartPolicy(max_restarts="max"), history, now=float(n))
        assert isinstance(decision, RestartAfter)
        history = decision.history
    assert len(history.restarted_at) == 1
    assert history.attempt == 1000
