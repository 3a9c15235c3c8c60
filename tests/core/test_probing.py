"""The probes of one run: thresholds, delays, health and death, against examples and a simple model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blackhole_cg.core.probe_spec import (
    NO_PROBES,
    Address,
    Answer,
    ProbeKind,
    ProbeSpec,
    ProbesSpec,
    TcpTarget,
)
from blackhole_cg.core.probing import (
    LATE_SECONDS,
    Ask,
    Died,
    HealthChanged,
    Order,
    ask_due,
    begin,
    next_due,
    take_answer,
)
from blackhole_cg.core.words import Health

TARGET = TcpTarget(Address(port=80))
STARTUP, READINESS, LIVENESS = ProbeKind
T0 = 1000.0


def probe(**fields: Any) -> ProbeSpec:
    return ProbeSpec(TARGET, **fields)


@dataclass
class Run:
    """A run whose probes take no time to answer; `services` says what each answers from now on."""

    spec: ProbesSpec
    answers: dict[ProbeKind, bool] = field(default_factory=lambda: dict.fromkeys(ProbeKind, True))
    spread: float = 0.0
    has_started: bool = False
    latency_seconds: float = 0.0
    asked: list[tuple[float, ProbeKind]] = field(default_factory=list)  # seconds since the beginning
    orders: list[tuple[float, Order]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.now = T0
        self.state = begin(self.spec, T0, self.spread, has_started=self.has_started)

    def until(self, seconds: float) -> Run:
        """Go on until this long after the beginning."""
        while (due := next_due(self.state)) is not None and due <= T0 + seconds:
            self.now = max(self.now, due)
            self.state, asked = ask_due(self.state, self.now)
            for order in asked:
                assert isinstance(order, Ask)
                self.asked.append((round(self.now - T0, 6), order.kind))
                self.now += self.latency_seconds
                self.answer(order.kind, self.answers[order.kind])
        self.now = max(self.now, T0 + seconds)
        return self

    def answer(self, kind: ProbeKind, ok: bool) -> None:
        answer = Answer(ok, "fine" if ok else "refused", self.latency_seconds)
        self.state, orders = take_answer(self.state, self.spec, kind, answer, self.now)
        self.orders += [(round(self.now - T0, 6), order) for order in orders]

    def asks(self, kind: ProbeKind) -> list[float]:
        return [at for at, asked in self.asked if asked is kind]

    def healths(self) -> list[tuple[float, Health]]:
        return [(at, order.health) for at, order in self.orders if isinstance(order, HealthChanged)]

    def deaths(self) -> list[tuple[float, Died]]:
        return [(at, order) for at, order in self.orders if isinstance(order, Died)]


def test_without_probes_nothing_is_asked_and_health_stays_unknown() -> None:
    run = Run(NO_PROBES).until(100)
    assert (run.asked, run.state.health) == ([], Health.UNKNOWN)


def test_readiness_decides_health_and_never_ends_a_run() -> None:
    run = Run(ProbesSpec(readiness=probe(period_seconds=2.0, initial_delay_seconds=1.0)))
    run.answers[READINESS] = False
    run.until(6)
    assert run.asks(READINESS) == [1, 3, 5]
    assert run.healths() == [(5, Health.UNHEALTHY)]
    assert run.orders[-1][1] == HealthChanged(
        Health.UNHEALTHY, "readiness probe failed 3 times in a row: refused"
    )
    run.answers[READINESS] = True
    run.until(8)
    assert run.healths()[1:] == [(7, Health.HEALTHY)]
    assert run.orders[-1][1] == HealthChanged(Health.HEALTHY, "fine")
    run.answers[READINESS] = False
    run.until(1000)
    assert run.state.health is Health.UNHEALTHY
    assert run.deaths() == []


def test_thresholds_count_answers_in_a_row() -> None:
    spec = ProbesSpec(readiness=probe(period_seconds=1.0, success_threshold=2, failure_threshold=2))
    run = Run(spec)
    for second, ok in enumerate([True, False, True, True, False, True, False, False]):
        run.answers[READINESS] = ok
        run.until(second)
    assert run.healths() == [(3, Health.HEALTHY), (7, Health.UNHEALTHY)]


def test_liveness_ends_the_run_and_everything_falls_silent() -> None:
    spec = ProbesSpec(
        readiness=probe(period_seconds=3.0), liveness=probe(period_seconds=1.0, grace_seconds=4.0)
    )
    run = Run(spec).until(4)
    run.answers[LIVENESS] = False
    run.until(100)
    message = "liveness probe failed 3 times in a row: refused"
    assert run.deaths() == [(7, Died(LIVENESS, message, 4.0))]
    assert run.healths() == [(0, Health.HEALTHY), (7, Health.UNHEALTHY)]
    assert max(at for at, _ in run.asked) == 7
    assert next_due(run.state) is None
    run.answer(READINESS, True)
    assert run.state.health is Health.UNHEALTHY


def test_two_failures_and_a_success_end_nothing() -> None:
    run = Run(ProbesSpec(liveness=probe(period_seconds=1.0)))
    for second in range(30):
        run.answers[LIVENESS] = second % 3 == 0
        run.until(second)
    assert run.deaths() == []
    assert run.healths() == [(0, Health.HEALTHY)]


def test_startup_is_alone_until_it_succeeds_and_delays_count_from_then() -> None:
    spec = ProbesSpec(
        startup=probe(period_seconds=1.0, failure_threshold=30),
        readiness=probe(initial_delay_seconds=2.0, period_seconds=5.0),
        liveness=probe(initial_delay_seconds=3.0, period_seconds=5.0),
    )
    run = Run(spec, spread=0.5)
    run.answers[STARTUP] = False
    run.until(4.5)
    assert run.asked == [(second, STARTUP) for second in range(5)]
    assert run.state.health is Health.UNKNOWN
    run.answers[STARTUP] = True
    run.until(20)
    assert run.asks(STARTUP) == [0, 1, 2, 3, 4, 5]
    assert run.asks(READINESS) == [7, 12, 17]
    assert run.asks(LIVENESS) == [10.5, 15.5]  # nobody waits for it: 3 s, and half a period
    assert run.healths() == [(7, Health.HEALTHY)]


def test_a_startup_probe_that_never_succeeds_ends_the_run() -> None:
    run = Run(ProbesSpec(startup=probe(period_seconds=1.0, failure_threshold=4, grace_seconds=0.0)))
    run.answers[STARTUP] = False
    run.until(60)
    message = "startup probe failed 4 times in a row: refused"
    assert run.deaths() == [(3, Died(STARTUP, message, 0.0))]


def test_startup_alone_decides_health() -> None:
    assert Run(ProbesSpec(startup=probe())).until(60).healths() == [(0, Health.HEALTHY)]


@pytest.mark.parametrize("latency_seconds", [0.0, 3.0])
def test_a_start_is_bounded_in_time_however_long_an_answer_takes(latency_seconds: float) -> None:
    startup = probe(
        period_seconds=0.5, timeout_seconds=3.0, failure_threshold="max", give_up_after_seconds=10.0
    )
    run = Run(ProbesSpec(startup=startup), latency_seconds=latency_seconds)
    run.answers[STARTUP] = False
    run.until(60)
    [(at, death)] = run.deaths()
    assert 10 <= at <= 13
    assert death.message.startswith("startup probe failed ")


def test_a_question_longer_than_the_period_is_followed_at_once() -> None:
    run = Run(ProbesSpec(liveness=probe(period_seconds=1.0, timeout_seconds=5.0)), latency_seconds=2.5)
    run.until(10)
    assert run.asks(LIVENESS) == [0, 2.5, 5, 7.5, 10]


def test_one_question_at_a_time() -> None:
    spec = ProbesSpec(liveness=probe(period_seconds=1.0))
    state, orders = ask_due(begin(spec, T0, 0.0), T0)
    assert orders == (Ask(LIVENESS),)
    assert next_due(state) is None
    assert ask_due(state, T0 + 50) == (state, ())


def test_a_run_taken_over_has_started_and_its_probes_are_spread() -> None:
    spec = ProbesSpec(
        startup=probe(), readiness=probe(period_seconds=8.0), liveness=probe(period_seconds=4.0)
    )
    run = Run(spec, spread=0.25, has_started=True)
    assert run.state.health is Health.UNKNOWN
    run.until(3)
    assert run.asked == [(1, LIVENESS), (2, READINESS)]
    assert run.healths() == [(2, Health.HEALTHY)]
    assert Run(ProbesSpec(startup=probe()), has_started=True).state.health is Health.HEALTHY


def test_a_run_taken_over_is_not_called_healthy_for_having_started_once() -> None:
    run = Run(ProbesSpec(startup=probe(), liveness=probe(period_seconds=1.0)), has_started=True)
    run.answers[LIVENESS] = False
    run.until(1)
    assert (run.state.health, run.orders) == (Health.UNKNOWN, [])
    run.until(2)
    assert [type(order) for _, order in run.orders] == [HealthChanged, Died]


# ---- a process that was held up ----


def asked(spec: ProbesSpec) -> Run:
    """A run that has just been asked its first question."""
    run = Run(spec)
    run.state, _ = ask_due(run.state, run.now)
    return run


def test_a_failure_across_a_gap_is_asked_again_at_once() -> None:
    run = asked(ProbesSpec(liveness=probe(failure_threshold=1)))
    run.now += 1.0 + LATE_SECONDS + 60
    run.answer(LIVENESS, False)
    assert run.orders == []
    assert next_due(run.state) == run.now
    run.until(61 + LATE_SECONDS)
    assert run.healths() == [(61 + LATE_SECONDS, Health.HEALTHY)]


def test_a_success_across_a_gap_is_a_success() -> None:
    run = asked(ProbesSpec(liveness=probe()))
    run.now += 600
    run.answer(LIVENESS, True)
    assert run.healths() == [(600, Health.HEALTHY)]


def test_on_a_host_that_is_always_late_every_second_failure_counts() -> None:
    run = Run(ProbesSpec(liveness=probe(period_seconds=1.0)), latency_seconds=10.0)
    run.answers[LIVENESS] = False
    run.until(100)
    assert [at for at, _ in run.deaths()] == [60]


@pytest.mark.parametrize("while_asking", [False, True])
def test_the_time_that_was_slept_through_is_not_taken_from_a_start(while_asking: bool) -> None:
    startup = probe(period_seconds=1.0, failure_threshold="max", give_up_after_seconds=10.0)
    run = Run(ProbesSpec(startup=startup))
    run.answers[STARTUP] = False
    run.until(3.5)
    if while_asking:
        run.state, _ = ask_due(run.state, T0 + 4)
        run.now = T0 + 4 + 3600
        run.answer(STARTUP, False)
    else:
        run.now = T0 + 3604
    run.until(3700)
    [(at, _)] = run.deaths()
    assert 3608 <= at <= 3612


# ---- against a model ----


@dataclass
class Model:
    """Kubernetes' rules for probes whose answers take no time, second by second, without any cleverness."""

    spec: ProbesSpec
    health: Health = Health.UNKNOWN
    died_at: int | None = None
    started_at: int | None = None
    answers: dict[ProbeKind, list[bool]] = field(default_factory=lambda: {kind: [] for kind in ProbeKind})

    def tick(self, second: int, good: dict[ProbeKind, bool]) -> None:
        if self.spec.startup is None and self.started_at is None:
            self.started_at = 0
        if self.started_at is None:
            self.ask(STARTUP, second, good)
        elif self.died_at is None:
            for kind in (READINESS, LIVENESS):
                self.ask(kind, second - self.started_at, good)
        if self.died_at is not None:
            return
        if self.tail(STARTUP, True, 1) and self.started_at is None:
            self.started_at = second
            self.tick(second, good)  # what has no delay is asked in this same second
            return
        for kind in (STARTUP, LIVENESS):
            if self.tail(kind, False, self.threshold(kind)):
                self.died_at, self.health = second, Health.UNHEALTHY
                return
        self.note_health()

    def ask(self, kind: ProbeKind, seconds: int, good: dict[ProbeKind, bool]) -> None:
        own = self.spec.get(kind)
        if own is None or self.died_at is not None:
            return
        since = seconds - int(own.initial_delay_seconds)
        if since >= 0 and since % int(own.period_seconds) == 0:
            self.answers[kind].append(good[kind])

    def threshold(self, kind: ProbeKind) -> int:
        own = self.spec.get(kind)
        return int(own.failure_threshold) if own else 1

    def tail(self, kind: ProbeKind, ok: bool, length: int) -> bool:
        found = self.answers[kind][-length:]
        return len(found) == length and all(answer is ok for answer in found)

    def note_health(self) -> None:
        own = self.spec.readiness
        if own is None:
            key = STARTUP if self.spec.startup else LIVENESS
            if any(self.answers[key]):
                self.health = Health.HEALTHY
        elif self.tail(READINESS, True, own.success_threshold):
            self.health = Health.HEALTHY
        elif self.tail(READINESS, False, self.threshold(READINESS)):
            self.health = Health.UNHEALTHY


