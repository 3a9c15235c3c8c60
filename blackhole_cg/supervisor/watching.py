"""The ResourceMonitor over all services: which runs it watches, and what follows from a broken rule."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import replace

from blackhole_cg.core.events import Broken, StopRequested
from blackhole_cg.core.monitor_spec import Action, ActionKind, RuleSpec
from blackhole_cg.core.rules import Breach, Capacity, builtin_rules
from blackhole_cg.core.samples import Sample
from blackhole_cg.core.words import Reason, State
from blackhole_cg.errors import BlackholeError
from blackhole_cg.observe.bell import Bell
from blackhole_cg.observe.monitor.monitor import ResourceMonitor
from blackhole_cg.observe.monitor.run_reader import Target
from blackhole_cg.runner.host import Host
from blackhole_cg.runner.service import ServiceRunner
from blackhole_cg.supervisor.throttling import Throttling
from blackhole_cg.supervisor.weights import ChangedWeights

_log = logging.getLogger(__name__)


class Watching:
    """Keeps the monitor's list of runs equal to what runs, and carries out what rules say.

    Args:
        host: its size, its alarms.
        now: monotonic seconds.
        record: stores (service, detail) as an event of a rule.
    """

    def __init__(self, host: Host, now: Callable[[], float], record: Callable[[str, str], None]) -> None:
        self._host = host
        self._record = record
        self._runners: dict[str, ServiceRunner] = {}
        self._news = Bell()
        self._adjustments: set[asyncio.Task[None]] = set()
        self._throttling = Throttling(now, record)
        self._weights = ChangedWeights(self._begin_adjusting, record)
        self.monitor = ResourceMonitor(now, self._on_breach, self._on_sample, host.alarms, self._on_recovery)

    def note(self, runner: ServiceRunner) -> None:
        """Take in a service's new status: watch a run from when it is up until it is to end."""
        watched = runner.name in self._runners
        if runner.status.state is State.RUNNING and not watched:
            self._add(runner)
        elif runner.status.state is not State.RUNNING and watched:
            del self._runners[runner.name]
            self._throttling.remove(runner.name)
            self._weights.forget(runner.name)
            self.monitor.remove(runner.name)

    def reconfigure(self, runners: Iterable[ServiceRunner]) -> None:
        """Go by the present configuration of these services."""
        for runner in runners:
            if runner.name in self._runners:
                self._weights.reconfigure(runner)
                self._add(runner)

    def forget(self, name: str) -> None:
        """There is no such service any more."""
        self._runners.pop(name, None)
        self._throttling.remove(name)
        self._weights.forget(name)
        self.monitor.forget(name)

    async def follow(self, names: Iterable[str] | None = None) -> AsyncIterator[tuple[str, Sample]]:
        """The newest sample of each of these services, and then each as it is taken.

        None: of whatever services there are at the time. Whoever is slow misses samples, not the newest.
        """
        wanted, seen = None if names is None else list(names), dict[str, Sample]()
        while True:
            for name in list(self._runners) if wanted is None else wanted:
                sample = self.monitor.latest(name)
                if sample is not None and sample is not seen.get(name):
                    seen[name] = sample
                    yield name, sample
            if self._news.closed:
                return
            await self._news.wait()

    def close(self) -> None:
        """Watch nothing any more."""
        self._news.close()
        self._throttling.close()
        self.monitor.close()
        for task in self._adjustments:
            task.cancel()

    def _add(self, runner: ServiceRunner) -> None:
        run, status, spec = runner.run, runner.status, runner.spec
        if run is None or status.started_at is None:
            return
        self._runners[runner.name] = runner
        self._throttling.add(runner)
        facts = self._host.facts
        target = Target(
            spec.name,
            status.run_id,
            status.started_at,
            None if run.cgroup is None else f"{facts.cgroup_mount}{run.cgroup}",
            Capacity.of(spec.limits, facts.cpus, facts.memory_bytes),
            run.processes,
        )
        rules = (*spec.monitor.rules, *builtin_rules(spec.limits, run.limits))
        self.monitor.add(target, replace(spec.monitor, rules=rules))

    def _on_sample(self, name: str, sample: Sample) -> None:
        self._news.ring()

    def _on_breach(self, name: str, breach: Breach) -> None:
        runner = self._runners.get(name)
        if runner is None or runner.status.run_id != breach.run_id:
            return
        action = breach.rule.action
        detail = f"{breach.rule.name}: {breach}"
        _log.warning("%s: rule %s; action: %s", name, detail, action.kind, extra={"service": name})
        self._record(name, f"{detail}; action: {action.kind}")
        match action.kind:
            case ActionKind.RESTART:
                runner.post(Broken(breach.run_id, Reason.RULE, f"rule {detail}"))
            case ActionKind.STOP:
                runner.post(StopRequested(Reason.RULE, f"rule {detail}"))
            case ActionKind.SIGNAL if runner.run is not None and action.signal is not None:
                runner.run.signal(action.signal)
            case ActionKind.FREEZE | ActionKind.RECLAIM:
                self._begin_adjusting(runner, action)
            case ActionKind.WEIGHT:
                self._weights.change(runner, breach.rule)

    def _on_recovery(self, name: str, rule: RuleSpec, sample: Sample) -> None:
        runner = self._runners.get(name)
        if runner is not None and runner.status.run_id == sample.run_id:
            self._weights.take_back(runner, rule, sample)

    def _begin_adjusting(self, runner: ServiceRunner, action: Action) -> None:
        task = asyncio.get_running_loop().create_task(self._adjust(runner, action))
        self._adjustments.add(task)
        task.add_done_callback(self._adjustments.discard)

    async def _adjust(self, runner: ServiceRunner, action: Action) -> None:
        if runner.run is None:
            return
        try:
            await runner.run.adjust(action)
        except BlackholeError as error:
            _log.error("%s: %s", runner.name, error, extra={"service": runner.name})
            self._record(runner.name, f"the action {action.kind} failed: {error}")
