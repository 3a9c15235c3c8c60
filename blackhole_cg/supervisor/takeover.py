"""Carrying on where an earlier supervisor stopped without having ended its services."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from blackhole_cg.core.events import NeverBegan, RunEnded
from blackhole_cg.core.facts import ExitStatus
from blackhole_cg.core.ports import with_port
from blackhole_cg.core.record import Memory, RunRecord
from blackhole_cg.core.status import ServiceStatus
from blackhole_cg.core.words import LIVE_STATES, State
from blackhole_cg.errors import CgroupError
from blackhole_cg.runner.clock import Clock
from blackhole_cg.runner.host import Host, Run
from blackhole_cg.runner.service import ServiceRunner

_log = logging.getLogger(__name__)


async def take_over(
    runners: Mapping[str, ServiceRunner], host: Host, memory: Memory, clock: Clock
) -> dict[str, RunRecord]:
    """Give every service the status it had, and every live run back to its runner; the runs taken over.

    What an earlier boot left is gone with it. A run that ended while nobody watched has ended in
    an unknown way, and its policy decides; what it left in its cgroup is killed first.
    """
    adopted: dict[str, RunRecord] = {}
    if memory.boot_id != host.facts.boot_id:
        return adopted
    for name in memory.runs.keys() - runners.keys():
        await _clear(host, name, "it is not configured any more")
    for name, runner in runners.items():
        status = memory.statuses.get(name)
        if status is None:
            await _clear(host, name, "no supervisor remembers it")
            continue
        record = memory.runs.get(name)
        run = host.adopt(with_port(runner.spec, runner.tcp_port), record) if record else None
        if run is not None and record is not None:
            _adopt(runner, run, record, status, clock)
            adopted[name] = record
            continue
        await _clear(host, name, "its main process is gone")
        # Only now: what was killed empties its mark no more. A run is stored before it may begin.
        _resume(runner, status, never_began=record is None or host.is_held(name))
    return adopted


def _adopt(runner: ServiceRunner, run: Run, record: RunRecord, status: ServiceStatus, clock: Clock) -> None:
    stopped = replace(status, state=State.STOPPED, run_id=record.run_id, pid=None)
    runner.continue_from(stopped)
    runner.run_hash = record.config_hash
    started_at = status.started_at if status.started_at is not None else clock.now()
    wall = datetime.fromisoformat(record.started_wall) if record.started_wall else None
    runner.tcp_port = runner.tcp_port or record.tcp_port
    runner.adopt(run, started_at, wall, record.watchdog_seconds)


def _resume(runner: ServiceRunner, status: ServiceStatus, *, never_began: bool) -> None:
    if status.state not in LIVE_STATES:
        runner.continue_from(status)
        runner.resume()
        return
    if status.state is State.STARTING and never_began:
        runner.continue_from(status)
        runner.post(NeverBegan(status.run_id))
        return
    # To the machine a run that never got past exec ended like any other.
    live = State.STOPPING if status.state is State.STOPPING else State.RUNNING
    runner.continue_from(replace(status, state=live))
    runner.post(RunEnded(status.run_id, ExitStatus()))


async def _clear(host: Host, name: str, why: str) -> None:
    try:
        pids = await host.clear(name)
    except CgroupError as error:
        _log.error("%s: %s", name, error, extra={"service": name})
        return
    if pids:
        killed = " ".join(map(str, pids))
        _log.warning("%s: %s, so what was in its cgroup was killed: %s", name, why, killed)
