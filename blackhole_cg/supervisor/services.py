"""All services of one configuration: their runners, the gate between them, and what is recorded of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence, Set
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from blackhole_cg.core.events import Announce, ResetRequested
from blackhole_cg.core.facts import EventRecord
from blackhole_cg.core.record import Memory, RunRecord
from blackhole_cg.core.spec import ServiceSpec, SupervisorSpec
from blackhole_cg.core.status import ServiceStatus
from blackhole_cg.core.topology import build_topology
from blackhole_cg.core.words import AUTO, LIVE_STATES, Dependents, Reason
from blackhole_cg.errors import DependentsError, UnknownServiceError
from blackhole_cg.runner.clock import Clock, wall_text
from blackhole_cg.runner.host import Host, Run
from blackhole_cg.runner.listener import Output
from blackhole_cg.runner.service import ServiceRunner
from blackhole_cg.supervisor.gate import Gate
from blackhole_cg.supervisor.operations import Operations
from blackhole_cg.supervisor.ports import Ports
from blackhole_cg.supervisor.takeover import Outputs, adopt_runs, release_sockets, settle_rest

_log = logging.getLogger(__name__)

_MAX_NAMED = 10


class EventSink(Protocol):
    """Where events are kept."""

    def append(self, record: EventRecord, /) -> object:
        """Store an event."""


class StateSink(Protocol):
    """Where the next supervisor will look."""

    def save_status(self, service: str, status: ServiceStatus) -> None:
        """Remember a status."""

    def save_run(self, run: RunRecord) -> None:
        """Remember a live run. Returns once that outlasts a crash."""

    def forget_run(self, service: str) -> None:
        """The run has ended."""

    def save_port(self, service: str, port: int) -> None:
        """Remember the port that a service was given."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What services need of the world: a machine, a clock, a place for output, a place for events."""

    host: Host
    clock: Clock
    output: Callable[[ServiceSpec], Output]
    events: EventSink
    states: StateSink
    together: Callable[[], AbstractContextManager[None]] = nullcontext  # stores at once what is noted within
    changed: Callable[[ServiceRunner], None] = lambda runner: None  # a service has a new status


