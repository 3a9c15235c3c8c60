"""The ResourceMonitor: samples every run in its turn, keeps the past, and tells of broken rules.

It decides nothing and touches no service: what a breach leads to is the business of whoever is told.
One timer serves all runs. Their turns are spread over the interval, a few of them together in one tick.
"""

from __future__ import annotations

import asyncio
import functools
import heapq
import itertools
import logging
import math
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from blackhole_cg.core.history import History
from blackhole_cg.core.monitor_spec import PRESSURE_METRICS, MonitorSpec, RuleSpec, Side
from blackhole_cg.core.rules import Breach, Rule, RuleState, compile_rules, evaluate, has_recovered
from blackhole_cg.core.samples import Reading, RunFacts, Sample, make_sample
from blackhole_cg.observe.monitor.process_samples import ProcessSample
from blackhole_cg.observe.monitor.run_reader import RunReader, Target

_log = logging.getLogger(__name__)

TICK_SECONDS: Final = 0.25
"""Turns are moved to whole ticks, so that the loop wakes four times a second and not for every service."""

BATCH: Final = 32
"""Samples in one turn of the loop, however many are due: after a long stop all are."""

LEAST_SECONDS: Final = 1.0
"""An alarm brings the next sample forward, but not closer to the last one than this."""

_GOLDEN: Final = (math.sqrt(5) - 1) / 2  # its multiples, modulo 1, fill an interval evenly at any count


class Alarm(Protocol):
    """The watch over one run's kernel events. It rings once, and again only after `rearm`."""

    def rearm(self) -> None:
        """Make it ready to ring again."""

    def close(self) -> None:
        """End the watch."""


class Alarms(Protocol):
    """What can tell at once that a sample is worth taking: `kernel.pressure.PressureAlarms`."""

    def watch(self, cgroup: str, pressures: Mapping[str, float], ring: Callable[[], None]) -> Alarm | None:
        """Ring when memory is short in the cgroup, or when tasks stall.

        `pressures` maps pressure files to the percentage of stalled time that counts. None: not possible.
        """


class _Past:
    """What outlives the runs of a service."""

    def __init__(self) -> None:
        self.history = History()
        self.specs: tuple[RuleSpec, ...] = ()
        self.states: list[RuleState] = []

    def prepare(self, specs: tuple[RuleSpec, ...]) -> None:
        """Begin anew with the rules, unless they are those of before."""
        if specs != self.specs:
            self.specs = specs
            self.states = [RuleState() for _ in specs]


class _Watched:
    """One run that is being watched."""

    def __init__(self, target: Target, rules: tuple[Rule, ...], past: _Past, interval_seconds: float) -> None:
        capacity = target.capacity
        self.service = target.service
        self.facts = RunFacts(target.run_id, target.started_at, capacity.memory_limit_bytes)
        self.reader = RunReader(target, {rule.spec.metric for rule in rules})
        self.rules = rules
        self.past = past
        self.interval_seconds = interval_seconds
        self.first_due = self.due = 0.0
        self.before: Reading | None = None
        self.latest: Sample | None = None
        self.alarm: Alarm | None = None
        self.is_open = True
        self.has_complained = False

    def next_due(self, now: float) -> float:
        """Its next turn; at a fixed phase of the interval, and never two close together."""
        turn = math.floor((now - self.first_due) / self.interval_seconds) + 1
        due = self.first_due + turn * self.interval_seconds
        return due if due - now >= self.interval_seconds / 2 else due + self.interval_seconds

    def judge(self, sample: Sample) -> tuple[list[Breach], list[RuleSpec]]:
        """The rules that this sample breaks, and those whose breach it ends."""
        breaches, recovered = [], []
        states = self.past.states
        for index, rule in enumerate(self.rules):
            before = states[index]
            states[index], breach = evaluate(rule, before, sample)
            if breach is not None:
                breaches.append(breach)
            if has_recovered(before, states[index]):
                recovered.append(rule.spec)
        return breaches, recovered

    def close(self) -> None:
        self.is_open = False
        self.reader.close()
        if self.alarm is not None:
            self.alarm.close()


