"""What happened to services, counted: numbers that only grow for as long as a supervisor lives.

A restart history can be reset and a cgroup's counters end with their run; these go on.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from blackhole_cg.core.facts import EventRecord
from blackhole_cg.core.words import LIVE_STATES, Reason, State


@dataclass(slots=True)
class ServiceTally:
    """The counts of one service."""

    restarts: int = 0  # automatic ones, each counted when it is decided
    exits: Counter[str] = field(default_factory=Counter)  # runs that ended, by reason
    events: Counter[tuple[str, str]] = field(default_factory=Counter)  # all events, by kind and reason

    @property
    def oom_kills(self) -> int:
        """Runs that ended because the kernel had no memory left for them."""
        return self.exits[Reason.OOM]

    def note(self, record: EventRecord) -> None:
        """Count one event."""
        self.events[record.kind, record.reason] += 1
        if record.kind != "state":
            return
        if record.to_state == State.RESTARTING:
            self.restarts += 1
        if record.from_state in LIVE_STATES and record.to_state not in LIVE_STATES:
            self.exits[record.reason] += 1


class Tally:
    """The counts of every service, since this supervisor began."""

    def __init__(self) -> None:
        self._services: dict[str, ServiceTally] = {}

    def of(self, service: str) -> ServiceTally:
        """The counts of one service; zeros where nothing has happened yet."""
        return self._services.get(service) or ServiceTally()

    def note(self, record: EventRecord) -> None:
        """Count one event."""
        self._services.setdefault(record.service, ServiceTally()).note(record)

    def forget(self, service: str) -> None:
        """There is no such service any more."""
        self._services.pop(service, None)
