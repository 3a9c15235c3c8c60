"""One live run: its main process, what encloses the rest, and how its limits turned out."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from blackhole_cg.core.facts import ExitStatus, LimitState, Usage
from blackhole_cg.core.monitor_spec import Action
from blackhole_cg.core.spec import ServiceSpec
from blackhole_cg.core.weights import show_weight
from blackhole_cg.errors import KernelError, SpawnError
from blackhole_cg.kernel.enclosure import Enclosure
from blackhole_cg.kernel.freezer import Freezer
from blackhole_cg.kernel.limit_change import LimitChanger
from blackhole_cg.kernel.notify_socket import MESSAGES_LEFT_BEHIND, NotifySocket
from blackhole_cg.kernel.preexec import Step
from blackhole_cg.kernel.process import MainProcess
from blackhole_cg.kernel.scope import started_ticks
from blackhole_cg.kernel.spawn import Report

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Birth:
    """What a launch leaves to the run it made."""

    service: str
    process: MainProcess
    enclosure: Enclosure
    started_ticks: int
    limits: Mapping[str, LimitState]
    config_file: Path | None
    write_config: Callable[[], object]  # makes that file again; raises SpawnError
    unmark: Callable[[], object] = bool  # removes what says whether it may have begun
    notify_socket: NotifySocket | None = None
    report: Report | None = None  # None: it has reached exec, and was taken over
    steps: Sequence[Step] = ()
    changer: LimitChanger | None = None  # None: there is no cgroup
    read_limits: Callable[[int], Mapping[str, LimitState]] = lambda pid: {}  # of a process past exec


class LinuxRun:
    """The `Run` of the runner's protocol, on Linux."""

    def __init__(self, birth: Birth) -> None:
        self._birth = birth
        self._process = birth.process
        self._started_ticks = birth.started_ticks
        self._former: list[MainProcess] = []  # main processes that have given that up, and may live on
        self._has_refused = False
        self._enclosure = birth.enclosure
        self._limits = dict(birth.limits)
        self._configured = dict(birth.limits)  # the same, but for what rules have changed
        self._exit: ExitStatus | None = None
        self._cgroup = birth.enclosure.path

    @property
    def pid(self) -> int:
        """The main process."""
        return self._process.pid

    @property
    def started_ticks(self) -> int:
        """When the main process began, in clock ticks since boot."""
        return self._started_ticks

    @property
    def cgroup(self) -> str | None:
        """Path below the cgroup v2 mount; None when tracked without a cgroup."""
        return self._cgroup

    @property
    def limits(self) -> Mapping[str, LimitState]:
        """Every limit asked for; the effective rlimits are known once `executed` has returned."""
        return self._limits

    async def change_limits(self, spec: ServiceSpec, force: bool = False) -> Sequence[str]:
        """Bring the limits to those of `spec`, all or none of them; why not, if not."""
        if self._birth.changer is None:
            return ()
        before = self._configured
        changed = await self._birth.changer.change(spec, before, force)
        by_rules = {name: state for name, state in self._limits.items() if state != before.get(name)}
        self._configured = dict(changed.states)
        kept = {
            name: state for name, state in by_rules.items() if before.get(name) == changed.states.get(name)
        }
        self._limits = {**changed.states, **kept}
        return changed.problems

    async def executed(self) -> None:
        """Let the child go on, and return once exec has succeeded.

        Raises:
            SpawnError: a preexec step failed, or the child died before exec; nothing of the run is left.
        """
        if self._birth.report is None:
            return
        self._birth.report.permission.give()
        reached, failure = await self._birth.report.outcome()
        if reached and failure is None:
            self._configured |= self._birth.read_limits(self.pid)
            self._limits |= self._configured
            return
        status = await self._process.exited()
        await self.close()
        if failure is None:
            raise SpawnError(
                self._birth.service, "reach exec", detail=f"the child ended before it ({status})"
            )
        index, code, detail = failure
        raise SpawnError(self._birth.service, self._birth.steps[index].phrase, code, detail)

    async def exited(self) -> ExitStatus:
        """Wait for the main process to end; whether memory was the reason is asked of the cgroup."""
        status = await self._main_exited()
        if self._exit is None:
            by_kernel = status.signal == signal.SIGKILL and bool(self._enclosure.oom_kills())
            self._exit = replace(status, oom_killed=by_kernel)
        return self._exit

    async def _main_exited(self) -> ExitStatus:
        """Of the one that is the main process once everything is heard that was said before its end."""
        while True:
            process = self._process
            status = await process.exited()
            if self._exit is None and self._birth.notify_socket is not None:
                self._birth.notify_socket.read(MESSAGES_LEFT_BEHIND)
            if process is self._process:
                return status

    def listen(self, take: Callable[[bytes], None]) -> None:
        """Hand over every message that a process of this run sends to its notify socket, from now on."""

        def judge(message: bytes, sender: int) -> None:
            if self._is_ours(sender):
                take(message)
            elif not self._has_refused:  # told once, or whoever floods the socket floods the log
                self._has_refused = True
                log.warning("%s: dropped a message of process %d, not its own", self._birth.service, sender)

        if self._birth.notify_socket is not None:
            self._birth.notify_socket.listen(judge)

    def _is_ours(self, pid: int) -> bool:
        """The main process is, even if it has just ended; of any other it must still be seen in the run."""
        return (self._exit is None and pid == self.pid) or self._enclosure.contains(pid)

    def follow(self, pid: int) -> bool:
        """Take another process of the run for its main process; whether there is such a process.

        One that was followed before is held still.
        """
        if pid == self.pid or self._exit is not None:
            return False
        self._former = [process for process in self._former if process.status is None]
        process = next((each for each in self._former if each.pid == pid), None) or self._hold(pid)
        if process is None:
            return False
        try:
            began = started_ticks(pid)
        except OSError:  # who it is could not be told to the next supervisor
            self._former.append(process)
            return False
        self._former = [each for each in (*self._former, self._process) if each is not process]
        self._process, self._started_ticks = process, began
        return True

    def _hold(self, pid: int) -> MainProcess | None:
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            return None
        if not self._enclosure.contains(pid):  # only now: the pidfd fixes what the number means
            os.close(pidfd)
            return None
        return self._process.beside(pid, pidfd)

    def populated(self) -> bool:
        """Whether any live process is left; the main process counts before it has joined its cgroup, too."""
        return self._process.status is None or self._enclosure.populated()

    async def emptied(self) -> None:
        """Wait until no live process is left."""
        await self._process.exited()
        await self._enclosure.emptied()

    def signal(self, number: int) -> None:
        """Send a signal to the main process; nothing happens when it is gone."""
        self._process.signal(number)

    def signal_rest(self, number: int) -> None:
        """Send a signal to every process that is left."""
        self._enclosure.signal_all(number)

    def kill(self) -> None:
        """Kill every process of the run, the one that is on its way to exec included."""
        self._process.signal(signal.SIGKILL)
        self._enclosure.kill()

    def processes(self) -> list[int]:
        """Every process of the run."""
        return self._enclosure.processes()

    async def adjust(self, action: Action) -> None:
        """Freeze the run, reclaim its memory or change its weights. Raises KernelError."""
        await self._enclosure.adjust(action)
        for name, weight in (("cpu_weight", action.cpu_weight), ("io_weight", action.io_weight)):
            if weight is not None:
                self._show_weight(name, weight)

    def recover(self, spec: ServiceSpec) -> None:
        """End what an earlier supervisor did to the run for a time: a hold, a weight changed by a rule."""
        try:
            self._enclosure.recover(keep_cpu_weight=spec.limits.cpu_weight is not None)
        except KernelError as error:
            log.error("%s: %s", spec.name, error)

    def restore_files(self) -> None:
        """Make again what somebody has deleted of the run's files: its notify socket, its configuration."""
        try:
            if self._birth.notify_socket is not None:
                self._birth.notify_socket.restore()
            if self._birth.config_file is not None and not self._birth.config_file.exists():
                self._birth.write_config()
        except (OSError, SpawnError) as error:
            log.error("%s: cannot make its files again: %s", self._birth.service, error)

    def _show_weight(self, name: str, weight: int) -> None:
        state = show_weight(self._configured.get(name), weight)
        if state is None:
            self._limits.pop(name, None)
        else:
            self._limits[name] = state

    def thaw(self) -> None:
        """Let the run go on, if it is frozen. Raises KernelError."""
        self._enclosure.thaw()

    @property
    def freezer(self) -> Freezer | None:
        """What can hold the run for moments; None without a cgroup."""
        return self._enclosure.freezer

    def usage(self) -> Usage:
        """What the run uses now."""
        return self._enclosure.usage()

    async def close(self) -> None:
        """Remove the cgroup and the hand-over file, close every descriptor. A second call does nothing.

        Raises:
            KernelError: processes are still there.
        """
        await self._enclosure.remove()
        for process in (self._process, *self._former):
            await process.exited()
        if self._birth.notify_socket is not None:
            self._birth.notify_socket.close()
        if self._birth.report is not None:
            self._birth.report.close()
        if self._birth.config_file is not None:
            self._birth.config_file.unlink(missing_ok=True)
        self._birth.unmark()

    def detach(self) -> None:
        """Close every descriptor; the processes, their cgroup and their files stay."""
        for process in (self._process, *self._former):
            process.release()
        self._enclosure.release()
        if self._birth.notify_socket is not None:
            self._birth.notify_socket.close()
        if self._birth.report is not None:
            self._birth.report.close()
