"""Carrying on where an earlier supervisor stopped without having ended its services.

docs/adoption.md has every case, and what is decided of it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final, Protocol

from blackhole_cg.core.events import NeverBegan, RunEnded
from blackhole_cg.core.facts import ExitStatus
from blackhole_cg.core.ports import with_port
from blackhole_cg.core.record import Memory, RunRecord
from blackhole_cg.core.spec import ServiceSpec, StopPolicy
from blackhole_cg.core.status import ServiceStatus
from blackhole_cg.core.words import LIVE_STATES, Desired, State
from blackhole_cg.errors import CgroupError
from blackhole_cg.runner.clock import Clock
from blackhole_cg.runner.host import Host, Run
from blackhole_cg.runner.service import ServiceRunner

REMOVED_STOP_SECONDS: Final = StopPolicy().timeout_seconds
"""What a service gets to end by itself that is not configured any more: its own time is not known."""

_log = logging.getLogger(__name__)


class Outputs(Protocol):
    """Where services write to."""

    def rejoin(self, spec: ServiceSpec, run: Run) -> None:
        """See to it that what a run writes that was taken over is read, wherever it writes it."""

    def end_run(self, name: str) -> None:
        """Nothing of a service's last run is left: take what it has written, unfinished lines too."""

    def open_removed(self) -> None:
        """Read on what services write that are not configured any more, and what they have left."""

    def discard_removed(self) -> None:
        """Be done with these, once nothing of them runs any more, and remove their files."""


def adopt_runs(
    runners: Mapping[str, ServiceRunner], host: Host, memory: Memory, clock: Clock, outputs: Outputs
) -> dict[str, RunRecord]:
    """Give every live run back to its runner; the runs taken over. Cut short, it can be done again.

    What an earlier boot left is gone with it. Where nothing is remembered the kernel is asked who runs.
    """
    adopted: dict[str, RunRecord] = {}
    memory = _of_this_boot(memory, host)
    for name, runner in runners.items():
        status, record = memory.statuses.get(name), memory.runs.get(name)
        spec = with_port(runner.spec, runner.tcp_port)
        is_newer = status is not None and runner.status.run_id > status.run_id  # begun on a full disk
        is_lost = is_newer or (record is None and (status is None or status.state in LIVE_STATES))
        if is_lost and not host.is_held(name):
            record = host.identify(spec, runner.status.run_id or 1) or record
        run = host.adopt(spec, record) if record else None
        if run is not None and record is not None:
            outputs.rejoin(runner.spec, run)
            _adopt(runner, run, record, status or _wanted(record), clock)
            adopted[name] = record
    return adopted


async def settle_rest(
    runners: Mapping[str, ServiceRunner],
    host: Host,
    memory: Memory,
    outputs: Outputs,
    adopted: Container[str],
) -> set[str]:
    """Give all others the status they had, and end what of theirs still runs.

    A run that ended while nobody watched has ended in an unknown way, and its policy decides; what it left
    in its cgroup is killed first. Returned are the services in whose cgroups somebody runs whom nobody
    remembers.
    """
    memory = _of_this_boot(memory, host)
    for name, runner in runners.items():
        if name in memory.statuses and name not in adopted:
            await _clear(host, name, "its main process is gone")
            # Only now: what was killed empties its mark no more. A run is stored before it may begin.
            never_began = name not in memory.runs or host.is_held(name)
            status = memory.statuses[name]
            # A run that began on a full disk is not stored; its number is not given again all the same.
            status = replace(status, run_id=max(status.run_id, runner.status.run_id))
            if status.state in LIVE_STATES:
                outputs.end_run(name)
            _resume(runner, status, never_began=never_began)
    # Once the last process has it closed and nobody reads, what is in a FIFO is gone.
    outputs.open_removed()
    await asyncio.gather(*(_end_removed(host, name) for name in memory.runs.keys() - runners.keys()))
    outputs.discard_removed()
    live = {name for name, runner in runners.items() if name in adopted or name in memory.statuses}
    found = host.cgroups(known=live)
    for name, pids in found.items():
        await _leave_alone(host, name, pids, is_service=name in runners)
    return {name for name, pids in found.items() if pids and name in runners}


def _of_this_boot(memory: Memory, host: Host) -> Memory:
    return memory if memory.boot_id == host.facts.boot_id else Memory()


def release_sockets(runners: Mapping[str, ServiceRunner], host: Host, memory: Memory) -> None:
    """Close what an earlier supervisor held for services that are gone, or wanted down by now."""
    for name in host.sockets.services():
        runner = runners.get(name)
        if runner is not None:
            known = name in memory.statuses and memory.boot_id == host.facts.boot_id
            if runner.status.holds_sockets if known else runner.spec.enabled:
                continue
        host.sockets.release(name)


def _adopt(runner: ServiceRunner, run: Run, record: RunRecord, status: ServiceStatus, clock: Clock) -> None:
    stopped = replace(status, state=State.STOPPED, run_id=record.run_id, pid=None)
    runner.continue_from(stopped)
    runner.run_hash = record.config_hash
    wall = datetime.fromisoformat(record.started_wall) if record.started_wall else None
    age_seconds = (clock.wall() - wall).total_seconds() if wall else 0.0
    started_at = status.started_at if status.started_at is not None else clock.now() - max(0.0, age_seconds)
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


def _wanted(record: RunRecord) -> ServiceStatus:
    """Of a live run of which nothing is remembered: whoever started it wanted it up."""
    return ServiceStatus(desired=Desired.UP, run_id=record.run_id)


async def _leave_alone(host: Host, name: str, pids: Sequence[int], *, is_service: bool) -> None:
    """Nobody remembers what is in this cgroup: it is not ours to kill, nor to start anything beside."""
    shown = f"with processes {' '.join(map(str, pids))}" if pids else "without processes"
    if not is_service:
        _log.warning("the cgroup %s, %s, belongs to no service and is left alone", name, shown)
    elif pids:
        _log.error(
            "%s: its cgroup is there, %s, and which is its main process cannot be told"
            " (`blackhole-cg cgroups --kill %s` ends them)",
            name,
            shown,
            name,
            extra={"service": name},
        )
    else:
        await _clear(host, name, "")


async def _end_removed(host: Host, name: str) -> None:
    await _clear(host, name, "it is not configured any more", REMOVED_STOP_SECONDS)


async def _clear(host: Host, name: str, why: str, patience_seconds: float = 0.0) -> None:
    try:
        pids = await host.clear(name, patience_seconds)
    except CgroupError as error:
        _log.error("%s: %s", name, error, extra={"service": name})
        return
    if pids:
        ended, verb = " ".join(map(str, pids)), "ended" if patience_seconds else "killed"
        _log.warning("%s: %s, so what was in its cgroup was %s: %s", name, why, verb, ended)
