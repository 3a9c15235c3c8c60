"""The real machine behind the runner's `Host` protocol: one object that opens, launches and gives back."""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from blackhole_cg.core.facts import HostFacts, LimitProblem
from blackhole_cg.core.ports import PortHolder
from blackhole_cg.core.record import RunRecord
from blackhole_cg.core.spec import ServiceSpec
from blackhole_cg.core.words import Isolation, Stream
from blackhole_cg.errors import CgroupError, KernelError
from blackhole_cg.kernel.adopt import adopt_run, clear_leftovers, identify_run
from blackhole_cg.kernel.block import io_weight_mechanisms
from blackhole_cg.kernel.emptiness import EmptinessWatch
from blackhole_cg.kernel.facts import CgroupPlace, find_cgroup_place, read_host_facts
from blackhole_cg.kernel.held_sockets import HeldSockets
from blackhole_cg.kernel.identity import resolve_identity
from blackhole_cg.kernel.inherited import Inheritance
from blackhole_cg.kernel.launch import OOM_SCORE, Launcher, StepTable
from blackhole_cg.kernel.limit_writer import LimitWriter
from blackhole_cg.kernel.own_process import Abilities, OwnProcess
from blackhole_cg.kernel.ports import find_port_holder
from blackhole_cg.kernel.preexec import preexec_steps
from blackhole_cg.kernel.pressure import PressureAlarms
from blackhole_cg.kernel.probe_run import ProbeCommands
from blackhole_cg.kernel.process import Children
from blackhole_cg.kernel.run import LinuxRun
from blackhole_cg.kernel.service_manager import ServiceManager
from blackhole_cg.kernel.start_marks import StartMarks
from blackhole_cg.kernel.stored_streams import StoredStreams
from blackhole_cg.kernel.streams import StreamFiles
from blackhole_cg.kernel.tree import CgroupTree

SYS: Final = Path("/sys")


@dataclass(frozen=True, slots=True)
class HostOptions:
    """What the command line and the configuration say about the host.

    `cgroup_root` None looks for a place by itself. `subreaper` makes orphans of services fall to this
    process; it is always on where services cannot have cgroups. `inherited` is what this process was handed
    by its predecessor, for the caller to close, `manager` stores what the next one is to be handed.
    """

    runtime_dir: Path
    isolation: Isolation = Isolation.REQUIRED
    cgroup_root: str | None = None
    subreaper: bool = False
    inherited: Inheritance = field(default_factory=Inheritance)
    manager: ServiceManager = field(default_factory=lambda: ServiceManager(None, None, None))


