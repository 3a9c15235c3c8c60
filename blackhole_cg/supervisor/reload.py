"""Carrying out the difference between two configurations on running services."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol

from blackhole_cg.core.plan import ChangeKind, Plan
from blackhole_cg.core.spec import SupervisorSpec
from blackhole_cg.core.status import ServiceStatus
from blackhole_cg.core.words import Desired, Reason
from blackhole_cg.errors import BlackholeError, OperationError, StoreError
from blackhole_cg.supervisor.outputs import Outputs
from blackhole_cg.supervisor.services import Services

_GONE = "the configuration was reloaded without it"
_SAID = {
    ChangeKind.ADDED: "added by a reload",
    ChangeKind.RESTART: "changed by a reload: needs a new run",
    ChangeKind.LIVE: "changed by a reload: holds at once",
}


class Records(Protocol):
    """What is recorded of services."""

    def newest_run_ids(self) -> dict[str, int]:
        """The highest number of a run of each service. Raises StoreError."""


class Reload:
    """One reload, in three steps: take away, go by the new configuration, bring up.

    Between the steps a newer wish may come for any service, and wins.

    Args:
        services: what runs now.
        outputs: where its output goes.
        records: numbers of runs.
        note: stores (service, detail) as an event.
    """

    def __init__(
        self,
        services: Services,
        outputs: Outputs,
        records: Records,
        note: Callable[[str, str], None],
    ) -> None:
        self._services = services
        self._outputs = outputs
        self._records = records
        self._note = note

    async def take_away(self, old: SupervisorSpec, new: SupervisorSpec, plan: Plan) -> None:
        """Stop what is configured no more, or disabled now.

        Raises:
            OperationError: a newer wish wants one of them up.
        """
        disabled = [
            change.service
            for change in plan.changes
            if change.service in old.services
            and change.service in new.services
            and old.services[change.service].enabled
            and not new.services[change.service].enabled
        ]
        going = [*plan.names(ChangeKind.REMOVED), *disabled]
        if going:
            await self._services.operations.stop(going, Reason.OPERATOR, _GONE)

    def install(self, new: SupervisorSpec, plan: Plan) -> list[str]:
        """Go by the new configuration; the services to forget. Starts and stops nothing.

        Raises:
            BlackholeError: a new service's FIFOs cannot be made; nothing has changed.
        """
        try:
            removed = self._services.reconfigure(new)
        except BlackholeError:
            self._outputs.discard(plan.names(ChangeKind.ADDED))
            raise
        with suppress(StoreError):  # told already; the numbers begin anew
            newest = self._records.newest_run_ids()
            for name in plan.names(ChangeKind.ADDED):
                self._services.runners[name].continue_from(ServiceStatus(run_id=newest.get(name, 0)))
        for change in plan.changes:
            if change.kind is not ChangeKind.REMOVED:
                self._outputs.pumps[change.service].log_file.set_policy(new.services[change.service].logs)
                keys = f" ({', '.join(change.keys)})" if change.keys else ""
                self._note(change.service, f"{_SAID[change.kind]}{keys}")
        self._outputs.discard([runner.name for runner in removed])
        return [runner.name for runner in removed]

    async def bring_up(self, old: SupervisorSpec, plan: Plan) -> None:
        """Restart what is wanted and needs a new run, and start what is new or newly enabled.

        Raises:
            OperationError: some of them did not get there; the rest did, by the new configuration.
        """
        services = self._services
        again = [
            name
            for name in plan.names(ChangeKind.RESTART)
            if services.runners[name].status.desired is Desired.UP
        ]
        fresh = [
            name
            for name in services.enabled()
            if name not in again and (name not in old.services or not old.services[name].enabled)
        ]
        problems = []
        if again:
            problems += await _problems_of(services.operations.restart(services.topology.sort(again)))
        if fresh:
            problems += await _problems_of(services.operations.start(fresh))
        if problems:
            raise OperationError("\n".join(problems))


async def _problems_of(operation: Awaitable[None]) -> list[str]:
    try:
        await operation
    except OperationError as error:
        return [str(error)]
    return []
