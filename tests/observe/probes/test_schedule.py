"""The probes of a run on a loop whose time is virtual."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from blackhole_cg.core.probe_spec import (
    Address,
    Answer,
    ExecTarget,
    HttpTarget,
    ProbeSpec,
    ProbesSpec,
    Target,
    TcpTarget,
)
from blackhole_cg.core.probing import Died
from blackhole_cg.core.words import Health
from blackhole_cg.observe.probes.schedule import Outcome, Prober
from tests.support.virtual_loop import run_virtual

TCP, HTTP = TcpTarget(Address(port=1)), HttpTarget(Address(port=2))
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class VirtualClock:
    """The loop's time, on the first day of 2026 at midnight in its second 1000."""

    draw: float = -1.0

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def wall(self) -> datetime:
        return EPOCH + timedelta(seconds=self.now() - 1000)

    def jitter(self) -> float:
        return self.draw


@dataclass
class Service:
    """What is asked: answers well or not, after a while, or never."""

    is_well: bool = True
    seconds: float = 0.25
    asked: list[tuple[float, str]] = field(default_factory=list)
    told: list[tuple[float, Any]] = field(default_factory=list)
    cancelled: int = 0

    async def ask(self, target: Target, timeout_seconds: float) -> Answer:
        self.asked.append((self.elapsed(), target.type))
        try:
            await asyncio.sleep(min(self.seconds, timeout_seconds))
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        ok = self.is_well and self.seconds <= timeout_seconds
        return Answer(ok, "fine" if ok else "refused", min(self.seconds, timeout_seconds))

    def elapsed(self) -> float:
        return asyncio.get_running_loop().time() - 1000

    def prober(self, draw: float = -1.0, **probes: ProbeSpec) -> Prober:
        outcome = Outcome(
            lambda health, message: self.told.append((self.elapsed(), (health, message))),
            lambda died: self.told.append((self.elapsed(), died)),
        )
        return Prober("web", ProbesSpec(**probes), self.ask, VirtualClock(draw), outcome)


def run_for(seconds: float, prober: Callable[[], Prober]) -> Prober:
    """Start it, let time pass, close it."""

    async def scenario() -> Prober:
        made = prober()
        made.start()
        await asyncio.sleep(seconds)
        made.close()
        return made

    return run_virtual(scenario())


def test_questions_are_asked_in_their_periods_and_health_is_told_once() -> None:
    service = Service()
    prober = run_for(
        22, lambda: service.prober(readiness=ProbeSpec(TCP, period_seconds=5.0, initial_delay_seconds=1.0))
    )
    assert [at for at, _ in service.asked] == [1, 6, 11, 16, 21]
    assert service.told == [(1.25, (Health.HEALTHY, "fine"))]
    assert prober.health is Health.HEALTHY


def test_the_facts_of_each_probe() -> None:
    service = Service()

    async def scenario() -> None:
        exec_target = ExecTarget(("x",))
        prober = service.prober(
            draw=0.0,
            readiness=ProbeSpec(TCP, period_seconds=2.0),
            liveness=ProbeSpec(exec_target, period_seconds=100.0),
        )
        unknown = dict.fromkeys(("ok", "last_at_wall", "last_message", "latency_seconds"))
        assert [facts.to_json() for facts in prober.facts()] == [
            {"kind": "readiness", "type": "tcp", "failures": 0, **unknown},
            {"kind": "liveness", "type": "exec", "failures": 0, **unknown},
        ]
        prober.start()
        await asyncio.sleep(1)
        service.is_well = False
        await asyncio.sleep(4)
        readiness, liveness = prober.facts()
        assert readiness.to_json() == {
            "kind": "readiness",
            "type": "tcp",
            "ok": False,
            "failures": 2,
            "last_at_wall": "2026-01-01T00:00:04.250000Z",
            "last_message": "refused",
            "latency_seconds": 0.25,
        }
        assert liveness.ok is None
        assert prober.health is Health.HEALTHY  # two of three
        await asyncio.sleep(50)
        assert prober.facts()[1].failures == 1  # asked after half of its period, as the dice said
        assert prober.health is Health.UNHEALTHY
        prober.close()

    run_virtual(scenario())


