"""A launch, step by step: files, cgroup, limits, descriptors, fork. Whatever fails, all is undone."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import socket
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Protocol, TypeVar

from blackhole_cg.core.facts import LimitState
from blackhole_cg.core.limits import Value
from blackhole_cg.core.spec import ServiceSpec
from blackhole_cg.core.words import MAX, Isolation, Max, Stream
from blackhole_cg.errors import CgroupError, SpawnError
from blackhole_cg.kernel.cgroup import Cgroup
from blackhole_cg.kernel.emptiness import EmptinessWatch
from blackhole_cg.kernel.enclosure import CgroupEnclosure, Enclosure
from blackhole_cg.kernel.held_sockets import HeldSockets
from blackhole_cg.kernel.identity import Identity, resolve_identity
from blackhole_cg.kernel.inherited import FIRST_FD, lift
from blackhole_cg.kernel.limit_change import LimitChanger
from blackhole_cg.kernel.limit_writer import LimitWriter
from blackhole_cg.kernel.notify_socket import NotifySocket
from blackhole_cg.kernel.own_process import Abilities, OwnProcess, caught_signals
from blackhole_cg.kernel.preexec import Descriptors, Preparation, Step, capability_number
from blackhole_cg.kernel.process import Children, MainProcess
from blackhole_cg.kernel.procfs import read_kernel_file
from blackhole_cg.kernel.rlimits import Rlimit, parse_proc_limits
from blackhole_cg.kernel.run import Birth, LinuxRun
from blackhole_cg.kernel.scope import ProcessScope, started_ticks
from blackhole_cg.kernel.service_files import find_program, prepare_data_dir, write_handed_config
from blackhole_cg.kernel.spawn import Report, Spawned, fork_child
from blackhole_cg.kernel.start_marks import StartMarks
from blackhole_cg.kernel.tree import CgroupTree
from blackhole_cg.kernel.verified import VerifiedProgram

OOM_SCORE: Final = "oom_score_adj"
DISCARD_TRIES: Final = 10
DISCARD_PAUSE_SECONDS: Final = 0.002

T = TypeVar("T")

StepTable = Callable[[Preparation, Descriptors], tuple[Step, ...]]


class Outputs(Protocol):
    """Where what is launched writes to. `streams.StreamFiles` is that of services."""

    def open_writer(self, name: str, stream: Stream, owner: Identity) -> int:
        """A blocking descriptor for the caller to close. Raises OSError."""


@dataclass(frozen=True, slots=True)
class Launcher:
    """Everything a launch needs of the host."""

    abilities: Abilities
    isolation: Isolation
    limit_writer: LimitWriter
    outputs: Outputs
    tree: CgroupTree | None
    own_process: OwnProcess
    children: Children
    watch: EmptinessWatch
    make_steps: StepTable
    sockets: HeldSockets
    marks: StartMarks | None = None  # None: nobody will ask whether what is launched has begun

    def launch(self, spec: ServiceSpec) -> LinuxRun:
        """Make everything and fork. Raises SpawnError with all of it undone; needs a running event loop."""
        return _attempt(spec.name, "prepare it", partial(self._launch, spec))

    def _launch(self, spec: ServiceSpec) -> LinuxRun:
        with contextlib.ExitStack() as undo, contextlib.ExitStack() as passing:
            prepared = self._prepare(spec)
            sockets = self.sockets.prepare(spec, prepared.identity)
            prepared.environment.update(_listen_environment(sockets))
            prepare_data_dir(spec, prepared.identity, self.abilities.identity)
            config_file = self.write_config(spec, prepared.identity)
            if config_file is not None:
                undo.callback(config_file.unlink, missing_ok=True)
            notify_socket = self.make_notify_socket(spec, prepared.identity)
            if notify_socket is not None:
                undo.callback(notify_socket.close)
            cgroup = self._make_cgroup(spec, undo)
            limits = self.limit_writer.apply(spec, cgroup)
            report = _attempt(spec.name, "make a pipe", partial(Report, FIRST_FD + len(sockets)))
            undo.callback(report.close)
            if self.marks is not None:
                undo.callback(self.marks.remove, spec.name)
            descriptors = self._descriptors(prepared, cgroup, passing, report, sockets.values())
            steps = self.make_steps(prepared, descriptors)
            promised = self._promised(spec, prepared)
            spawned = fork_child(spec.name, steps, report, prepared.caught_signals)
            undo.callback(_abandon, spawned)
            enclosure = self._enclosure(spec, cgroup, spawned.pid)
            birth = Birth(
                started_ticks=_attempt(spec.name, "see when it began", partial(started_ticks, spawned.pid)),
                service=spec.name,
                process=_attempt(spec.name, "watch its process", partial(self._adopt, spawned, report)),
                enclosure=enclosure,
                report=report,
                steps=steps,
                limits=limits | promised,
                read_limits=partial(_read_limits, promised),
                config_file=config_file,
                write_config=partial(self.write_config, spec, prepared.identity),
                changer=self.limit_changer(cgroup),
                notify_socket=notify_socket,
                unmark=partial(self.marks.remove, spec.name) if self.marks else bool,
            )
            undo.pop_all()
        return LinuxRun(birth)

    def limit_changer(self, cgroup: Cgroup | None) -> LimitChanger | None:
        """What changes the limits of a run in this cgroup."""
        return None if cgroup is None else LimitChanger(self.limit_writer, cgroup)

    def make_notify_socket(self, spec: ServiceSpec, owner: Identity) -> NotifySocket | None:
        """Where a run says that it is ready; None for one that is not asked to. Raises SpawnError."""
        if spec.notify_socket is None:
            return None
        path = Path(spec.notify_socket)
        return _attempt(spec.name, f"make its notify socket {path}", partial(NotifySocket.bind, path, owner))

    def write_config(self, spec: ServiceSpec, owner: Identity) -> Path | None:
        """The file by which a run gets its configuration, if it has one. Raises SpawnError."""
        return write_handed_config(spec, owner, self.abilities.identity)

    def rlimit_plan(self, spec: ServiceSpec) -> tuple[Rlimit, ...]:
        """The rlimits to set; with best_effort, no more than can be had."""
        clamp = self.isolation is Isolation.BEST_EFFORT
        return self.abilities.bounds.plan(spec.limits.rlimits, clamp)

    def _prepare(self, spec: ServiceSpec) -> Preparation:
        for name in spec.security.capabilities or ():
            try:
                capability_number(name)
            except ValueError as cause:
                raise SpawnError(spec.name, f"find capability {name!r}", detail=str(cause)) from cause
        environment = {_encoded(spec, key): _encoded(spec, value) for key, value in spec.environment.items()}
        if any(b"=" in key or not key for key in environment):
            raise SpawnError(spec.name, "prepare its environment", detail="a name is empty or contains '='")
        identity = resolve_identity(spec, self.abilities.identity)
        program = _encoded(spec, find_program(spec))
        return Preparation(
            name=spec.name,
            program=program,
            argv=tuple(_encoded(spec, word) for word in spec.argv),
            environment=environment,
            working_directory=os.fsdecode(_encoded(spec, spec.data_dir)),
            umask=spec.umask,
            own=self.abilities.identity,
            identity=identity,
            user_label=f"{spec.user} ({identity.uid})",
            rlimits=self.rlimit_plan(spec),
            restored_nofile=None if "nofile" in spec.limits.rlimits else self.own_process.nofile_before,
            oom_score_adj=self.abilities.oom_score_to_write(spec.oom_score_adj, self.isolation),
            security=spec.security,
            may_limit_capabilities=self.abilities.may_limit_capabilities,
            last_capability=self.abilities.last_capability,
            caught_signals=caught_signals(),
            verified=None if spec.binary_sha256 is None else VerifiedProgram(program, spec.binary_sha256),
        )

    def _make_cgroup(self, spec: ServiceSpec, undo: contextlib.ExitStack) -> Cgroup | None:
        if self.tree is None:
            if self.isolation is Isolation.REQUIRED:
                detail = self.limit_writer.facts.cgroup_problem or "there is no cgroup root"
                raise SpawnError(spec.name, "create its cgroup", detail=detail)
            return None
        try:
            cgroup = self.tree.create(spec.name)
        except CgroupError as cause:
            pids = self._occupants(spec.name) if cause.errno == errno.EBUSY else []
            detail = f"it exists and processes are in it: {' '.join(map(str, pids))}" if pids else ""
            step = f"create its cgroup {self.tree.shown_path(spec.name)}"
            raise SpawnError(spec.name, step, 0 if pids else cause.errno, detail) from cause
        undo.callback(_discard, cgroup)
        return cgroup

    def _occupants(self, name: str) -> list[int]:
        existing = self.tree.existing(name) if self.tree else None
        if existing is None:
            return []
        try:
            return existing.processes()
        finally:
            existing.close()

    def _descriptors(
        self,
        prepared: Preparation,
        cgroup: Cgroup | None,
        passing: contextlib.ExitStack,
        report: Report,
        sockets: Collection[socket.socket],
    ) -> Descriptors:
        """Open what the child takes along; `passing` closes our copies once the fork is done."""

        floor = FIRST_FD + len(sockets)  # the numbers below it are the sockets' in the child

        def keep(step: str, opening: Callable[[], int]) -> int:
            descriptor = _attempt(prepared.name, step, lambda: lift(opening(), floor))
            passing.callback(os.close, descriptor)
            return descriptor

        def fifo(stream: Stream) -> int:
            opening = partial(self.outputs.open_writer, prepared.name, stream, prepared.identity)
            return keep(f"open the FIFO for its {stream}", opening)

        procs = None
        if cgroup is not None:
            procs = keep("open its cgroup", partial(cgroup.open_file, "cgroup.procs", os.O_WRONLY))
        mark = self.marks.make(prepared.name) if self.marks else None
        if mark is not None:
            passing.callback(os.close, mark)
        return Descriptors(
            stdin=self.own_process.null_fd,
            stdout=fifo(Stream.STDOUT),
            stderr=fifo(Stream.STDERR),
            cgroup_procs=procs,
            announce=report.announce,
            sockets=tuple(keep("pass its sockets", partial(os.dup, each.fileno())) for each in sockets),
            wait=report.permission.wait,
            mark=mark,
        )

    def _enclosure(self, spec: ServiceSpec, cgroup: Cgroup | None, pid: int) -> Enclosure:
        if cgroup is None or self.tree is None:
            return ProcessScope(pid, spec.environment)
        return CgroupEnclosure(cgroup, self.tree.shown_path(spec.name), self.watch)

    def _adopt(self, spawned: Spawned, report: Report) -> MainProcess:
        report.listen()
        return MainProcess(spawned.pid, spawned.pidfd, self.children)

    def _promised(self, spec: ServiceSpec, prepared: Preparation) -> dict[str, LimitState]:
        """What is not a cgroup's to keep: the rlimits, and an oom_score_adj that was asked for."""
        states = {
            rlimit.name: LimitState(
                rlimit.requested, _shown(rlimit.value), rlimit.problem is None, rlimit.problem
            )
            for rlimit in prepared.rlimits
        }
        if spec.oom_score_adj:
            obstacle = self.abilities.oom_score_obstacle(spec.oom_score_adj)
            score = self.abilities.oom_score_adj if obstacle else spec.oom_score_adj
            states[OOM_SCORE] = LimitState(spec.oom_score_adj, score, obstacle is None, obstacle)
        return states


