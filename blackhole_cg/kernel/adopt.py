"""Taking over a run that an earlier supervisor began, and clearing away what cannot be taken over."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from blackhole_cg.core.facts import LimitState
from blackhole_cg.core.record import RunRecord
from blackhole_cg.core.spec import ServiceSpec
from blackhole_cg.core.words import Isolation
from blackhole_cg.errors import CgroupError, SpawnError, is_passing
from blackhole_cg.kernel.cgroup import Cgroup
from blackhole_cg.kernel.enclosure import CgroupEnclosure, Enclosure
from blackhole_cg.kernel.identity import resolve_identity
from blackhole_cg.kernel.launch import Launcher
from blackhole_cg.kernel.notify_socket import NotifySocket
from blackhole_cg.kernel.process import MainProcess, is_child
from blackhole_cg.kernel.procfs import read_kernel_file
from blackhole_cg.kernel.run import Birth, LinuxRun
from blackhole_cg.kernel.scope import DEAD_STATES, ProcessScope, read_stat
from blackhole_cg.kernel.service_files import handed_config_file

PROC = Path("/proc")

log = logging.getLogger(__name__)


def adopt_run(launcher: Launcher, boot_id: str, spec: ServiceSpec, record: RunRecord) -> LinuxRun | None:
    """The run of the record, if its main process is still there: same boot, same pid, same start time.

    One that somebody has moved out of its cgroup is brought back; where that is refused it is killed, for it
    would run on beside the next one. A child of ours may have ended already. Needs a running event loop.

    Raises:
        OSError, CgroupError: it cannot be told just now, for want of descriptors say; nothing was done.
    """
    marks = launcher.marks
    if record.boot_id != boot_id or (marks is not None and marks.is_held(spec.name)):
        return None  # of another boot, or about to end by itself: it was not allowed to begin
    try:
        pidfd = os.pidfd_open(record.pid)
    except OSError as error:
        if is_passing(error):
            raise
        return None
    # Only now: what the pidfd holds is what the number means from here on, and its end is not missed.
    process = MainProcess.taken_over(record.pid, pidfd, launcher.children)
    try:
        is_alive = _is_same(record, pidfd)
        enclosure = None if is_alive is None else _find_enclosure(launcher, spec, record, is_alive=is_alive)
    except BaseException:
        process.release()
        raise
    if enclosure is None:
        if is_alive:
            process.signal(signal.SIGKILL)
        process.release()
        return None
    return LinuxRun(
        Birth(
            service=spec.name,
            process=process,
            enclosure=enclosure,
            started_ticks=record.started_ticks,
            limits=_restore_limits(launcher, spec, record, enclosure),
            config_file=handed_config_file(spec),
            write_config=partial(_write_config, launcher, spec),
            unmark=partial(marks.remove, spec.name) if marks else bool,
            changer=launcher.limit_changer(_cgroup_of(enclosure)),
            notify_socket=_renew_notify_socket(launcher, spec),
        )
    )


def identify_run(launcher: Launcher, boot_id: str, spec: ServiceSpec, run_id: int) -> RunRecord | None:
    """A record of the live run in a service's cgroup, from what the kernel shows; None without certainty.

    The preexec stage makes the main process the leader of a session, and its parent is outside the cgroup:
    the one process of which both holds, and whose environment does not name another service, is it.
    """
    cgroup = launcher.tree.existing(spec.name) if launcher.tree else None
    if cgroup is None or launcher.tree is None:
        return None
    try:
        pids = cgroup.processes()
    finally:
        cgroup.close()
    found = [
        process for pid in pids if (process := read_stat(PROC, pid)) and process.state not in DEAD_STATES
    ]
    leaders = [
        process
        for process in found
        if process.session == process.pid and process.parent not in pids and _may_be(spec.name, process.pid)
    ]
    if len(leaders) != 1:
        return None
    return RunRecord(
        service=spec.name,
        run_id=run_id,
        boot_id=boot_id,
        pid=leaders[0].pid,
        started_ticks=leaders[0].started_ticks,
        cgroup=launcher.tree.shown_path(spec.name),
        config_hash="",  # nobody knows what it was started with
        started_wall=_wall_time(leaders[0].started_ticks).isoformat(),
        tcp_port=_told_port(leaders[0].pid),
    )


async def clear_leftovers(launcher: Launcher, name: str, patience_seconds: float = 0.0) -> list[int]:
    """End whatever is in the cgroup of this name, and remove it; the pids that were in it.

    They are killed; with patience they are asked first, and killed if they are still there after that time.

    Raises:
        CgroupError: it cannot be removed.
    """
    cgroup = launcher.tree.existing(name) if launcher.tree else None
    if cgroup is None:
        return []
    try:
        pids = cgroup.processes()
        if pids and patience_seconds > 0:
            cgroup.signal_all(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(launcher.watch.until_empty(cgroup), patience_seconds)
        if cgroup.populated():
            cgroup.kill()
            await launcher.watch.until_empty(cgroup)
        await cgroup.remove()
        return pids
    finally:
        cgroup.close()


def _renew_notify_socket(launcher: Launcher, spec: ServiceSpec) -> NotifySocket | None:
    """The socket of the run, made once more under its name: the old one has gone with its supervisor."""
    try:
        return launcher.make_notify_socket(spec, resolve_identity(spec, launcher.abilities.identity))
    except SpawnError as error:  # the run goes on; it is only not heard
        log.error("%s is not heard: %s", spec.name, error.cause)
        return None


def _write_config(launcher: Launcher, spec: ServiceSpec) -> None:
    """As it is now: what the run began with is gone with the file. Raises SpawnError."""
    launcher.write_config(spec, resolve_identity(spec, launcher.abilities.identity))


def _restore_limits(
    launcher: Launcher, spec: ServiceSpec, record: RunRecord, enclosure: Enclosure
) -> Mapping[str, LimitState]:
    """The limits of the run, those of its cgroup written once more.

    They are gone where a controller was switched off above the cgroup and on again, which systemd does when a
    unit is stopped and started over live cgroups. Those that the configuration has other values for by now
    are changed afterwards, as in a reload; and no run ends because a limit cannot be had again.
    """
    cgroup = _cgroup_of(enclosure)
    if cgroup is None:
        return record.limits
    writer = replace(launcher.limit_writer, isolation=Isolation.BEST_EFFORT)
    try:
        return {**record.limits, **writer.restore(spec, cgroup, record.limits)}
    except SpawnError as error:
        log.error("%s: its limits were not written again: %s", spec.name, error.cause)
        return record.limits


def _cgroup_of(enclosure: Enclosure) -> Cgroup | None:
    return enclosure.cgroup if isinstance(enclosure, CgroupEnclosure) else None


def _is_same(record: RunRecord, pidfd: int) -> bool | None:
    """Whether the process of the record is alive; None when there is none, or none that can tell anything."""
    process = read_stat(PROC, record.pid)
    if process is None or process.started_ticks != record.started_ticks:
        return None
    if process.state not in DEAD_STATES:
        return True
    return False if is_child(pidfd) else None  # our zombie can still be asked how it ended


def _find_enclosure(
    launcher: Launcher, spec: ServiceSpec, record: RunRecord, *, is_alive: bool
) -> Enclosure | None:
    """What holds the run; None when its main process cannot be had back into its cgroup.

    Raises:
        CgroupError: it cannot be told just now.
    """
    if launcher.tree is None or record.cgroup is None:
        return ProcessScope(record.pid, spec.environment)
    try:
        cgroup = launcher.tree.existing(spec.name) or _make_again(launcher, spec)
    except CgroupError as error:
        if is_passing(error):
            raise
        log.error("%s: %s", spec.name, error)
        return None
    try:
        if is_alive and not _holds(cgroup, record.pid):
            _bring_back(spec, record.pid, cgroup)
    except CgroupError as error:
        cgroup.close()
        if is_passing(error):
            raise
        log.error("%s was moved out of its cgroup, and is killed: %s", spec.name, error)
        return None
    return CgroupEnclosure(cgroup, launcher.tree.shown_path(spec.name), launcher.watch)


def _holds(cgroup: Cgroup, pid: int) -> bool:
    """Whether a process is in the cgroup; nearly always it is in none of those below."""
    return str(pid) in cgroup.read("cgroup.procs").split() or pid in cgroup.processes()


def _make_again(launcher: Launcher, spec: ServiceSpec) -> Cgroup:
    """The cgroup that was there, with the limits that are wanted now. Raises CgroupError."""
    assert launcher.tree is not None
    cgroup = launcher.tree.create(spec.name)
    replace(launcher.limit_writer, isolation=Isolation.BEST_EFFORT).apply(spec, cgroup)
    return cgroup


def _bring_back(spec: ServiceSpec, main_pid: int, cgroup: Cgroup) -> None:
    """Move the main process, and what can be told to belong to it, back. Raises CgroupError."""
    cgroup.write("cgroup.procs", str(main_pid))
    others = [pid for pid in ProcessScope(main_pid, spec.environment).processes() if pid != main_pid]
    for pid in others:
        with contextlib.suppress(CgroupError):  # it has ended meanwhile
            cgroup.write("cgroup.procs", str(pid))
    log.warning(
        "%s: somebody had moved process %d out of its cgroup; it was moved back",
        spec.name,
        main_pid,
        extra={"service": spec.name},
    )


def _may_be(service: str, pid: int) -> bool:
    """Whether a process may be this service's: a program may have overwritten what it was started with."""
    names = [
        entry.partition("=")[2]
        for entry in _environment(pid).split("\0")
        if entry.startswith("BLACKHOLE_SERVICE=")
    ]
    return not names or names == [service]


def _told_port(pid: int) -> int | None:
    """The port that a process was told at its start."""
    for entry in _environment(pid).split("\0"):
        name, _, value = entry.partition("=")
        if name == "BLACKHOLE_PORT" and value.isdigit():
            return int(value)
    return None


def _environment(pid: int) -> str:
    try:
        return read_kernel_file(f"{PROC}/{pid}/environ")
    except OSError:
        return ""


def _wall_time(started_ticks: int) -> datetime:
    age_seconds = time.clock_gettime(time.CLOCK_BOOTTIME) - started_ticks / os.sysconf("SC_CLK_TCK")
    return datetime.now(UTC) - timedelta(seconds=age_seconds)
