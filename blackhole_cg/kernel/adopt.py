"""Taking over a run that an earlier supervisor began, and clearing away what cannot be taken over."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from blackhole_cg.core.facts import LimitState
from blackhole_cg.core.record import RunRecord
from blackhole_cg.core.spec import ServiceSpec
from blackhole_cg.core.words import Isolation
from blackhole_cg.errors import SpawnError
from blackhole_cg.kernel.cgroup import Cgroup
from blackhole_cg.kernel.enclosure import CgroupEnclosure, Enclosure
from blackhole_cg.kernel.identity import resolve_identity
from blackhole_cg.kernel.launch import Launcher
from blackhole_cg.kernel.notify_socket import NotifySocket
from blackhole_cg.kernel.process import MainProcess
from blackhole_cg.kernel.run import Birth, LinuxRun
from blackhole_cg.kernel.scope import DEAD_STATES, ProcessScope, read_stat
from blackhole_cg.kernel.service_files import handed_config_file

PROC = Path("/proc")

log = logging.getLogger(__name__)


def adopt_run(launcher: Launcher, boot_id: str, spec: ServiceSpec, record: RunRecord) -> LinuxRun | None:
    """The run of the record, if its main process is still there: same boot, same start time, in its cgroup.

    Its exit status will not be known: it is not our child. Needs a running event loop.
    """
    marks = launcher.marks
    if record.boot_id != boot_id or (marks is not None and marks.is_held(spec.name)):
        return None  # of another boot, or about to end by itself: it was not allowed to begin
    try:
        pidfd = os.pidfd_open(record.pid)
    except OSError:
        return None
    # Only now: what the pidfd holds is what the number means from here on.
    enclosure = _find_enclosure(launcher, spec, record) if _is_same(record) else None
    if enclosure is None:
        os.close(pidfd)
        return None
    return LinuxRun(
        Birth(
            service=spec.name,
            process=MainProcess(record.pid, pidfd, launcher.children),
            enclosure=enclosure,
            started_ticks=record.started_ticks,
            limits=_restore_limits(launcher, spec, record, enclosure),
            config_file=handed_config_file(spec),
            unmark=partial(marks.remove, spec.name) if marks else bool,
            changer=launcher.limit_changer(_cgroup_of(enclosure)),
            notify_socket=_renew_notify_socket(launcher, spec),
        )
    )


async def clear_leftovers(launcher: Launcher, name: str) -> list[int]:
    """Kill whatever is in the cgroup of this name, and remove it; the pids that were in it.

    Raises:
        CgroupError: it cannot be removed.
    """
    cgroup = launcher.tree.existing(name) if launcher.tree else None
    if cgroup is None:
        return []
    try:
        pids = cgroup.processes()
        if pids:
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


def _is_same(record: RunRecord) -> bool:
    process = read_stat(PROC, record.pid)
    if process is None or process.state in DEAD_STATES:
        return False
    return process.started_ticks == record.started_ticks


def _find_enclosure(launcher: Launcher, spec: ServiceSpec, record: RunRecord) -> Enclosure | None:
    """What holds the run; None when its main process is not in it (any more)."""
    if launcher.tree is None:
        return ProcessScope(record.pid, spec.environment) if record.cgroup is None else None
    cgroup = launcher.tree.existing(spec.name)
    if cgroup is None:
        return None
    if record.pid not in cgroup.processes():
        cgroup.close()
        return None
    return CgroupEnclosure(cgroup, launcher.tree.shown_path(spec.name), launcher.watch)