def _listen_environment(sockets: Collection[str]) -> dict[bytes, bytes]:
    """All but LISTEN_PID. Source: sd_listen_fds(3)."""
    if not sockets:
        return {}
    return {b"LISTEN_FDS": str(len(sockets)).encode(), b"LISTEN_FDNAMES": ":".join(sockets).encode()}


def _read_limits(promised: Mapping[str, LimitState], pid: int) -> dict[str, LimitState]:
    """The same, with what the process really has; as promised when it has ended meanwhile."""
    if not promised:
        return {}
    found: dict[str, Value] = {}
    with contextlib.suppress(OSError, ValueError):
        found |= parse_proc_limits(read_kernel_file(f"/proc/{pid}/limits"))
        found[OOM_SCORE] = int(read_kernel_file(f"/proc/{pid}/oom_score_adj"))
    return {name: _as_found(state, found.get(name, state.effective)) for name, state in promised.items()}


def _as_found(state: LimitState, found: Value | None) -> LimitState:
    """A program may lower its own limits as soon as it runs, so a difference is told, and is no error."""
    if found == state.effective:
        return state
    reason = state.reason or f"it was {state.effective} at exec and has been changed since"
    return LimitState(state.requested, found, state.enforced, reason)


def _shown(value: int) -> int | Max:
    return MAX if value == resource.RLIM_INFINITY else value


