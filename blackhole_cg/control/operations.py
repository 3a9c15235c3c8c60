"""What the control API needs of a supervisor, and nothing more.

The supervisor satisfies `Operations` structurally; nothing here knows how a service is run or where its log
is kept.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any, Protocol

from blackhole_cg.core.facts import EventRecord, HostFacts, ServiceInfo
from blackhole_cg.core.words import Dependents
from blackhole_cg.observe.log_reader import LogQuery
from blackhole_cg.observe.metrics import Measured


class Operations(Protocol):
    """A supervisor as the control API sees it.

    Every method that takes a name raises UnknownServiceError for one that is not configured.
    """

    @property
    def stopping(self) -> bool:
        """Whether the ordered shutdown has begun; from then on no operation is accepted."""

    def names(self) -> Sequence[str]:
        """Every configured service, disabled ones included, in start order."""

    def services(self) -> Sequence[ServiceInfo]:
        """Every configured service, in start order."""

    def service(self, name: str) -> ServiceInfo:
        """One service."""

    def health(self, name: str) -> dict[str, Any]:
        """The health of a service, and what is known of each of its probes."""

    def endpoints(self) -> dict[str, dict[str, Any]]:
        """Where services can be reached, by name, in start order; those that listen somewhere."""

    def measurements(self) -> Sequence[Measured]:
        """All that is known of every service, for its metrics."""

    def samples(self, name: str, *, history: bool = False, since: datetime | None = None) -> dict[str, Any]:
        """What a service used when it was looked at last, None if it was not; its past from a time on."""

    def follow_samples(self, names: Sequence[str]) -> AsyncIterator[dict[str, Any]]:
        """The newest sample of each of these services, or of all, and then each as it is taken."""

    def processes(self, name: str) -> list[dict[str, Any]]:
        """What every single process of a service uses; expensive."""

    def why(self, name: str) -> dict[str, Any]:
        """A service, what it waits for, and what its restart policy has left."""

    async def start(self, names: Sequence[str]) -> None:
        """Start these services and what they depend on, as one operation; return once they have started.

        No names are all enabled services; only what is named is run again once it has completed.

        Raises:
            OperationError: one did not, or a newer wish superseded this one.
        """

    async def stop(self, names: Sequence[str], dependents: Dependents = Dependents.REFUSE) -> list[str]:
        """Stop these services, or all of them; return their names once nothing is left of them.

        Raises:
            DependentsError: others need one of them, and `dependents` does not say what of those.
            OperationError: a newer wish superseded this one.
        """

    async def restart(self, names: Sequence[str]) -> None:
        """Stop these services, or all enabled ones, then start them; return once they have started.

        Raises:
            OperationError: one did not, or a newer wish superseded this one.
        """

    def reset(self, names: Sequence[str]) -> None:
        """Clear `failed` and the restart history of these services, or of all; starts nothing."""

    async def reload(self, *, force: bool = False) -> dict[str, Any]:
        """Read the configuration again and apply the difference; the difference, once it is applied.

        Without `force` limits of live runs are not lowered below what is in use.

        Raises:
            ConfigError: the file is wrong; nothing was changed.
            OperationError: a service did not get where the new configuration wants it.
        """

    async def plan(self, path: str) -> dict[str, Any]:
        """What to apply the configuration in this file would change. Raises ConfigError, OperationError."""

    async def apply(self, path: str, *, force: bool = False) -> dict[str, Any]:
        """Go by the configuration in this file; the difference, once it is applied. Raises as `reload`."""

    async def roll_back(self, number: int | None, *, force: bool = False) -> dict[str, Any]:
        """Return to a configuration that was applied before, the last one by default. Raises as `reload`."""

    def configurations(self) -> list[dict[str, Any]]:
        """The configurations that were applied last, oldest first; the last one is in effect."""

    async def upgrade(self, client: int) -> None:
        """Make sure that the next program can carry on, then let this one end in its favour.

        Args:
            client: a descriptor of the connection on which the next program answers; closed in every case.

        Raises:
            OperationError: it cannot; nothing has changed.
        """

    def host(self) -> HostFacts:
        """What this host can do."""

    def unknown_cgroups(self) -> Sequence[dict[str, Any]]:
        """The cgroups below the supervisor's that belong to no live run, and who is in them."""

    async def kill_cgroup(self, name: str) -> Sequence[int]:
        """Kill what is in one of those, and remove it; the processes that were in it.

        Raises:
            OperationError: there is no such.
        """

    def events(
        self, service: str | None = None, after_id: int | None = None, newest: int | None = None
    ) -> Sequence[EventRecord]:
        """Stored events, oldest first: of one service, after an id, and of those the newest so many."""

    def follow_events(self, service: str | None, after_id: int) -> AsyncIterator[EventRecord]:
        """Every event after `after_id`, oldest first, and then each as it is stored."""

    def log_lines(self, name: str, query: LogQuery) -> AsyncIterator[bytes]:
        """The raw JSON lines of a service's log that match, oldest first, in blocks of whole lines."""

    def follow_logs(self, name: str, query: LogQuery) -> AsyncIterator[bytes]:
        """What `log_lines` gives, and then each matching line as it is written.

        An item is one whole line or several: whoever has many at hand yields them together.
        """
