"""What a supervisor starts by itself: all that is enabled, but for what an earlier one was told to leave."""

from __future__ import annotations

import asyncio
from collections.abc import Container
from typing import Final

from blackhole_cg.core.words import LIVE_STATES, Desired, State
from blackhole_cg.kernel.own_process import settle_memory
from blackhole_cg.runner.service import ServiceRunner
from blackhole_cg.supervisor.services import Services

SETTLE_SECONDS: Final = 1.0
"""Whoever waits for a supervisor that has taken over asks it at once; memory has time until then."""

_TO_START = frozenset({State.STOPPED, State.WAITING, *LIVE_STATES})


def services_to_start(services: Services, remembered: Container[str]) -> list[str]:
    """The services that a start of everything means, in start order.

    What was stopped, has failed or is done stays so, which is known only of what is remembered. Neither is it
    started for the sake of one that needs it: that one runs on, or waits, as it did before.
    """
    runners = services.runners
    wanted = [name for name, runner in runners.items() if _is_wanted(runner, name in remembered)]
    left = {
        name
        for name, runner in runners.items()
        if name in remembered and name not in wanted and runner.status.state is not State.COMPLETED
    }
    return [name for name in wanted if left.isdisjoint(services.topology.with_requirements([name]))]


def settle(has_taken_over: bool) -> None:
    """Settle the memory before there is much to fork; later where services run already."""
    if has_taken_over:
        asyncio.get_running_loop().call_later(SETTLE_SECONDS, settle_memory)
    else:
        settle_memory()


def _is_wanted(runner: ServiceRunner, is_remembered: bool) -> bool:
    """One that is stopped and desired was up when the host went down."""
    if not is_remembered:
        return runner.spec.enabled
    return runner.status.desired is Desired.UP and runner.status.state in _TO_START