def _encoded(spec: ServiceSpec, text: str) -> bytes:
    encoded = os.fsencode(text)
    if b"\0" in encoded:
        raise SpawnError(spec.name, "prepare its arguments and environment", detail=f"a NUL byte in {text!r}")
    return encoded


def _attempt(service: str, step: str, action: Callable[[], T]) -> T:
    """Do it, with an OSError or a CgroupError told as a failure to start this service."""
    try:
        return action()
    except OSError as cause:
        raise SpawnError(service, step, cause.errno or 0) from cause
    except CgroupError as cause:
        raise SpawnError(service, step, cause.errno) from cause


def _abandon(spawned: Spawned) -> None:
    """End and reap a child that nobody will hold."""
    signal.pidfd_send_signal(spawned.pidfd, signal.SIGKILL)
    os.waitid(os.P_PIDFD, spawned.pidfd, os.WEXITED)
    os.close(spawned.pidfd)


def _discard(cgroup: Cgroup) -> None:
    """Remove a cgroup that nothing has joined, or whose only process has been reaped."""
    for _ in range(DISCARD_TRIES):
        try:
            cgroup.remove_now()
            break
        except OSError:
            time.sleep(DISCARD_PAUSE_SECONDS)  # the kernel may still be taking a reaped child out of it
    cgroup.close()