class LinuxHost:
    """This machine. `make_steps` is the table of the preexec stage."""

    def __init__(self, options: HostOptions, make_steps: StepTable = preexec_steps) -> None:
        self._options = options
        self._make_steps = make_steps
        self._place = find_cgroup_place(options.cgroup_root)
        self._facts = read_host_facts(self._place)
        self._io_weights = io_weight_mechanisms(SYS, self._place.mount)
        self._abilities = Abilities.of_this_process()
        self._stored = StoredStreams(options.manager)
        self._streams = StreamFiles(options.runtime_dir / "fifo", self._stored)
        self._marks = StartMarks(options.runtime_dir / "starting")
        self._children = Children()
        self._watch = EmptinessWatch()
        self._own_process: OwnProcess | None = None
        self._launcher: Launcher | None = None
        self._commands: ProbeCommands | None = None
        self._alarms = PressureAlarms()
        self._sockets = HeldSockets(options.manager)

    @property
    def facts(self) -> HostFacts:
        """What this host can do; after `open`, with what turned out not to work."""
        return self._facts

    @property
    def subreaper(self) -> bool:
        """Whether orphans fall to this process, so that `reap_strangers` must be called on SIGCHLD."""
        return self._options.subreaper or self._facts.cgroup_root is None

    @property
    def strangers_total(self) -> int:
        """How many orphans have been reaped so far."""
        return self._children.strangers_total

    def problems(self, spec: ServiceSpec) -> list[LimitProblem]:
        """Each limit of `spec` that cannot be enforced here."""
        found = self._limit_writer().problems(spec)
        for rlimit in self._abilities.bounds.plan(spec.limits.rlimits, clamp=False):
            if rlimit.problem is not None:
                found.append(LimitProblem(spec.name, rlimit.name, rlimit.requested, rlimit.problem))
        obstacle = self._abilities.oom_score_obstacle(spec.oom_score_adj)
        if spec.oom_score_adj and obstacle is not None:
            found.append(LimitProblem(spec.name, OOM_SCORE, spec.oom_score_adj, obstacle))
        return found

    def open(self) -> None:
        """Claim the cgroup root, enable the controllers, make this process fit to be a parent.

        Raises:
            CgroupError: the root cannot be claimed and `isolation: required` demands it.
        """
        self._stored.inherit(self._options.inherited)
        self._sockets.inherit(self._options.inherited)
        tree = self._claim()
        self._own_process = OwnProcess(self.subreaper)
        self._launcher = Launcher(
            abilities=self._abilities,
            isolation=self._options.isolation,
            limit_writer=self._limit_writer(),
            outputs=self._streams,
            tree=tree,
            own_process=self._own_process,
            children=self._children,
            watch=self._watch,
            make_steps=self._make_steps,
            sockets=self._sockets,
            marks=self._marks,
        )
        self._commands = ProbeCommands(self._launcher)

    @property
    def commands(self) -> ProbeCommands:
        """Runs the commands of exec probes, each in a cgroup of its own."""
        assert self._commands is not None, "open() comes first"
        return self._commands

    @property
    def alarms(self) -> PressureAlarms:
        """Watches cgroups for a shortage of memory, and for stalls."""
        return self._alarms

    @property
    def sockets(self) -> HeldSockets:
        """What is held for services."""
        return self._sockets

    def launch(self, spec: ServiceSpec, run_id: int) -> LinuxRun:
        """Make the cgroup, write and verify its limits, and fork; needs a running event loop.

        Raises:
            SpawnError: something before the fork failed; nothing is left behind.
        """
        assert self._launcher is not None, "open() comes first"
        self._streams.keep(spec.name)
        return self._launcher.launch(spec)

    def adopt(self, spec: ServiceSpec, record: RunRecord) -> LinuxRun | None:
        """Take over a run that an earlier supervisor began; None when its main process is gone."""
        assert self._launcher is not None, "open() comes first"
        run = adopt_run(self._launcher, self._facts.boot_id, spec, record)
        if run is not None:
            run.recover(spec)
            run.restore_files()
        if run is not None and spec.sockets:
            self._sockets.recover(spec, run.processes())
        return run

    def identify(self, spec: ServiceSpec, run_id: int) -> RunRecord | None:
        """A record of the service's live run, where none is left; None without certainty."""
        assert self._launcher is not None, "open() comes first"
        return identify_run(self._launcher, self._facts.boot_id, spec, run_id)

    def cgroups(self, known: Container[str] = ()) -> Mapping[str, list[int]]:
        """The cgroups below the root that runs could have, but for the known ones, and who is in them."""
        tree = self._launcher.tree if self._launcher else None
        return tree.occupants(known) if tree else {}

    def is_held(self, name: str) -> bool:
        """Whether the run that was forked last has certainly not begun; False where that is not known."""
        return self._marks.is_held(name)

    async def clear(self, name: str, patience_seconds: float = 0.0) -> list[int]:
        """End whatever is left in a service's cgroup, and remove it; the pids that were in it.

        They are killed, with patience only once they have not heeded SIGTERM for so long.

        Raises:
            CgroupError: it cannot be removed.
        """
        assert self._launcher is not None, "open() comes first"
        pids = await clear_leftovers(self._launcher, name, patience_seconds)
        self._marks.remove_begun(name)
        return pids

    def open_streams(self, spec: ServiceSpec) -> Mapping[Stream, int]:
        """Create the service's FIFOs if need be and return non-blocking descriptors to read them.

        Raises:
            SpawnError: there is no such user.
            KernelError: a FIFO cannot be made, or something else has its name.
        """
        owner = resolve_identity(spec, self._abilities.identity)
        opened: dict[Stream, int] = {}
        for stream in Stream:
            try:
                opened[stream] = self._streams.open_reader(spec.name, stream, owner)
            except OSError as cause:
                _close_all(opened.values())
                path = str(cause.filename or f"the FIFO for {spec.name}'s {stream}")
                raise KernelError("open", path, cause.errno or 0) from cause
        return opened

    def stream_paths(self, name: str) -> Mapping[Stream, str]:
        """Where the FIFOs of a service are."""
        return {stream: self._streams.path(name, stream) for stream in Stream}

    def port_holder(self, port: int, *, identify: bool = True) -> PortHolder | None:
        """Who has a TCP port of this host; None when a service could have it."""
        return find_port_holder(port, identify=identify)

    def lost_streams(self, spec: ServiceSpec, pids: Sequence[int]) -> Mapping[Stream, int]:
        """Descriptors of the FIFOs that a live run has open and that have lost their names, for the caller.

        Later runs of the service get these FIFOs too. `pids` are its processes, the main one first.
        """
        return self._streams.find_lost(spec.name, pids)

    def stream_names(self) -> set[str]:
        """Whose FIFOs there are."""
        return self._streams.names()

    def remove_streams(self, names: Iterable[str]) -> None:
        """Delete the FIFOs of these services, and what says whether they have begun."""
        for name in names:
            self._streams.remove(name)
            self._marks.remove(name)

    def reap_strangers(self) -> int:
        """Reap the children that have ended; statuses of main processes reach their runs."""
        return self._children.reap_strangers()

    def close(self) -> None:
        """Give back what `open` claimed: empty cgroup directories, descriptors."""
        self._watch.close()
        self._alarms.close()
        self._sockets.close()
        self._stored.close()
        self._children.foreign.close()
        if self._launcher is not None and self._launcher.tree is not None:
            self._launcher.tree.close()
        if self._own_process is not None:
            self._own_process.close()
        self._launcher = self._own_process = None

    def _limit_writer(self) -> LimitWriter:
        return LimitWriter(self._facts, self._options.isolation, self._io_weights, SYS)

    def _claim(self) -> CgroupTree | None:
        try:
            tree = CgroupTree.claim(self._place)
        except CgroupError as cause:
            if self._options.isolation is Isolation.REQUIRED:
                raise
            mount, own = self._place.mount, self._place.own
            self._place = CgroupPlace(mount, own, None, None, str(cause))
            self._facts = read_host_facts(self._place)
            return None
        if tree is not None:
            self._facts = replace(self._facts, controllers={**self._facts.controllers, **tree.failures})
        return tree


def _close_all(descriptors: Iterable[int]) -> None:
    """Close each of them."""
    for descriptor in descriptors:
        os.close(descriptor)
