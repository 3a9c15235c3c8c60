"""What steers services by a configuration, put together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from blackhole_cg.core.rollout import Rollout
from blackhole_cg.core.spec import SupervisorSpec
from blackhole_cg.observe.rollout_file import RolloutFile
from blackhole_cg.runner.clock import Clock
from blackhole_cg.runner.host import Host
from blackhole_cg.runner.service import ServiceRunner
from blackhole_cg.supervisor.applied import AppliedConfigurations, Sources
from blackhole_cg.supervisor.paths import Paths
from blackhole_cg.supervisor.reconcile import Reconciler
from blackhole_cg.supervisor.reload import Configuration, Parts
from blackhole_cg.supervisor.rolling import Rolling, begin_with_rollouts


@dataclass(frozen=True, slots=True)
class Beginning:
    """What a supervisor begins with: `goal` is wanted, `staged` is how far it has been rolled out."""

    goal: SupervisorSpec
    staged: SupervisorSpec
    unfinished: list[Rollout]
    file: RolloutFile
    paths: Paths


def read_beginning(spec: SupervisorSpec, paths: Paths) -> Beginning:
    """The configuration, with the rolling changes that an earlier supervisor left in it."""
    file = RolloutFile(paths.rollouts)
    return Beginning(spec, *begin_with_rollouts(spec, file), file, paths)


class Steering:
    """The reconciler, the rollouts before it, and the configuration that both go by."""

    def __init__(
        self, beginning: Beginning, parts: Parts, host: Host, sources: Sources, clock: Clock
    ) -> None:
        self._beginning = beginning
        self._reconciler = Reconciler(beginning.staged, parts.services, parts, clock.jitter)
        self.rolling = Rolling(self._reconciler, parts.services, beginning.file, parts.notes.rollout)
        history = AppliedConfigurations(beginning.paths.configurations, clock)
        history.keep(beginning.goal, "run", None)
        self.configuration = Configuration(parts, self.rolling, host, sources, history)

    def begin(self, adopted: Iterable[str]) -> None:
        """Go on with what an earlier supervisor left; `adopted` are the runs that were taken over."""
        self._reconciler.catch_up(adopted)
        self.rolling.begin(self._beginning.goal, self._beginning.unfinished)

    def note(self, runner: ServiceRunner) -> None:
        """Take in a service's new status."""
        self._reconciler.note(runner)
        self.rolling.note(runner)
