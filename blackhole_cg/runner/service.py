"""One service: feeds its state machine, performs what the machine orders, and tells the supervisor.

The only caller of `step`, and the only place where its effects happen. Holds at most one live run.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from blackhole_cg.core.events import (
    Adopted,
    Announce,
    ArmTimer,
    BackoffElapsed,
    CheckDependencies,
    Effect,
    Event,
    HealthReported,
    KillRun,
    MainExited,
    RunEnded,
    SignalMain,
    SignalRest,
    Spawn,
    SpawnFailed,
    SpawnSucceeded,
    StartTimedOut,
    StopTimedOut,
    Timer,
)
from blackhole_cg.core.facts import LimitState
from blackhole_cg.core.handlers import Context
from blackhole_cg.core.machine import step
from blackhole_cg.core.ports import with_port
from blackhole_cg.core.spec import ServiceSpec
from blackhole_cg.core.status import ServiceStatus
from blackhole_cg.core.words import Health, State
from blackhole_cg.errors import BlackholeError, SpawnError, is_passing
from blackhole_cg.runner.clock import Clock
from blackhole_cg.runner.health import HealthWatch
from blackhole_cg.runner.host import Host, Run
from blackhole_cg.runner.listener import Listener, Output
from blackhole_cg.runner.notify import Hearers, NotifyWatch

_log = logging.getLogger(__name__)
T = TypeVar("T")

KILL_AGAIN_SECONDS = 1.0
"""A kill that was refused is tried again, for as long as it takes."""


@dataclass(slots=True)
class _Waiter:
    """Somebody who waits for a service to reach something."""

    decide: Callable[[ServiceStatus], object | None]
    future: asyncio.Future[object] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


_TIMER_EVENTS: dict[Timer, type[StartTimedOut | StopTimedOut | BackoffElapsed]] = {
    Timer.START: StartTimedOut,
    Timer.STOP: StopTimedOut,
    Timer.BACKOFF: BackoffElapsed,
}


class ServiceRunner:
    """Runs one service on a host.

    Args:
        spec: what to run.
        host: the seam to the kernel.
        clock: time and dice.
        output: where the service's output goes.
        listener: the composer of services.
    """

    def __init__(
        self, spec: ServiceSpec, host: Host, clock: Clock, output: Output, listener: Listener
    ) -> None:
        self.spec = spec
        self.status = ServiceStatus()
        self.run: Run | None = None
        self.run_hash = ""  # of the configuration that the run was started with
        self.started_wall: datetime | None = None
        self.last_exit_wall: datetime | None = None
        self.last_limits: Mapping[str, LimitState] = {}
        self.tcp_port: int | None = None  # of the run, or kept for the next one
        self._host = host
        self._clock = clock
        self._output = output
        self._listener = listener
        self._queue: deque[Event] = deque()
        self._draining = False
        self.health_watch = HealthWatch(host.commands, clock, self.post)
        self.notify_watch = NotifyWatch(clock, Hearers(self.post, self._extend, self._remember_run))
        self.extended_until = 0.0  # monotonic seconds: when the run asked to be given up at the earliest
        self._is_adopted = False
        self._changing_limits = asyncio.Lock()
        self._timers: dict[Timer, asyncio.TimerHandle] = {}
        self._deadlines: dict[Timer, float] = {}
        self._watch_task: asyncio.Task[None] | None = None
        self._waiters: list[_Waiter] = []

    @property
    def name(self) -> str:
        """The service's name."""
        return self.spec.name

    @property
    def port(self) -> int | None:
        """Where the service listens, or will as far as that is known."""
        written = self.spec.tcp_port
        return self.tcp_port or (written if isinstance(written, int) else None)

    def reconfigure(self, spec: ServiceSpec) -> None:
        """Go by another configuration from now on; a live run stays as it is."""
        before, self.spec = self.spec, spec
        if spec.probes != before.probes and self.status.state is State.RUNNING:
            self._watch_health()
            if not spec.probes:
                detail = "it has no probes any more"
                self.post(HealthReported(self.status.run_id, Health.UNKNOWN, detail))

    async def change_limits(self, force: bool = False) -> Sequence[str]:
        """Bring the limits of a live run to the configuration, or none of them; why not. See `Run`."""
        run = self._going_on()
        if run is None:
            return ()
        async with self._changing_limits:
            problems = await run.change_limits(self.spec, force)
        if self._going_on() is not run:
            return ()
        if self.last_limits != run.limits:
            self.last_limits = run.limits
            self._remember_run()
        return problems

    def continue_from(self, status: ServiceStatus) -> None:
        """Begin with what is remembered of an earlier supervisor. Call it before the first event."""
        self.status = status

    def adopt(
        self,
        run: Run,
        started_at: float,
        started_wall: datetime | None,
        watchdog_seconds: float | None = None,
    ) -> None:
        """Take over a live run, whose number is that of the status. Call it before the first event.

        Args:
            run: the run, as the host holds it.
            started_at: monotonic seconds.
            started_wall: the same for display.
            watchdog_seconds: how long the run may be silent.
        """
        self.run, self.last_limits = run, run.limits
        self._is_adopted = True
        run_id = self.status.run_id
        self.notify_watch.begin(watchdog_seconds)
        self.notify_watch.hear(run, run_id)
        self._output.begin_run(run_id)
        self.post(Adopted(run_id, run.pid, started_at))
        self.started_wall = started_wall
        self._start_watching(self._watch_exit(run, run_id), run_id)

    def resume(self) -> None:
        """Go on waiting, where the remembered status waits for something."""
        if self.status.state is State.WAITING:
            self._listener.check_dependencies(self)
        elif self.status.state is State.RESTARTING:
            rest_seconds = (self.status.restart_at or 0.0) - self._clock.now()
            self._arm(Timer.BACKOFF, max(0.0, rest_seconds), self.status.run_id)

    def detach(self) -> None:
        """Let go of the service and leave it running."""
        self._cancel_timers()
        self.health_watch.end()
        self.notify_watch.end()
        if self._watch_task is not None:
            self._watch_task.cancel()
        if self.run is not None:
            self.run.detach()

    def post(self, event: Event) -> None:
        """Feed one event to the machine; events that arise meanwhile are taken in order afterwards."""
        self._queue.append(event)
        if self._draining:
            return
        self._draining = True
        try:
            while self._queue:
                self._take(self._queue.popleft())
        finally:
            self._draining = False

    async def settle(self, decide: Callable[[ServiceStatus], T | None]) -> T:
        """Wait until `decide` answers anything but None of a status, and return its answer.

        Every status the service passes through is shown to `decide`, however short it lasts.
        """
        answer = decide(self.status)
        if answer is not None:
            return answer
        waiter = _Waiter(decide)
        self._waiters.append(waiter)
        try:
            return await waiter.future  # type: ignore[return-value]
        finally:
            self._waiters.remove(waiter)

    def _take(self, event: Event) -> None:
        before = self.status
        context = Context(self.spec, self._clock.now(), self._clock.jitter())
        self.status, effects = step(before, event, context)
        announcements = [effect for effect in effects if isinstance(effect, Announce)]
        for announcement in announcements:
            self._log_announcement(announcement)
        if self.status is not before:
            self._listener.record(self, announcements)
        for effect in effects:
            try:
                self._perform(effect)
            except (BlackholeError, OSError) as error:
                _log.error("%s: %s", self.name, error, extra={"service": self.name})
                if isinstance(effect, KillRun):  # nothing else would ever end the run
                    self._arm(Timer.STOP, KILL_AGAIN_SECONDS, self.status.run_id)
        if self.status is not before:
            self._note_change(before)

    def _note_change(self, before: ServiceStatus) -> None:
        if self.status.last_exit is not before.last_exit:
            self.last_exit_wall = self._clock.wall()
        if (self.status.state is State.RUNNING) != (before.state is State.RUNNING):
            self._begin_watching() if self.status.state is State.RUNNING else self._end_watching()
        for waiter in self._waiters:
            answer = None if waiter.future.done() else waiter.decide(self.status)
            if answer is not None:
                waiter.future.set_result(answer)
        self._listener.changed(self)

    def _begin_watching(self) -> None:
        self._watch_health()
        self.notify_watch.guard(self.status.run_id, at_once=not self._is_adopted)

    def _end_watching(self) -> None:
        self.health_watch.end()
        self.notify_watch.end()

    def _watch_health(self) -> None:
        was_healthy = self.status.health is Health.HEALTHY
        spec = with_port(self.spec, self.tcp_port)
        self.health_watch.begin(spec, self.status.run_id, has_started=was_healthy)

    def _perform(self, effect: Effect) -> None:
        match effect:
            case CheckDependencies():
                self._cancel_timers()
                self._listener.check_dependencies(self)
            case Spawn(run_id):
                self._spawn(run_id)
            case ArmTimer(timer, delay_seconds, run_id):
                self._arm(timer, delay_seconds, run_id)
            case SignalMain() if self.run is not None:
                self.run.signal(self.spec.stop.signal)
                self.run.thaw()
            case SignalRest() if self.run is not None:
                self.run.signal_rest(self.spec.stop.signal)
            case KillRun() if self.run is not None:
                self.run.kill()

    def _log_announcement(self, event: Announce) -> None:
        _log.info(
            "%s: %s%s -> %s (%s: %s, run %d)",
            self.name,
            "" if event.kind == "state" else f"{event.kind} ",
            event.before,
            event.after,
            event.reason,
            event.detail,
            event.run_id,
            extra={"service": self.name, "run_id": event.run_id, "reason": str(event.reason)},
        )

    def _spawn(self, run_id: int) -> None:
        self._output.begin_run(run_id)
        self._is_adopted, self.extended_until = False, 0.0
        self.notify_watch.begin(self.spec.watchdog_seconds)
        try:
            self.tcp_port = self._listener.assign_port(self)
            self.run = self._host.launch(with_port(self.spec, self.tcp_port), run_id)
        except (BlackholeError, OSError) as cause:
            text = str(cause) if isinstance(cause, SpawnError) else f"cannot start '{self.name}': {cause}"
            self.post(SpawnFailed(run_id, text, is_passing(cause)))
            return
        self.started_wall, self.run_hash = self._clock.wall(), self.spec.config_hash
        self._listener.run_began(self, self.run, run_id)
        self._start_watching(self._watch(self.run, run_id), run_id)

    def _start_watching(self, watch: Coroutine[Any, Any, None], run_id: int) -> None:
        task = asyncio.get_running_loop().create_task(watch, name=f"watch {self.name} run {run_id}")
        task.add_done_callback(_report_crash)
        self._watch_task = task

    async def _watch(self, run: Run, run_id: int) -> None:
        """Follow one run from fork to the removal of its cgroup, reporting each step to the machine."""
        try:
            await run.executed()
        except SpawnError as error:
            self._forget_run()
            self.post(SpawnFailed(run_id, str(error), is_passing(error)))
            return
        self.last_limits = run.limits
        self.post(SpawnSucceeded(run_id, run.pid))
        self.notify_watch.hear(run, run_id)
        await self._watch_exit(run, run_id)

    async def _watch_exit(self, run: Run, run_id: int) -> None:
        exit_status = await run.exited()
        if run.populated():
            self.post(MainExited(run_id, exit_status))
            await run.emptied()
        try:
            await run.close()
        except (BlackholeError, OSError) as error:  # a new run will be refused for as long as this lasts
            _log.error("%s: %s", self.name, error, extra={"service": self.name})
        self._cancel_timers()
        self._forget_run()
        self.post(RunEnded(run_id, exit_status))

    def _forget_run(self) -> None:
        self._output.end_run()
        self.run = None
        self._listener.run_ended(self)

    def _going_on(self) -> Run | None:
        """The live run, unless it is about to end."""
        return None if self.status.state is State.STOPPING else self.run

    def _remember_run(self) -> None:
        if self.run is not None:
            self._listener.run_began(self, self.run, self.status.run_id)

    def _arm(self, timer: Timer, delay_seconds: float, run_id: int) -> None:
        self._deadlines[timer] = self._clock.now() + delay_seconds
        self._set_timer(timer, self._deadlines[timer], run_id)

    def _set_timer(self, timer: Timer, deadline: float, run_id: int) -> None:
        self._cancel_timer(timer)
        loop = asyncio.get_running_loop()
        delay_seconds = max(0.0, deadline - self._clock.now())
        self._timers[timer] = loop.call_later(delay_seconds, self.post, _TIMER_EVENTS[timer](run_id))

    def _extend(self, seconds: float) -> None:
        """Let the start or stop under way take at least this long from now, and never less than it had.

        Source: sd_notify(3), EXTEND_TIMEOUT_USEC.
        """
        timer = {State.STARTING: Timer.START, State.STOPPING: Timer.STOP}.get(self.status.state)
        if timer is None or timer not in self._timers:
            return
        until = self._clock.now() + seconds
        if timer is Timer.START:
            self.extended_until = until
        self._set_timer(timer, max(self._deadlines[timer], until), self.status.run_id)

    def _cancel_timer(self, timer: Timer) -> None:
        if handle := self._timers.pop(timer, None):
            handle.cancel()

    def _cancel_timers(self) -> None:
        for timer in tuple(self._timers):
            self._cancel_timer(timer)


def _report_crash(task: asyncio.Task[None]) -> None:
    """A watcher must not die in silence: the service would look alive for ever."""
    if not task.cancelled() and (error := task.exception()):
        _log.critical("internal error in %s", task.get_name(), exc_info=error)
