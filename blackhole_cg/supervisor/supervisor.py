"""The composition root: builds everything for one configuration, and takes it down again.

The Python API. Entering `async with Supervisor(...)` claims the runtime directory and the cgroup root, and
listens on the control socket; leaving it stops every service in reverse order.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self

from blackhole_cg.control.metrics import MetricsListener
from blackhole_cg.control.server import ControlServer
from blackhole_cg.core.facts import HostFacts, LimitProblem, ServiceInfo
from blackhole_cg.core.instance_list import InstanceProvider
from blackhole_cg.core.plan import Plan
from blackhole_cg.core.record import RunRecord
from blackhole_cg.core.spec import SupervisorSpec
from blackhole_cg.core.status import ServiceStatus
from blackhole_cg.core.tally import Tally
from blackhole_cg.core.words import LIVE_STATES, Dependents, Reason, State
from blackhole_cg.errors import OperationError
from blackhole_cg.kernel.host import HostOptions, LinuxHost
from blackhole_cg.kernel.inherited import Inheritance
from blackhole_cg.observe.console import Console
from blackhole_cg.observe.event_store import EventStore
from blackhole_cg.runner.clock import Clock, loop_clock
from blackhole_cg.runner.host import Host
from blackhole_cg.runner.service import ServiceRunner
from blackhole_cg.supervisor.api import SupervisorApi
from blackhole_cg.supervisor.applied import Source
from blackhole_cg.supervisor.carry_on import services_to_start, settle
from blackhole_cg.supervisor.endpoints import EndpointsFile
from blackhole_cg.supervisor.feeding import Feeding, begin_with
from blackhole_cg.supervisor.notes import Notes
from blackhole_cg.supervisor.outputs import Outputs
from blackhole_cg.supervisor.paths import Paths, default_paths
from blackhole_cg.supervisor.reconcile import Applied
from blackhole_cg.supervisor.reload import Configuration, Parts, check_isolation
from blackhole_cg.supervisor.report import Reporter
from blackhole_cg.supervisor.runtime_directory import Contents, RuntimeDirectory
from blackhole_cg.supervisor.services import Services, Surroundings
from blackhole_cg.supervisor.steering import Beginning, Steering, read_beginning
from blackhole_cg.supervisor.stores import Stores
from blackhole_cg.supervisor.upgrade import CONTROL_SOCKET, LOCK, Upgrade
from blackhole_cg.supervisor.watching import Watching

_log = logging.getLogger(__name__)

KILL_GRACE_SECONDS = 5.0
"""After a kill the kernel needs a moment; a process that outlives this hangs in the kernel itself."""


class Supervisor:
    """Supervises the services of one configuration; an asynchronous context manager.

    Args:
        config: what to run: the path of a configuration file, or one that is resolved already.
        source: reads the configuration again for a reload; the same path when None.
        paths: where sockets, state and logs are kept; the default directories when None.
        host: the machine; this one when None.
        console: also shows what services write.
        provider: says which instances of the templates in the file there should be, besides those in it.

    Raises:
        ConfigError: the configuration file is wrong.
    """

    services: Services
    events: EventStore
    outputs: Outputs
    watching: Watching
    configuration: Configuration
    make_stores: Callable[..., Stores] = Stores

    def __init__(  # noqa: PLR0913  all but the first are by name, and seldom given
        self,
        config: SupervisorSpec | str | Path,
        *,
        paths: Paths | None = None,
        host: Host | None = None,
        console: Console | None = None,
        source: Source | None = None,
        provider: InstanceProvider | None = None,
    ) -> None:
        self.paths = paths or default_paths(os.environ, os.geteuid())
        self._spec, self._supply = begin_with(config, source, provider, self.paths)
        self.tally = Tally()
        self.stopping = False
        self.on_change: Callable[[], None] = lambda: None  # set it before open; called after every change
        self._host = host or LinuxHost(HostOptions(self.paths.runtime_dir, self._spec.runtime.isolation))
        self._console = console
        self._stack = AsyncExitStack()
        self._shutdown_task: asyncio.Task[None] | None = None
        self._detached = False
        self._remembered: set[str] = set()
        self._adopted: dict[str, RunRecord] = {}
        self.inherited = Inheritance()  # set it before open: what the program before this one has left
        self.upgrade: Upgrade | None = None  # set it before open; without one this cannot be upgraded

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.shutdown()

    async def open(self) -> None:
        """Claim what a supervisor needs and answer on the control socket; starts no service.

        Raises:
            IsolationError: `isolation: required` and a limit cannot be enforced; nothing was touched.
            LockHeldError: another supervisor has this runtime directory.
            CgroupError: the cgroup root cannot be used.
            OSError: a directory or the socket cannot be made.
        """
        self._check_isolation()
        try:
            await self._open()
        except BaseException:
            await self._stack.aclose()
            raise

    async def _open(self) -> None:
        clock = loop_clock()
        self._directory = RuntimeDirectory(self.paths)
        self._directory.claim(self.inherited.take(LOCK))
        self._stack.callback(self._directory.lock.release)
        self._host.open()
        self._stack.callback(self._host.close)
        await self._host.commands.clear()
        self._stack.push_async_callback(self._host.commands.close)
        # Once more: a controller that is offered may still refuse to be enabled.
        problems = self._check_isolation()
        self._stores = self.make_stores(self.paths.database, clock, self.tally.note)
        self._stack.callback(self._stores.close)
        self.events = self._stores.events
        self._notes = Notes(self.events, clock, lambda name: self.services.runners[name].status.run_id)
        self.outputs = Outputs(self._host, self.paths, self._console, self._notes.log)
        self._stack.callback(self.outputs.close)
        self.watching = Watching(self._host, clock.now, self._notes.rule)
        self._stack.callback(self.watching.close)
        around = Surroundings(self._host, clock, self.outputs.open, *self._stores.sinks, self._note_change)
        beginning = read_beginning(self._spec, self.paths)
        self.services = Services(beginning.staged, around)
        self._steering = self._make_steering(beginning, clock)
        self.configuration = self._steering.configuration
        self._stack.callback(self.configuration.close)
        endpoints = EndpointsFile(self.paths.runtime_dir, self.services)
        self._stack.callback(lambda: endpoints.close(keep=self._detached))
        await self._carry_on()
        self._steering.begin(self._adopted)
        self._reap_orphans()
        self._reporter = Reporter(
            clock, self.outputs.pumps, self._adopted, self._host.sockets, self._steering.rolling.holds_back
        )
        with self._stores.together():
            self._notes.limits(problems, known=self._adopted)
        api = SupervisorApi(self, clock)
        self._server = ControlServer(api, self.paths.socket, self._spec.runtime.control_group)
        await self._server.open(self.inherited.take(CONTROL_SOCKET))
        self._stack.push_async_callback(self._server.close)
        metrics = MetricsListener(api, self._spec.runtime.metrics_listen)
        await metrics.open()
        endpoints.write()
        self._stack.push_async_callback(metrics.close)
        contents = Contents(self._server, self.outputs, self.services, endpoints, self._notes.runtime)
        self._directory.guard(contents)
        self._stack.push_async_callback(self._directory.leave)
        feeding = Feeding(self._supply, self.configuration, self._notes.instances, clock.jitter)
        self._stack.callback(feeding.close)
        settle(bool(self._adopted))

    def _make_steering(self, beginning: Beginning, clock: Clock) -> Steering:
        states = self._stores.states
        parts = Parts(
            self.services, self.outputs, self.events, self._notes, states, self.watching, self.tally
        )
        sources = self._supply.sources(self.paths.runtime_dir)
        return Steering(beginning, parts, self._host, sources, clock)

    async def _carry_on(self) -> None:
        """Number runs on, and take over what an earlier supervisor left running."""
        memory = self._stores.begin(self._host.facts.boot_id, self.outputs.run_ids())
        for name in memory.run_ids.keys() & self.services.runners.keys():
            self.services.runners[name].continue_from(ServiceStatus(run_id=memory.run_ids[name]))
        self._adopted = await self.services.take_over(memory, self.outputs)
        self._remembered = set(memory.statuses)

    def _reap_orphans(self) -> None:
        """They would stay zombies. Only once runs are taken over, which would pass for orphans till then."""
        if self._host.subreaper:
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGCHLD, self._host.reap_strangers)
            self._stack.callback(loop.remove_signal_handler, signal.SIGCHLD)
            self._host.reap_strangers()

    # ---- operations ----

    async def start(self, *names: str) -> None:
        """Start services and what they need; all enabled ones when none is named.

        Raises:
            UnknownServiceError: no such service.
            OperationError: a required one could not start; what this call began is stopped again.
        """
        asked, undo = self._accept(names), True
        self.configuration.refuse_leaving(asked)
        if not names:
            asked = services_to_start(self.services, self._remembered)
            # What an earlier supervisor kept running, or was told to start, is not ours to give up.
            undo = not (self._adopted or self._remembered or self.services.occupied)
            self._remembered.clear()  # that was the start in which it mattered
        await self.services.operations.start(asked, again=bool(names), undo=undo)
        self._stores.states.confirm()

    async def stop(self, *names: str, dependents: Dependents = Dependents.REFUSE) -> list[str]:
        """Stop services, dependents first; all when none is named. Those it was about.

        Raises:
            UnknownServiceError: no such service.
            DependentsError: running services need one of them, and `dependents` does not say what of those.
            OperationError: a newer wish wants one of them up.
        """
        asked = self._accept(names) if names else list(self.services.runners)
        going = self.services.with_dependents(asked, dependents)
        await self.services.operations.stop(going)
        self._stores.states.confirm()
        return going

    async def restart(self, *names: str) -> None:
        """Stop services in reverse order and start them again; all enabled ones when none is named.

        Raises:
            UnknownServiceError: no such service.
            OperationError: one of them could not start again.
        """
        asked = self._accept(names)
        self.configuration.refuse_leaving(asked)
        await self.services.operations.restart(asked)
        self._stores.states.confirm()

    def reset(self, *names: str) -> None:
        """Forget failures and restart histories, of all when none is named. Raises UnknownServiceError."""
        self.services.reset(self._accept(names) if names else list(self.services.runners))
        self._stores.states.confirm()

    async def reload(self, config: SupervisorSpec | None = None, *, force: bool = False) -> Plan:
        """Apply the difference to another configuration, or to the file as it is now; the difference.

        All of it is checked first. Services that did not change are not touched; one that changed is
        restarted where a run depends on what changed, unless it is wanted down. Without `force` limits of
        live runs are not lowered below what is in use.

        Raises:
            ConfigError: the file is wrong; nothing was changed.
            IsolationError: `isolation: required` and a limit cannot be enforced; nothing was changed.
            OperationError: a service did not get where the new configuration, which holds, wants it.
        """
        plan = await self.configuration.reload(config, force=force)
        self._stores.states.confirm()
        return plan

    def reconcile(self, config: SupervisorSpec) -> Applied:
        """Go by another configuration from now on, and return while the work for it is under way.

        The newest one counts, service by service, whatever is still under way for earlier ones; what could
        not be started is tried again. `settled()` of the answer waits for what this one touches.

        Raises:
            IsolationError: `isolation: required` and a limit cannot be enforced; nothing was changed.
            OperationError: the supervisor ends.
            BlackholeError: it cannot be gone by; nothing was changed.
        """
        return self.configuration.take(config)

    @property
    def spec(self) -> SupervisorSpec:
        """The newest configuration; before `open`, the one it is made with."""
        return self.configuration.spec if hasattr(self, "configuration") else self._spec

    def status(self, name: str) -> State:
        """The state of a service. Raises UnknownServiceError."""
        return self.services.runner(name).status.state

    def is_running(self, name: str) -> bool:
        """Whether a service is in state running. Raises UnknownServiceError."""
        return self.status(name) is State.RUNNING

    def service_info(self, name: str) -> ServiceInfo:
        """Everything there is to tell about a service. Raises UnknownServiceError."""
        return self._reporter.info(self.services.runner(name))

    def all_services(self, *, measured: bool = True) -> list[ServiceInfo]:
        """Every configured service, in start order; what they use is asked of the kernel if `measured`."""
        return [self._reporter.info(runner, measured) for runner in self.services.runners.values()]

    def enabled_states(self) -> list[State]:
        """The states of the enabled services, in start order."""
        return [self.status(name) for name in self.services.enabled()]

    @property
    def host_facts(self) -> HostFacts:
        """What this host can do."""
        return self._host.facts

    @property
    def host(self) -> Host:
        """The machine itself."""
        return self._host

    # ---- the end ----

    async def shutdown(self) -> None:
        """Stop every service in reverse order within the shutdown timeout, and give everything back."""
        if self._detached:
            return
        if self._shutdown_task is None:
            self._end()
            self._shutdown_task = asyncio.get_running_loop().create_task(self._shutdown())
        await asyncio.shield(self._shutdown_task)

    async def detach(self) -> None:
        """Give everything back but the services: they run on, for the next supervisor to take over."""
        self._end()
        self._detached = True
        for runner in self.services.runners.values():
            runner.detach()
        await self._stack.aclose()

    def share(self) -> dict[str, int]:
        """By name, descriptors that the next program in this process needs, for the caller to close."""
        own = {LOCK: self._directory.lock.share(), CONTROL_SOCKET: self._server.share()}
        return {**own, **self._host.sockets.handed_over()}

    def kill(self) -> None:
        """End every service at once; for those who cannot wait for `shutdown`."""
        self._end()
        self.services.operations.kill(list(self.services.runners))

    def _end(self) -> None:
        self.stopping = self.configuration.closed = True

    async def _shutdown(self) -> None:
        names = list(self.services.runners)
        seconds = self.spec.runtime.shutdown_timeout_seconds
        try:
            async with asyncio.timeout(seconds):
                await self.services.operations.stop(names, Reason.SHUTDOWN, "the supervisor ends")
        except TimeoutError:
            _log.warning("shutdown took longer than %gs: killing %s", seconds, ", ".join(self._live()))
            await self._kill_rest()
        finally:
            self.outputs.remove()
            self._supply.discard()
            for name in names:
                self._host.sockets.release(name)
            if not self._live():
                self._stores.states.clear()
                self._steering.rolling.forget()
            await self._stack.aclose()

    async def _kill_rest(self) -> None:
        self.services.operations.kill(list(self.services.runners))
        try:
            async with asyncio.timeout(KILL_GRACE_SECONDS):
                await self.services.operations.until_down(list(self.services.runners))
        except TimeoutError:
            _log.error("cannot end %s: killed, and still there", ", ".join(self._live()))

    def _live(self) -> list[str]:
        return [name for name, runner in self.services.runners.items() if runner.status.state in LIVE_STATES]

    def _accept(self, names: Sequence[str]) -> list[str]:
        self._refuse_when_stopping()
        return self.services.check_names(names) if names else self.services.enabled()

    def _refuse_when_stopping(self) -> None:
        if self.stopping:
            raise OperationError("the supervisor is shutting down")

    # ---- what is seen ----

    def _check_isolation(self) -> list[LimitProblem]:
        """The limits that cannot be enforced. Raises IsolationError where that is refused."""
        return check_isolation(self._host, self._spec.services.values(), self._spec.runtime.isolation)

    def _note_change(self, runner: ServiceRunner) -> None:
        self._steering.note(runner)
        self.watching.note(runner)
        self.on_change()
