"""Keeping a service to its share of the processors by letting it run and holding it in turns.

Stands in for cpu.max where the kernel cannot keep it. A budget grows with time and shrinks with the processor
time that was used; a service that has used it up is held until it has grown again. Pure: the time and the
counter are arguments.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from blackhole_cg.core.facts import LimitState
from blackhole_cg.core.spec import ResourceLimits
from blackhole_cg.core.words import Max

PERIOD_SECONDS: Final = 0.2
"""The budget holds as much as the share gives in this time."""

LONGEST_HOLD_SECONDS: Final = 0.5
"""Then it runs for a moment, whatever it owes: a probe is not to fail, nor a watchdog, for our holding it."""

SHORTEST_LOOK_SECONDS: Final = 0.005
LONGEST_LOOK_SECONDS: Final = 1.0
"""A service that is far from its share is looked at this often, and so may exceed it for as long at first."""

LATE_SECONDS: Final = 0.25
"""What is used while a look is later than this is not held against it: nobody held it when it was time."""

MOST_DEBT_SECONDS: Final = 10.0
"""No debt is larger than what the share gives in this time."""


@dataclass(frozen=True, slots=True)
class Share:
    """The part of the processors that a service may use, in processor seconds per second."""

    rate: float

    @property
    def capacity(self) -> float:
        """The most that can be saved up, in processor seconds."""
        return self.rate * PERIOD_SECONDS


@dataclass(frozen=True, slots=True)
class Budget:
    """What is left to a service, as of its last look. Times are monotonic, the others processor seconds."""

    looked_at: float
    due: float  # the next look
    used: float  # the counter of the run
    left: float  # negative: owed
    pace: float = 1.0  # processor seconds per second: how fast it may be used up
    held_since: float | None = None

    @property
    def is_held(self) -> bool:
        """Whether the service is to be held until the next look."""
        return self.held_since is not None


def share_to_keep(limits: ResourceLimits, states: Mapping[str, LimitState]) -> Share | None:
    """The share to hold a service to because its cpu_max is not in force; None: there is no need."""
    state = states.get("cpu_max")
    percent: float | Max | None = limits.cpu_percent
    if percent is None or isinstance(percent, str) or state is None or state.enforced:
        return None
    return Share(percent / 100)


def begin(share: Share, now: float, used: float) -> Budget:
    """A full budget, to be looked at soon."""
    return _let_run(share, Budget(now, now, used, share.capacity))


def look(share: Share, before: Budget, now: float, used: float) -> Budget:
    """The budget after a look at the counter: whether to hold the service now, and when to look again."""
    passed = max(0.0, now - before.looked_at)
    grown = max(0.0, used - before.used)
    if now - before.due > LATE_SECONDS:
        grown *= (before.due - before.looked_at) / passed
    left = min(share.capacity, before.left + share.rate * passed - grown)
    left = max(left, -share.rate * MOST_DEBT_SECONDS)
    budget = replace(before, looked_at=now, used=used, left=left)
    if before.held_since is None:
        rate = grown / max(passed, SHORTEST_LOOK_SECONDS)
        budget = replace(budget, pace=max(rate, before.pace / 2))
        return _hold(share, budget, now) if left <= 0 else _let_run(share, budget, before)
    return _hold(share, budget, before.held_since)


def _hold(share: Share, budget: Budget, since: float) -> Budget:
    """Held until the budget is full again, but never for too long."""
    now = budget.looked_at
    end = min(now + (share.capacity - budget.left) / share.rate, since + LONGEST_HOLD_SECONDS)
    if end - now < SHORTEST_LOOK_SECONDS / 2:
        return _let_run(share, replace(budget, held_since=None))
    return replace(budget, held_since=since, due=end)


def _let_run(share: Share, budget: Budget, before: Budget | None = None) -> Budget:
    """Looked at again before the budget can be used up; ever less often while it stays full."""
    delay_seconds = budget.left / max(1.0, 1.25 * budget.pace)
    if before is not None and budget.left >= share.capacity:
        delay_seconds = max(delay_seconds, 2 * (before.due - before.looked_at))
    delay_seconds = min(max(delay_seconds, SHORTEST_LOOK_SECONDS), LONGEST_LOOK_SECONDS)
    return replace(budget, due=budget.looked_at + delay_seconds)
