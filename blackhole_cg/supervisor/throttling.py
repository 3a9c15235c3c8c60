"""Keeps runs to their share of the processors where the kernel cannot: looks, holds them, lets them go on."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from blackhole_cg.core.facts import LimitState
from blackhole_cg.core.throttle import Budget, Share, begin, look, share_to_keep
from blackhole_cg.errors import CgroupGoneError, KernelError
from blackhole_cg.runner.host import Freezer
from blackhole_cg.runner.service import ServiceRunner

_log = logging.getLogger(__name__)

TICK_SECONDS: Final = 0.25
"""Looks that have time are moved to whole ticks, so that the loop wakes once for all of them."""


class Throttle:
    """Holds one run to a share. `tell` is called when it is held for the first time."""

    def __init__(
        self, freezer: Freezer, share: Share, now: Callable[[], float], tell: Callable[[str], None]
    ) -> None:
        self._freezer = freezer
        self._share = share
        self._now = now
        self._tell: Callable[[str], None] | None = tell
        self._timer: asyncio.TimerHandle | None = None
        self._budget: Budget | None = None

    def look(self) -> None:
        """See what was used, hold the run or let it go, and arrange for the next look."""
        self._timer = None
        try:
            self._look()
        except CgroupGoneError:
            return  # it has ended; whoever follows it will say so
        except (KernelError, KeyError, ValueError) as cause:
            self.close()
            self._say(f"cpu_max is not enforced any more: {cause}")
            return
        assert self._budget is not None
        delay_seconds = max(0.0, self._budget.due - self._now())
        self._timer = asyncio.get_running_loop().call_later(delay_seconds, self.look)

    def close(self) -> None:
        """Let the run go, and look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        try:
            self._freezer.let_go()
        except CgroupGoneError:
            return
        except KernelError as cause:
            _log.error("cannot let a service go that was held for a moment: %s", cause)

    def _look(self) -> None:
        now, used = self._now(), self._freezer.cpu_seconds()
        budget = begin(self._share, now, used) if self._budget is None else look(
            self._share, self._budget, now, used
        )  # fmt: skip
        if budget.is_held:
            self._freezer.hold()
            self._say(
                f"cpu_max: used more than {100 * self._share.rate:g}% of a processor; "
                "the monitor throttles it by freezing it for moments, because the kernel cannot here"
            )
        else:
            self._freezer.let_go()
            budget = _in_time(budget)
        self._budget = budget

    def _say(self, text: str) -> None:
        tell, self._tell = self._tell, None
        if tell is not None:
            tell(text)


class Throttling:
    """The runs that are held to a share. `record` stores (service, detail) as an event of a rule."""

    def __init__(self, now: Callable[[], float], record: Callable[[str, str], None]) -> None:
        self._now = now
        self._record = record
        self._throttles: dict[str, Throttle] = {}

    def add(self, runner: ServiceRunner) -> None:
        """Hold the runner's run to its share from now on, if there is need and a way."""
        self.remove(runner.name)
        run, name = runner.run, runner.name
        share = None if run is None else share_to_keep(runner.spec.limits, run.limits)
        if run is None or share is None or run.freezer is None or run.freezer.obstacle is not None:
            return

        def tell(detail: str) -> None:
            _log.warning("%s: %s", name, detail, extra={"service": name})
            self._record(name, detail)

        self._throttles[name] = Throttle(run.freezer, share, self._now, tell)
        self._throttles[name].look()

    def remove(self, name: str) -> None:
        """Hold the run no more."""
        throttle = self._throttles.pop(name, None)
        if throttle is not None:
            throttle.close()

    def close(self) -> None:
        """Let every run go."""
        for name in list(self._throttles):
            self.remove(name)


def say_throttled(runner: ServiceRunner, state: LimitState) -> LimitState:
    """The state of a cpu_max that is not in force, with what is done about it."""
    run = runner.run
    if run is None or share_to_keep(runner.spec.limits, {"cpu_max": state}) is None:
        return state
    obstacle = "it has no cgroup" if run.freezer is None else run.freezer.obstacle
    if obstacle is None:
        return replace(state, reason=f"{state.reason}; the monitor throttles the service by freezing it")
    return replace(state, reason=f"{state.reason}; the monitor cannot throttle it either: {obstacle}")


def _in_time(budget: Budget) -> Budget:
    """The same, with a look that has time moved to a tick."""
    if budget.due - budget.looked_at <= TICK_SECONDS:
        return budget
    return replace(budget, due=math.floor(budget.due / TICK_SECONDS) * TICK_SECONDS)
