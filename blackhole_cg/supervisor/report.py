"""Makes a ServiceInfo of what is known about a service."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final, Protocol

from blackhole_cg.core.facts import LimitState, ServiceInfo
from blackhole_cg.core.ports import PORT_MARK, with_port
from blackhole_cg.core.record import RunRecord
from blackhole_cg.core.rules import builtin_rules
from blackhole_cg.core.words import AUTO, State
from blackhole_cg.runner.clock import Clock, wall_text
from blackhole_cg.runner.host import Sockets
from blackhole_cg.runner.service import ServiceRunner
from blackhole_cg.supervisor.throttling import say_throttled

_UNKNOWN_USAGE: Final[Mapping[str, float | int | None]] = {
    "cpu_percent": None,
    "memory_bytes": None,
    "pids": None,
    "cpu_seconds": None,
}


class Counters(Protocol):
    """What is counted of a service's output."""

    @property
    def lines_total(self) -> int:
        """Lines taken in."""

    @property
    def dropped_total(self) -> int:
        """Lines of these that could not be stored."""


class Reporter:
    """Answers questions about services; remembers the last CPU reading of each to tell a rate."""

    def __init__(
        self,
        clock: Clock,
        counters: Mapping[str, Counters],
        adopted: Mapping[str, RunRecord],
        sockets: Sockets,
        is_held_back: Callable[[str], bool] = lambda name: False,
    ) -> None:
        self._clock = clock
        self._counters = counters
        self._adopted = adopted
        self._sockets = sockets
        self._is_held_back = is_held_back
        self._cpu_readings: dict[str, tuple[int, float, float]] = {}  # name -> run_id, now, cpu_seconds

    def info(self, runner: ServiceRunner, measured: bool = True) -> ServiceInfo:
        """Everything there is to tell about a service now; what it uses only if that is `measured`."""
        status, spec, run = runner.status, runner.spec, runner.run
        now = self._clock.now()
        taken_over = self._adopted_run(runner)
        running = status.state in (State.RUNNING, State.STOPPING) and status.started_at is not None
        return ServiceInfo(
            name=spec.name,
            state=status.state,
            desired=status.desired,
            health=status.health,
            enabled=spec.enabled,
            pid=status.pid,
            run_id=status.run_id,
            restarts=status.restarts,
            uptime_seconds=_seconds(now - status.started_at) if running and status.started_at else None,
            started_wall=wall_text(runner.started_wall) if running and runner.started_wall else None,
            cgroup=run.cgroup if run else None,
            adopted=taken_over is not None,
            outdated=self._is_outdated(runner, taken_over),
            tcp_port=runner.port,
            unix_socket=spec.unix_socket,
            sockets=self._held(runner),
            instance_of=spec.instance_of,
            limits=self._limits(runner),
            usage=self._usage(runner, now) if measured else _UNKNOWN_USAGE,
            last_exit=_last_exit(runner),
            last_error=status.last_error,
            status_text=runner.notify_watch.status_text,
            logs=self._logs(spec.name),
            next_restart_in_seconds=_seconds(max(0.0, status.restart_at - now))
            if status.restart_at
            else None,
        )

    def _adopted_run(self, runner: ServiceRunner) -> RunRecord | None:
        """The record of the live run, where it was begun by an earlier supervisor."""
        record = self._adopted.get(runner.name)
        same = record is not None and runner.run is not None and record.run_id == runner.status.run_id
        return record if same else None

    def _is_outdated(self, runner: ServiceRunner, taken_over: RunRecord | None) -> bool:
        """Whether its run, or the next one, is not by the configuration that is wanted."""
        is_other = taken_over is not None and taken_over.config_hash != runner.spec.config_hash
        return is_other or self._is_held_back(runner.name)

    def _held(self, runner: ServiceRunner) -> dict[str, dict[str, Any]]:
        held = self._sockets.names(runner.name)
        sockets = with_port(runner.spec, runner.tcp_port).sockets
        return {
            each.name: {
                "kind": str(each.kind),
                "address": each.address.replace(PORT_MARK, AUTO),  # as long as no port is assigned
                "held": each.name in held,
            }
            for each in sockets
        }

    def _limits(self, runner: ServiceRunner) -> Mapping[str, LimitState]:
        limits = runner.run.limits if runner.run else runner.last_limits
        if "cpu_max" in limits:
            limits = {**limits, "cpu_max": say_throttled(runner, limits["cpu_max"])}
        if not builtin_rules(runner.spec.limits, limits):
            return limits
        memory = limits["memory_max"]
        instead = f"{memory.reason}; the monitor restarts the service above it"
        return {**limits, "memory_max": replace(memory, reason=instead)}

    def _logs(self, name: str) -> dict[str, int]:
        counters = self._counters[name]
        return {"lines_total": counters.lines_total, "dropped_total": counters.dropped_total}

    def _usage(self, runner: ServiceRunner, now: float) -> Mapping[str, float | int | None]:
        """CPU percent is the mean since the reading before this one, or since the start of the run."""
        if runner.run is None or runner.status.started_at is None:
            return _UNKNOWN_USAGE
        usage = runner.run.usage()
        percent: float | None = None
        if usage.cpu_seconds is not None:
            run_id = runner.status.run_id
            before = self._cpu_readings.get(runner.name)
            if before is None or before[0] != run_id:
                before = (run_id, runner.status.started_at, 0.0)
            if now > before[1]:
                percent = round(100.0 * max(0.0, usage.cpu_seconds - before[2]) / (now - before[1]), 2)
            self._cpu_readings[runner.name] = (run_id, now, usage.cpu_seconds)
        return {
            "cpu_percent": percent,
            "memory_bytes": usage.memory_bytes,
            "pids": usage.pids,
            "cpu_seconds": usage.cpu_seconds,
        }


def _last_exit(runner: ServiceRunner) -> dict[str, Any] | None:
    last = runner.status.last_exit
    if last is None:
        return None
    return {
        "run_id": last.run_id,
        "code": last.status.code,
        "signal": last.status.signal,
        "reason": str(last.reason),
        "at_wall": wall_text(runner.last_exit_wall) if runner.last_exit_wall else None,
    }


def _seconds(value: float) -> float:
    return round(value, 3)
