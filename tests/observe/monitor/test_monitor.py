"""The monitor in virtual time over cgroups made of files: turns, breaches, and no false ones."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from blackhole_cg.core.monitor_spec import Bound, Metric, MonitorSpec, RuleSpec
from blackhole_cg.core.rules import Breach, Capacity
from blackhole_cg.core.samples import Sample
from blackhole_cg.observe.monitor.monitor import BATCH, LEAST_SECONDS, ResourceMonitor
from blackhole_cg.observe.monitor.run_reader import Target
from tests.observe.monitor.cgroup_files import make_cgroup
from tests.support.virtual_loop import run_virtual

MIB = 2**20
LIMIT = 100 * MIB
PERCENT = RuleSpec(
    "full", Metric.MEMORY_PERCENT, Bound(90), for_seconds=30, cooldown_seconds=60, grace_seconds=0
)


def spec(*rules: RuleSpec, interval_seconds: float = 5.0) -> MonitorSpec:
    return MonitorSpec(interval_seconds, rules)


@dataclass
class FakeAlarm:
    """An alarm that a test rings."""

    ring: Callable[[], None]
    pressures: Mapping[str, float]
    rearmed: int = 0
    closed: bool = False

    def rearm(self) -> None:
        self.rearmed += 1

    def close(self) -> None:
        assert not self.closed
        self.closed = True


@dataclass
class Scene:
    """A monitor over cgroups in a directory, and all it said. `jump_seconds` is added to its clock."""

    base: Path
    samples: list[tuple[str, Sample]] = field(default_factory=list)
    breaches: list[tuple[str, Breach]] = field(default_factory=list)
    alarms: list[FakeAlarm] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)
    jump_seconds: float = 0.0

    def __post_init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.loop.set_exception_handler(lambda loop, context: self.errors.append(context["exception"]))
        self.monitor = ResourceMonitor(self.now, self.on_breach, self.on_sample, self)

    def now(self) -> float:
        return self.loop.time() + self.jump_seconds

    def on_sample(self, service: str, sample: Sample) -> None:
        self.samples.append((service, sample))

    def on_breach(self, service: str, breach: Breach) -> None:
        self.breaches.append((service, breach))

    def watch(self, cgroup: str, pressures: Mapping[str, float], ring: Callable[[], None]) -> FakeAlarm:
        alarm = FakeAlarm(ring, pressures)
        self.alarms.append(alarm)
        return alarm

    def begin(self, name: str, monitor: MonitorSpec, run_id: int = 1) -> Path:
        """A run in a cgroup that uses a tenth of its memory."""
        directory = make_cgroup(self.base / name)
        self.use(name, 10)
        capacity = Capacity(memory_limit_bytes=LIMIT)
        self.monitor.add(Target(name, run_id, self.now(), str(directory), capacity), monitor)
        return directory

    def use(self, name: str, percent: float) -> None:
        """Let the service use that much of its memory."""
        inactive = 20971520  # as make_cgroup says
        (self.base / name / "memory.current").write_text(f"{round(LIMIT * percent / 100) + inactive}\n")

    def times(self, name: str) -> list[float]:
        return [sample.taken_at for service, sample in self.samples if service == name]


@pytest.fixture
def scene(tmp_path) -> Callable[[Callable[[Scene], object]], None]:
    """Plays a coroutine function with a Scene in virtual time, and closes the monitor."""

    def play(act: Callable[[Scene], object]) -> None:
        async def main() -> None:
            made = Scene(tmp_path)
            descriptors = len(os.listdir("/proc/self/fd"))
            try:
                await act(made)
            finally:
                made.monitor.close()
            assert len(os.listdir("/proc/self/fd")) == descriptors
            assert made.errors == []
            assert all(alarm.closed for alarm in made.alarms)

        run_virtual(main())

    return play


def test_a_run_is_sampled_once_an_interval(scene):
    async def act(stage: Scene) -> None:
        stage.begin("web", spec())
        await asyncio.sleep(59)
        times = stage.times("web")
        assert len(times) == 12
        assert all(later - earlier == pytest.approx(5) for earlier, later in itertools.pairwise(times))
        assert stage.monitor.latest("web").memory_percent == pytest.approx(10)
        assert [point.at for point in stage.monitor.history("web").points()] == times

    scene(act)


def test_many_runs_take_turns(scene):
    async def act(stage: Scene) -> None:
        for number in range(200):
            stage.begin(f"s{number}", spec())
        await asyncio.sleep(4.9)
        stage.samples.clear()
        await asyncio.sleep(5)
        assert len({name for name, _ in stage.samples}) == 200
        ticks: dict[float, int] = {}
        for _, sample in stage.samples:
            ticks[sample.taken_at] = ticks.get(sample.taken_at, 0) + 1
        assert len(ticks) == 20
        assert max(ticks.values()) <= 12

    scene(act)


def test_the_breach_is_told_with_its_sentence(scene):
    async def act(stage: Scene) -> None:
        stage.begin("web", spec(PERCENT))
        await asyncio.sleep(10)
        stage.use("web", 93.1)
        await asyncio.sleep(34)
        assert stage.breaches == []
        await asyncio.sleep(2)
        ((name, breach),) = stage.breaches
        assert (name, str(breach)) == ("web", "memory_percent 93.1 above 90 for 30s")

    scene(act)


def test_what_is_done_about_a_breach_may_end_the_watch(scene):
    async def act(stage: Scene) -> None:
        quick = [
            RuleSpec(name, Metric.MEMORY_PERCENT, Bound(5), cooldown_seconds=0, grace_seconds=0)
            for name in ("one", "two")
        ]
        stage.begin("web", spec(*quick))
        monitor = stage.monitor
        monitor._on_breach = lambda name, breach: (
            stage.breaches.append((name, breach)),
            monitor.remove(name),
        )
        await asyncio.sleep(30)
        assert [breach.rule.name for _, breach in stage.breaches] == ["one"]
        assert monitor.latest("web") is None
        assert len(monitor.history("web").points()) == 1

    scene(act)


def test_an_error_in_one_callback_does_not_stop_the_others(scene):
    async def act(stage: Scene) -> None:
        def fail(name: str, sample: Sample) -> None:
            stage.on_sample(name, sample)
            if name == "bad":
                raise RuntimeError("on purpose")

        stage.monitor._on_sample = fail
        stage.begin("bad", spec())
        stage.begin("good", spec())
        await asyncio.sleep(19)
        assert len(stage.times("good")) == len(stage.times("bad")) == 4
        assert [str(error) for error in stage.errors] == ["on purpose"] * 4
        stage.errors.clear()

    scene(act)


def test_the_past_of_a_service_outlives_its_runs_until_it_is_forgotten(scene):
    async def act(stage: Scene) -> None:
        stage.begin("web", spec(PERCENT))
        await asyncio.sleep(10)
        stage.begin("web", spec(PERCENT), run_id=2)
        await asyncio.sleep(10)
        assert {sample.run_id for _, sample in stage.samples} == {1, 2}
        assert len(stage.monitor.history("web").points()) == 4
        stage.monitor.forget("web")
        assert stage.monitor.history("web").points() == []
        assert stage.monitor.latest("web") is None

    scene(act)


def test_a_cgroup_that_goes_away_and_one_that_never_was_are_just_not_sampled(scene, tmp_path):
    async def act(stage: Scene) -> None:
        stage.monitor.add(Target("ghost", 1, 0.0, str(tmp_path / "ghost")), spec(PERCENT))
        stage.monitor.add(Target("bare", 1, 0.0, None, list_pids=lambda: []), spec(PERCENT))
        await asyncio.sleep(20)
        assert stage.monitor.latest("ghost") is None
        assert stage.monitor.latest("bare").memory_percent is None
        assert stage.breaches == []

    scene(act)


# ---- alarms ----


def test_an_alarm_brings_the_next_sample_forward(scene):
    async def act(stage: Scene) -> None:
        pressure = RuleSpec("stalls", Metric.MEMORY_PRESSURE_PERCENT, Bound(40), grace_seconds=0)
        lower = RuleSpec("stalls a bit", Metric.MEMORY_PRESSURE_PERCENT, Bound(20), grace_seconds=0)
        stage.begin("web", spec(PERCENT, pressure, lower))
        (alarm,) = stage.alarms
        assert alarm.pressures == {"memory.pressure": 20}
        await asyncio.sleep(7)
        regular = stage.times("web")
        alarm.ring()
        await asyncio.sleep(0.1)
        assert len(stage.times("web")) == len(regular) + 1
        assert alarm.rearmed == len(regular) + 1
        for _ in range(100):
            alarm.ring()
        await asyncio.sleep(LEAST_SECONDS / 2)
        assert len(stage.times("web")) == len(regular) + 1, "not so soon again"
        await asyncio.sleep(LEAST_SECONDS)
        assert len(stage.times("web")) == len(regular) + 2

    scene(act)


def test_an_alarm_after_the_end_is_nothing(scene):
    async def act(stage: Scene) -> None:
        stage.begin("web", spec(PERCENT))
        stage.monitor.remove("web")
        stage.alarms[0].ring()
        await asyncio.sleep(20)
        assert stage.samples == []

    scene(act)


# ---- no false decision ----


def test_two_hundred_services_just_under_their_bounds(scene):
    """Values that flap under the bound, peaks too short to count, files that vanish, a clock that jumps."""
    dice = random.Random(4)
    rules = (
        PERCENT,
        RuleSpec("flaps", Metric.MEMORY_PERCENT, Bound(95), times=3, within_seconds=30, grace_seconds=0),
        RuleSpec("cpu", Metric.CPU_PERCENT, Bound(50), for_seconds=10, grace_seconds=0),
        RuleSpec("files", Metric.OPEN_FILES, Bound(10), grace_seconds=0),
    )

    async def act(stage: Scene) -> None:
        names = [f"s{number}" for number in range(200)]
        for name in names:
            stage.begin(name, spec(*rules))
        for number in range(8):
            for name in names:
                stage.use(name, dice.choice([89.9, 90.0, 10, 93]) if number % 2 else 89.9)
            broken = dice.sample(names, 20)
            for name in broken:
                file = dice.choice(["memory.current", "cpu.stat", "pids.current"])
                (stage.base / name / file).write_text("")
            if number in (3, 6):
                stage.jump_seconds += 3600
            await asyncio.sleep(25)  # a peak is over before the 30 s that count
            for name in names:
                stage.use(name, 80)
            for name in broken:
                make_cgroup(stage.base / name)
            await asyncio.sleep(6)
        assert stage.breaches == []
        assert len(stage.samples) > 200 * 45

    scene(act)


def test_a_clock_that_jumps_does_not_lead_to_a_burst(scene):
    async def act(stage: Scene) -> None:
        for number in range(2 * BATCH):
            stage.begin(f"s{number}", spec(PERCENT))
            stage.use(f"s{number}", 95)
        await asyncio.sleep(20)
        stage.samples.clear()
        stage.jump_seconds = 86400
        await asyncio.sleep(20)
        assert stage.breaches == []
        assert len(stage.samples) <= 2 * BATCH * 6
        await asyncio.sleep(20)
        assert len(stage.breaches) == 2 * BATCH, "what is really wrong is found afterwards"

    scene(act)
