"""The one seam to the kernel: what the runner and the supervisor need of a host, and nothing more.

`kernel.host.LinuxHost` is the real one; `tests/support/fake_host.py` is the fake.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from typing import Protocol

from blackhole_cg.core.facts import ExitStatus, HostFacts, LimitProblem, LimitState, Usage
from blackhole_cg.core.monitor_spec import Action
from blackhole_cg.core.ports import PortHolder
from blackhole_cg.core.record import RunRecord
from blackhole_cg.core.spec import ServiceSpec
from blackhole_cg.core.words import Stream
from blackhole_cg.observe.monitor.monitor import Alarms
from blackhole_cg.observe.probes.exec import CommandRunner


class Freezer(Protocol):
    """What can hold a run for moments. What it has frozen goes on when the run is thawed or let go of."""

    @property
    def obstacle(self) -> str | None:
        """Why it cannot; None when it can."""

    def cpu_seconds(self) -> float:
        """Processor time that the run has used. Raises KernelError."""

    def hold(self) -> None:
        """Freeze the run, unless somebody else has. Raises KernelError."""

    def let_go(self) -> None:
        """End what `hold` did, and nothing else. Raises KernelError."""


class Run(Protocol):
    """One live run as the kernel knows it: a main process and the cgroup it lives in."""

    @property
    def pid(self) -> int:
        """The main process."""

    @property
    def started_ticks(self) -> int:
        """When the main process began, in clock ticks since boot: with its pid, who it is."""

    @property
    def cgroup(self) -> str | None:
        """Path below the cgroup v2 mount, beginning with "/"; None when tracked without a cgroup."""

    @property
    def limits(self) -> Mapping[str, LimitState]:
        """Every limit asked for, beside what is in force."""

    async def change_limits(self, spec: ServiceSpec, force: bool = False) -> Sequence[str]:
        """Bring the limits to those of `spec`, all of them or none; why not, if not.

        Without `force` none goes below what is in use.
        """

    async def executed(self) -> None:
        """Let the child go on, which until now waits and ends with this process; return once it has executed.

        Whoever calls this has stored who the run is.

        Raises:
            SpawnError: a preexec step failed; the child is reaped and its cgroup is removed.
        """

    async def exited(self) -> ExitStatus:
        """Wait for the main process to end, and reap it."""

    def listen(self, take: Callable[[bytes], None]) -> None:
        """Hand over what processes of this run, and no others, send to its notify socket, if it has one."""

    def follow(self, pid: int) -> bool:
        """Take another process of the run for its main process; whether there is such a process.

        From here on `exited` waits for that one, also for who waits already.
        """

    def populated(self) -> bool:
        """Whether any live process is left in the run; a zombie does not count."""

    async def emptied(self) -> None:
        """Wait until no live process is left in the run."""

    def signal(self, number: int) -> None:
        """Send a signal to the main process through its pidfd; nothing happens when it is gone."""

    def signal_rest(self, number: int) -> None:
        """Send a signal to every process of the run that is left."""

    def kill(self) -> None:
        """Kill every process of the run."""

    def processes(self) -> list[int]:
        """Every process of the run."""

    def restore_files(self) -> None:
        """Make again what somebody has deleted of the files that belong to the run."""

    async def adjust(self, action: Action) -> None:
        """Freeze the run, reclaim its memory or change its weights. Raises KernelError."""

    def thaw(self) -> None:
        """Let the run go on, if it is frozen: nothing but SIGKILL reaches it before. Raises KernelError."""

    @property
    def freezer(self) -> Freezer | None:
        """What can hold the run for moments; None when nothing can."""

    def usage(self) -> Usage:
        """What the run uses now."""

    async def close(self) -> None:
        """Remove the cgroup, with bounded retries, and close every descriptor. Call it once, when empty."""

    def detach(self) -> None:
        """Let go of a run that goes on without us: close descriptors, leave processes and cgroup alone."""


class Commands(CommandRunner, Protocol):
    """Commands beside services."""

    async def clear(self) -> None:
        """Kill and remove what an earlier supervisor left. Call it before the first command."""

    async def close(self) -> None:
        """Kill every command, and return when nothing of any is left."""


class Sockets(Protocol):
    """The sockets that are held for services: bound by `launch`, kept from run to run."""

    def services(self) -> Collection[str]:
        """The services for which something is held."""

    def names(self, service: str) -> Collection[str]:
        """The sockets that are held for a service."""

    def handed_over(self) -> dict[str, int]:
        """Copies by name, for the caller to close, for the next program in this process. Raises OSError."""

    def release(self, service: str) -> None:
        """Close what is held for a service: from now on nobody can connect."""


class Host(Protocol):
    """A machine that can run services."""

    @property
    def facts(self) -> HostFacts:
        """What this host can do."""

    @property
    def subreaper(self) -> bool:
        """Whether orphans of services fall to this process, which must reap them on SIGCHLD."""

    def reap_strangers(self) -> int:
        """Reap every child that has ended; the statuses of main processes still reach their runs."""

    def problems(self, spec: ServiceSpec) -> list[LimitProblem]:
        """Each limit of `spec` that cannot be enforced here."""

    def open(self) -> None:
        """Claim the cgroup root and enable the controllers. Raises CgroupError; touches no service."""

    @property
    def alarms(self) -> Alarms:
        """What tells at once that a cgroup is short of memory, or stalls."""

    @property
    def sockets(self) -> Sockets:
        """What is held for services, what an earlier supervisor held among it."""

    def launch(self, spec: ServiceSpec, run_id: int) -> Run:
        """Make the cgroup, write and verify its limits, and fork.

        Returns once the child exists. It waits for `executed` to be called before it does anything.

        Raises:
            SpawnError: something before the fork failed; nothing is left behind.
        """

    def adopt(self, spec: ServiceSpec, record: RunRecord) -> Run | None:
        """Take over a run that an earlier supervisor began; None when its main process is not there any more.

        Same boot, same process (not merely its number), and still in the service's cgroup.
        """

    def identify(self, spec: ServiceSpec, run_id: int) -> RunRecord | None:
        """A record of the service's live run, where none is left; None without certainty."""

    def cgroups(self, known: Container[str] = ()) -> Mapping[str, list[int]]:
        """The cgroups below the root that runs could have, but for the known ones, and who is in them."""

    def is_held(self, name: str) -> bool:
        """Whether the run that was forked last has certainly not begun; False where that is not known."""

    async def clear(self, name: str, patience_seconds: float = 0.0) -> list[int]:
        """End whatever is left in a service's cgroup, and remove it; the pids that were in it.

        They are killed, with patience only once they have not heeded SIGTERM for so long.

        Raises:
            CgroupError: it cannot be removed.
        """

    def open_streams(self, spec: ServiceSpec) -> Mapping[Stream, int]:
        """Create the service's FIFOs if need be and return non-blocking descriptors to read them.

        The descriptors belong to the caller, outlive runs and never report end of file.
        """

    @property
    def commands(self) -> Commands:
        """Runs the commands of exec probes, once the host is open."""

    def stream_paths(self, name: str) -> Mapping[Stream, str]:
        """Where the FIFOs of a service are."""

    def port_holder(self, port: int, *, identify: bool = True) -> PortHolder | None:
        """Who has a TCP port of this host; None when a service could have it.

        Without `identify` it is only said that somebody has it, which takes less time.
        """

    def lost_streams(self, spec: ServiceSpec, pids: Sequence[int]) -> Mapping[Stream, int]:
        """Descriptors of the FIFOs that a live run has open and that have lost their names, for the caller.

        Later runs of the service get these FIFOs too. `pids` are its processes, the main one first.
        """

    def stream_names(self) -> set[str]:
        """Whose FIFOs there are."""

    def remove_streams(self, names: Iterable[str]) -> None:
        """Delete the FIFOs of these services."""

    def close(self) -> None:
        """Give back what `open` claimed: empty cgroup directories, descriptors."""