_probes = st.builds(
    probe,
    initial_delay_seconds=st.integers(0, 3).map(float),
    period_seconds=st.integers(1, 3).map(float),
    failure_threshold=st.integers(1, 3),
)
_readiness = st.builds(
    probe,
    initial_delay_seconds=st.integers(0, 3).map(float),
    period_seconds=st.integers(1, 3).map(float),
    success_threshold=st.integers(1, 3),
    failure_threshold=st.integers(1, 3),
)
_specs = st.builds(ProbesSpec, st.none() | _probes, st.none() | _readiness, st.none() | _probes)
_seconds = st.lists(st.fixed_dictionaries({kind: st.booleans() for kind in ProbeKind}), max_size=40)


@given(_specs, _seconds)
def test_it_does_what_the_model_does(spec: ProbesSpec, seconds: list[dict[ProbeKind, bool]]) -> None:
    run, model = Run(spec), Model(spec)
    for second, good in enumerate(seconds):
        run.answers = good
        run.until(second)
        model.tick(second, good)
        assert run.state.health is model.health, second
    assert [at for at, _ in run.deaths()] == ([] if model.died_at is None else [model.died_at])
    for kind in ProbeKind:
        assert len(run.asks(kind)) == len(model.answers[kind])


_events = st.lists(st.tuples(st.floats(0, 500), st.sampled_from(ProbeKind), st.booleans()), max_size=60)


@given(_specs, _events, st.floats(0, 1), st.booleans())
def test_whatever_happens_when(
    spec: ProbesSpec, events: list[tuple[float, ProbeKind, bool]], spread: float, has_started: bool
) -> None:
    """Late, early and unasked answers, and gaps of any length: the order of things stays sound."""
    state, now = begin(spec, T0, spread, has_started=has_started), T0
    pending: set[ProbeKind] = set()
    deaths = 0
    for gap_seconds, kind, ok in events:
        now += gap_seconds
        state, asked = ask_due(state, now)
        kinds = {order.kind for order in asked if isinstance(order, Ask)}
        assert not kinds & pending
        pending |= kinds
        before = state
        state, orders = take_answer(state, spec, kind, Answer(ok, "x"), now)
        if kind not in pending:
            assert (state, orders) == (before, ())
        pending.discard(kind)
        assert [order.health for order in orders if isinstance(order, HealthChanged)] == (
            [state.health] if state.health is not before.health else []
        )
        died = [order for order in orders if isinstance(order, Died)]
        deaths += len(died)
        assert state.dead is bool(deaths) and deaths <= 1
        due = next_due(state)
        assert due is None or due >= now
        if state.dead:
            assert due is None
            pending.clear()