def test_death_is_told_once_and_then_nothing_is_asked() -> None:
    service = Service(is_well=False)
    run_for(
        100,
        lambda: service.prober(
            readiness=ProbeSpec(TCP, period_seconds=100.0),
            liveness=ProbeSpec(HTTP, period_seconds=1.0, grace_seconds=7.0),
        ),
    )
    message = "liveness probe failed 3 times in a row: refused"
    assert [told for _, told in service.told] == [
        (Health.UNHEALTHY, message),
        Died(service.told[1][1].kind, message, 7.0),
    ]
    assert len(service.asked) == 4


def test_startup_comes_first() -> None:
    service = Service(is_well=False)

    async def scenario() -> None:
        prober = service.prober(
            startup=ProbeSpec(TCP, period_seconds=1.0, failure_threshold=30),
            readiness=ProbeSpec(HTTP, period_seconds=10.0),
        )
        prober.start()
        await asyncio.sleep(5.5)
        service.is_well = True
        await asyncio.sleep(2)
        prober.close()

    run_virtual(scenario())
    assert [kind for _, kind in service.asked] == ["tcp"] * 7 + ["http"]
    assert service.told == [(6.5, (Health.HEALTHY, "fine"))]


def test_close_cancels_what_is_asked_and_tells_nothing_more() -> None:
    service = Service(seconds=10.0)

    async def scenario() -> None:
        prober = service.prober(readiness=ProbeSpec(TCP, timeout_seconds=30.0))
        prober.start()
        await asyncio.sleep(1)
        prober.close()
        prober.close()
        await asyncio.sleep(1)
        assert len(asyncio.all_tasks()) == 1
        await asyncio.sleep(100)

    run_virtual(scenario())
    assert (len(service.asked), service.cancelled, service.told) == (1, 1, [])


def test_it_may_be_closed_by_whoever_is_told() -> None:
    """The runner does so: unhealthy and dead come together."""
    service = Service(is_well=False)

    async def scenario() -> None:
        outcome = Outcome(
            lambda health, message: (service.told.append((0.0, health)), prober.close())[0],
            lambda died: service.told.append((0.0, died)),
        )
        spec = ProbesSpec(liveness=ProbeSpec(TCP, failure_threshold=1))
        prober = Prober("web", spec, service.ask, VirtualClock(), outcome)
        prober.start()
        await asyncio.sleep(100)

    run_virtual(scenario())
    assert service.told == [(0.0, Health.UNHEALTHY)]
    assert len(service.asked) == 1


def test_a_run_taken_over_that_has_only_a_startup_probe_is_healthy_at_once() -> None:
    service = Service()

    async def scenario() -> None:
        prober = service.prober(startup=ProbeSpec(TCP))
        prober.start(has_started=True)
        await asyncio.sleep(100)
        prober.close()

    run_virtual(scenario())
    assert (service.asked, service.told) == ([], [(0.0, (Health.HEALTHY, "it had started before"))])


def test_a_bug_in_a_probe_is_a_failure_that_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(target: Target, timeout_seconds: float) -> Answer:
        raise RuntimeError("oops")

    async def scenario() -> None:
        spec = ProbesSpec(readiness=ProbeSpec(TCP, period_seconds=1.0))
        outcome = Outcome(lambda health, message: None, lambda died: None)
        prober = Prober("web", spec, broken, VirtualClock(), outcome)
        prober.start()
        await asyncio.sleep(2.5)
        assert prober.facts()[0].last_message == "internal error: RuntimeError('oops')"
        assert prober.health is Health.UNHEALTHY
        prober.close()

    run_virtual(scenario())
    assert "web: readiness probe: internal error" in caplog.text


def test_without_probes_nothing_happens() -> None:
    service = Service()
    prober = run_for(100, service.prober)
    assert (service.asked, service.told, prober.facts()) == ([], [], ())