class ResourceMonitor:
    """Watches the runs it is given, on the running event loop.

    `now` is monotonic seconds. `on_breach`, `on_sample` and `on_recovery`, which is told of breaches that are
    over, are called with the service's name and may call any method here.
    """

    def __init__(
        self,
        now: Callable[[], float],
        on_breach: Callable[[str, Breach], None],
        on_sample: Callable[[str, Sample], None] | None = None,
        alarms: Alarms | None = None,
        on_recovery: Callable[[str, RuleSpec, Sample], None] | None = None,
    ) -> None:
        self._now = now
        self._on_recovery = on_recovery
        self._on_breach = on_breach
        self._on_sample = on_sample
        self._alarms = alarms
        self._watched: dict[str, _Watched] = {}
        self._pasts: dict[str, _Past] = {}
        self._queue: list[tuple[float, int, _Watched]] = []
        self._order = itertools.count()
        self._phases = (number * _GOLDEN % 1 for number in itertools.count())
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = math.inf

    def add(self, target: Target, spec: MonitorSpec) -> None:
        """Watch a run from now on, instead of an earlier one of the same service."""
        self.remove(target.service)
        past = self._pasts.setdefault(target.service, _Past())
        rules = compile_rules(spec.rules, target.capacity, spec.interval_seconds)
        past.prepare(tuple(rule.spec for rule in rules))
        watched = _Watched(target, rules, past, spec.interval_seconds)
        tick = min(TICK_SECONDS, spec.interval_seconds)
        phase_seconds = next(self._phases) * spec.interval_seconds
        watched.first_due = math.ceil((self._now() + phase_seconds) / tick) * tick
        self._watched[target.service] = watched
        if self._alarms is not None and target.cgroup is not None:
            ring = functools.partial(self._ring, watched)
            watched.alarm = self._alarms.watch(target.cgroup, _pressures(rules), ring)
        self._push(watched, watched.first_due)
        self._arm()

    def remove(self, service: str) -> None:
        """End the watch over a service's run, if there is one. Its history stays."""
        watched = self._watched.pop(service, None)
        if watched is not None:
            watched.close()

    def forget(self, service: str) -> None:
        """Drop everything about a service."""
        self.remove(service)
        self._pasts.pop(service, None)

    def latest(self, service: str) -> Sample | None:
        """The last sample of the run that is being watched."""
        watched = self._watched.get(service)
        return None if watched is None else watched.latest

    def reading(self, service: str) -> Reading | None:
        """The counters behind that sample."""
        watched = self._watched.get(service)
        return None if watched is None else watched.before

    def history(self, service: str) -> History:
        """What was sampled so far, across runs; empty for an unknown service."""
        past = self._pasts.get(service)
        return History() if past is None else past.history

    def processes(self, service: str) -> list[ProcessSample]:
        """Every process of the service, asked for now; this is expensive."""
        watched = self._watched.get(service)
        return [] if watched is None else watched.reader.table(self._now())

    def close(self) -> None:
        """End every watch."""
        for service in list(self._watched):
            self.remove(service)
        self._queue.clear()
        self._arm()

    def _push(self, watched: _Watched, due: float) -> None:
        watched.due = due
        heapq.heappush(self._queue, (due, next(self._order), watched))

    def _next(self) -> tuple[float, _Watched] | None:
        """The next turn; entries of removed runs and of turns that were moved are dropped."""
        while self._queue:
            due, _, watched = self._queue[0]
            if watched.is_open and watched.due == due:
                return due, watched
            heapq.heappop(self._queue)
        return None

    def _arm(self) -> None:
        """See to it that the timer goes off at the next turn, or earlier."""
        turn = self._next()
        if self._timer is not None:
            if turn is not None and self._timer_due <= turn[0]:
                return
            self._timer.cancel()
            self._timer = None
        if turn is not None:
            self._timer_due = turn[0]
            delay_seconds = max(0.0, turn[0] - self._now())
            self._timer = asyncio.get_running_loop().call_later(delay_seconds, self._tick)

    def _tick(self) -> None:
        self._timer = None
        try:
            for _ in range(BATCH):
                turn = self._next()
                if turn is None or turn[0] > self._now():
                    break
                heapq.heappop(self._queue)
                self._sample(turn[1])
        finally:
            self._arm()

    def _ring(self, watched: _Watched) -> None:
        """Bring the next turn forward."""
        if not watched.is_open:
            return
        last = -math.inf if watched.before is None else watched.before.taken_at
        due = max(self._now(), last + LEAST_SECONDS)
        if due < watched.due:
            self._push(watched, due)
            self._arm()

    def _sample(self, watched: _Watched) -> None:
        now = self._now()
        self._push(watched, watched.next_due(now))
        reading = self._read(watched, now)
        if reading is None:
            return
        sample = make_sample(watched.facts, watched.before, reading)
        watched.before, watched.latest = reading, sample
        watched.past.history.append(sample)
        if watched.alarm is not None:
            watched.alarm.rearm()
        breaches, recovered = watched.judge(sample)
        if self._on_sample is not None:
            self._on_sample(watched.service, sample)
        if self._on_recovery is not None:
            for rule in recovered:
                self._on_recovery(watched.service, rule, sample)
        for breach in breaches:
            if watched.is_open:  # what is done about one breach may end the run
                self._on_breach(watched.service, breach)

    def _read(self, watched: _Watched, now: float) -> Reading | None:
        try:
            return watched.reader.read(now)
        except OSError as cause:
            if not watched.has_complained:
                watched.has_complained = True
                _log.warning("%s: cannot sample its use of resources: %s", watched.service, cause)
            return None


def _pressures(rules: tuple[Rule, ...]) -> dict[str, float]:
    """The lowest bound on each pressure file."""
    found: dict[str, float] = {}
    for rule in rules:
        file = PRESSURE_METRICS.get(rule.spec.metric)
        if file is not None and rule.spec.side is Side.ABOVE:
            found[file] = min(rule.bound, found.get(file, math.inf))
    return found