class Services:
    """The services of one configuration, by name and in start order. Listens to every runner."""

    def __init__(self, spec: SupervisorSpec, surroundings: Surroundings) -> None:
        self._surroundings = surroundings
        self._watcher: Callable[[], None] | None = None
        self.occupied: set[str] = set()  # by processes that an earlier supervisor left and nobody remembers
        note = partial(self._note, "port")
        self.ports = Ports(spec, surroundings.host, surroundings.states, note)
        self.topology = build_topology(spec.services)
        self.runners = {name: self._make_runner(spec.services[name]) for name in self.topology.order}
        self._gate = Gate(
            self.runners, self.topology, spec.runtime, surroundings.host.facts.memory_bytes, self._warn
        )
        self.operations = Operations(self.runners, self.topology, self._gate, self.ports.is_short)

    def reconfigure(self, spec: SupervisorSpec) -> list[ServiceRunner]:
        """Go by another configuration from now on; starts and stops nothing.

        Services that it does not have must be down; their runners are returned, and are not used again.
        """
        before, topology = self.runners, build_topology(spec.services)
        runners = {
            name: before.get(name) or self._make_runner(spec.services[name]) for name in topology.order
        }
        for name, runner in runners.items():
            runner.reconfigure(spec.services[name])
        self.topology, self.runners = topology, runners
        self.ports.reconfigure(spec)
        for runner in runners.values():
            self.ports.note(runner)
        self._gate.reconfigure(self.runners, self.topology, spec.runtime)
        self.operations = self.operations.succeeded_by(self.runners, self.topology)
        gone = [runner for name, runner in before.items() if name not in self.runners]
        for runner in gone:
            self.ports.forget(runner.name)
        self._tell_watcher()
        return gone

    async def take_over(self, memory: Memory, outputs: Outputs) -> dict[str, RunRecord]:
        """Carry on where an earlier supervisor stopped; the runs that were taken over."""
        host, clock = self._surroundings.host, self._surroundings.clock
        self.ports.restore(memory, host.facts.boot_id, self.runners)
        with self._surroundings.together():
            adopted = adopt_runs(self.runners, host, memory, clock, outputs)
        self.occupied = await settle_rest(self.runners, host, memory, outputs, adopted)
        self.ports.settle(self.runners)
        release_sockets(self.runners, host, memory)
        return adopted

    def pids(self) -> dict[str, int]:
        """The main process of each service that has one."""
        found = ((name, runner.status.pid) for name, runner in self.runners.items())
        return {name: pid for name, pid in found if pid is not None}

    def watch(self, changed: Callable[[], None] | None) -> None:
        """Tell whoever tells others where services are of every change; None tells nobody any more."""
        self._watcher = changed

    def _tell_watcher(self) -> None:
        if self._watcher is not None:
            self._watcher()

    def expect(self, leaving: Set[str]) -> None:
        """These are about to end and stay down; see `Gate.expect`."""
        self._gate.expect(leaving)

    def expect_moves(self, names: Set[str]) -> None:
        """The runs of these are about to end, and the next ones get other ports."""
        self._gate.expect_moves(names)

    @property
    def given_ports(self) -> dict[str, int]:
        """The ports that live runs were given, by service."""
        return {
            name: runner.tcp_port
            for name, runner in self.runners.items()
            if runner.run is not None and runner.tcp_port is not None and runner.spec.tcp_port == AUTO
        }

    def _make_runner(self, spec: ServiceSpec) -> ServiceRunner:
        around = self._surroundings
        return ServiceRunner(spec, around.host, around.clock, around.output(spec), self)

    def enabled(self) -> list[str]:
        """The services that `--all` means, in start order."""
        return [name for name, runner in self.runners.items() if runner.spec.enabled]

    def runner(self, name: str) -> ServiceRunner:
        """The runner of a service. Raises UnknownServiceError."""
        try:
            return self.runners[name]
        except KeyError:
            raise UnknownServiceError(name, self.runners) from None

    def unmet(self, name: str) -> list[str]:
        """The dependencies of a service that have not reached their condition."""
        return self._gate.unmet(name)

    def check_names(self, names: Iterable[str]) -> list[str]:
        """The same names, each once, all of them known. Raises UnknownServiceError."""
        return [self.runner(name).name for name in dict.fromkeys(names)]

    def with_dependents(self, names: Sequence[str], dependents: Dependents) -> list[str]:
        """The services that a stop of these is about. Raises DependentsError where it would harm others."""
        affected = self.operations.dependents_of(names)
        if dependents is Dependents.STOP:
            return list(dict.fromkeys([*names, *(each for others in affected.values() for each in others)]))
        if affected and dependents is Dependents.REFUSE:
            raise DependentsError(
                "\n".join(f"cannot stop '{name}': {_listed(others)} it" for name, others in affected.items())
            )
        return list(names)

    def reset(self, names: Sequence[str]) -> None:
        """Forget failures and restart histories."""
        for name in names:
            self.runners[name].post(ResetRequested())

    def _warn(self, name: str, text: str) -> None:
        _log.warning("%s: %s", name, text, extra={"service": name})
        self._note("limit", name, text)

    def _note(self, kind: str, name: str, text: str) -> None:
        run_id = self.runners[name].status.run_id
        self._surroundings.events.append(
            self._event(name, Announce(kind, "", "", Reason.UNKNOWN, text, run_id))
        )

    # ---- Listener ----

    def record(self, runner: ServiceRunner, announcements: Sequence[Announce]) -> None:
        """Store the new status and what happened, all of it or nothing, before it is acted on."""
        around = self._surroundings
        with around.together():
            around.states.save_status(runner.name, runner.status)
            if runner.status.state not in LIVE_STATES:  # nobody needs to look for the run any more
                around.states.forget_run(runner.name)
            for announcement in announcements:
                around.events.append(self._event(runner.name, announcement))

    def run_began(self, runner: ServiceRunner, run: Run, run_id: int) -> None:
        """Remember who the run is."""
        self._surroundings.states.save_run(
            RunRecord(
                service=runner.name,
                run_id=run_id,
                boot_id=self._surroundings.host.facts.boot_id,
                pid=run.pid,
                started_ticks=run.started_ticks,
                cgroup=run.cgroup,
                config_hash=runner.run_hash,
                started_wall=wall_text(runner.started_wall) if runner.started_wall else None,
                watchdog_seconds=runner.notify_watch.watchdog_seconds,
                limits=run.limits,
                tcp_port=runner.tcp_port,
                fifos={
                    str(key): path for key, path in self._surroundings.host.stream_paths(runner.name).items()
                },
            )
        )

    def assign_port(self, runner: ServiceRunner) -> int | None:
        """A run is to begin: the port it listens on."""
        return self.ports.assign(runner)

    def run_ended(self, runner: ServiceRunner) -> None:
        """Nothing is left of the run; that it has ended is recorded next."""
        self.ports.note_end(runner)

    def _event(self, name: str, announcement: Announce) -> EventRecord:
        is_change = announcement.kind in ("state", "health")
        return EventRecord(
            at_wall=wall_text(self._surroundings.clock.wall()),
            service=name,
            run_id=announcement.run_id,
            kind=announcement.kind,
            from_state=announcement.before if is_change else None,
            to_state=announcement.after if is_change else None,
            reason=announcement.reason,
            detail=announcement.detail,
        )

    def check_dependencies(self, runner: ServiceRunner) -> None:
        """A service waits: look at it soon."""
        self._gate.ask(runner.name)

    def changed(self, runner: ServiceRunner) -> None:
        """A service has a new status."""
        if not runner.status.holds_sockets:
            self._surroundings.host.sockets.release(runner.name)
        self._gate.note(runner)
        self.ports.note(runner)
        self._tell_watcher()
        self._surroundings.changed(runner)


def _listed(names: Sequence[str]) -> str:
    """ "'web' depends on", "'web', 'api' and 12 more depend on"."""
    shown = [f"'{name}'" for name in names[:_MAX_NAMED]]
    if len(names) > _MAX_NAMED:
        shown.append(f"{len(names) - _MAX_NAMED} more")
    text = " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
    return f"{text} {'depends' if len(names) == 1 else 'depend'} on"
