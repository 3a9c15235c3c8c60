"""The supervisor as the control API sees it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from blackhole_cg.core.facts import EventRecord, HostFacts, ServiceInfo
from blackhole_cg.core.words import Dependents, State
from blackhole_cg.observe.log_reader import LogQuery, LogReader
from blackhole_cg.observe.metrics import Measured
from blackhole_cg.runner.clock import Clock
from blackhole_cg.supervisor.endpoints import list_endpoints
from blackhole_cg.supervisor.explain import explain
from blackhole_cg.supervisor.observations import Observations
from blackhole_cg.supervisor.unknown import kill_cgroup, unknown_cgroups
from blackhole_cg.supervisor.upgrade import begin_upgrade

if TYPE_CHECKING:
    from blackhole_cg.supervisor.supervisor import Supervisor


class SupervisorApi:
    """Adapts a Supervisor to what the control server asks for."""

    def __init__(self, supervisor: Supervisor, clock: Clock) -> None:
        self._supervisor = supervisor
        self._clock = clock
        self._observations = Observations(supervisor.watching, clock)

    @property
    def stopping(self) -> bool:
        """Whether the ordered shutdown has begun."""
        return self._supervisor.stopping

    def names(self) -> Sequence[str]:
        """Every configured service, in start order."""
        return tuple(self._supervisor.services.runners)

    def services(self) -> Sequence[ServiceInfo]:
        """Every configured service, in start order."""
        return self._supervisor.all_services()

    def service(self, name: str) -> ServiceInfo:
        """One service."""
        return self._supervisor.service_info(name)

    def health(self, name: str) -> dict[str, Any]:
        """The health of one service, and what is known of each probe."""
        runner = self._supervisor.services.runner(name)
        probes = [facts.to_json() for facts in runner.health_watch.facts()]
        return {"health": str(runner.status.health), "probes": probes}

    def endpoints(self) -> dict[str, dict[str, Any]]:
        """Where services can be reached."""
        return list_endpoints(self._supervisor.services)

    def measurements(self) -> Sequence[Measured]:
        """All that is known of every service; what was learnt of a run is left out once it is over."""
        return [self._measure(info) for info in self._supervisor.all_services()]

    def samples(self, name: str, *, history: bool = False, since: datetime | None = None) -> dict[str, Any]:
        """The newest sample of a service, and its past if wanted."""
        found: dict[str, Any] = {"latest": self._observations.latest(name)}
        return found | ({"history": self._observations.history(name, since)} if history else {})

    def follow_samples(self, names: Sequence[str]) -> AsyncIterator[dict[str, Any]]:
        """The newest sample of each, or of all when none is named, and then each as it is taken."""
        return self._observations.follow(names)

    def processes(self, name: str) -> list[dict[str, Any]]:
        """Every process of a service."""
        return self._observations.processes(name)

    def why(self, name: str) -> dict[str, Any]:
        """What a service is, and why, as far as events do not tell."""
        known = explain(self._supervisor.services, name, self._clock.now())
        return {"service": self.service(name).to_json(), **known}

    async def start(self, names: Sequence[str]) -> None:
        """Start these, or all enabled ones when none is named."""
        await self._supervisor.start(*names)

    async def stop(self, names: Sequence[str], dependents: Dependents = Dependents.REFUSE) -> list[str]:
        """Stop these, or all when none is named; those it was about."""
        return await self._supervisor.stop(*names, dependents=dependents)

    async def restart(self, names: Sequence[str]) -> None:
        """Restart these, or all enabled ones when none is named."""
        await self._supervisor.restart(*names)

    def reset(self, names: Sequence[str]) -> None:
        """Reset these, or all when none is named."""
        self._supervisor.reset(*names)

    async def reload(self, *, force: bool = False) -> dict[str, Any]:
        """Apply what has changed in the configuration file."""
        return (await self._supervisor.reload(force=force)).to_json()

    async def plan(self, path: str) -> dict[str, Any]:
        """What to apply the configuration in this file would change."""
        return await self._supervisor.configuration.preview(path)

    async def apply(self, path: str, *, force: bool = False) -> dict[str, Any]:
        """Go by the configuration in this file."""
        return (await self._supervisor.configuration.apply(path, force=force)).to_json()

    async def roll_back(self, number: int | None, *, force: bool = False) -> dict[str, Any]:
        """Return to a configuration that was applied before."""
        return (await self._supervisor.configuration.roll_back(number, force=force)).to_json()

    def configurations(self) -> list[dict[str, Any]]:
        """Those that were applied last, oldest first."""
        return [entry.to_json() for entry in self._supervisor.configuration.applied()]

    async def upgrade(self, client: int) -> None:
        """Let the next program take the place of this one."""
        await begin_upgrade(self._supervisor.upgrade, client)

    def host(self) -> HostFacts:
        """What this host can do."""
        return self._supervisor.host_facts

    def unknown_cgroups(self) -> list[dict[str, Any]]:
        """The cgroups below the root that belong to no live run."""
        return unknown_cgroups(self._supervisor.host, self._supervisor.services)

    async def kill_cgroup(self, name: str) -> list[int]:
        """End what is in such a cgroup, and remove it."""
        return await kill_cgroup(self._supervisor.host, self._supervisor.services, name)

    def events(
        self, service: str | None = None, after_id: int | None = None, newest: int | None = None
    ) -> Sequence[EventRecord]:
        """Stored events, oldest first."""
        return self._supervisor.events.read(service=service, after_id=after_id or 0, newest=newest)

    def follow_events(self, service: str | None, after_id: int) -> AsyncIterator[EventRecord]:
        """Every event after `after_id`, and then each as it is stored."""
        return self._supervisor.events.follow(after_id=after_id, service=service)

    def log_lines(self, name: str, query: LogQuery) -> AsyncIterator[bytes]:
        """Blocks of whole JSON lines, newlines included."""
        return self._reader(name).read(query)

    def follow_logs(self, name: str, query: LogQuery) -> AsyncIterator[bytes]:
        """The same, and then each line as it is written."""
        return self._reader(name).read(query, follow=True)

    def _measure(self, info: ServiceInfo) -> Measured:
        supervisor, monitor = self._supervisor, self._supervisor.watching.monitor
        is_running = info.state == State.RUNNING
        probes = supervisor.services.runner(info.name).health_watch.facts() if is_running else ()
        sample, reading = monitor.latest(info.name), monitor.reading(info.name)
        return Measured(info, sample, reading, probes, supervisor.tally.of(info.name))

    def _reader(self, name: str) -> LogReader:
        return LogReader(self._supervisor.outputs.pumps[name].log_file)
