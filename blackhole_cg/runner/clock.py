"""The clocks and the dice of the imperative layers, in one value, so that a test can hold them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True, slots=True)
class Clock:
    """Monotonic seconds for every duration, wall time for display only, and a uniform draw for jitter."""

    now: Callable[[], float]
    wall: Callable[[], datetime]
    jitter: Callable[[], float]  # uniform from -1.0 to 1.0


def loop_clock() -> Clock:
    """The clock of the running loop: its time is CLOCK_MONOTONIC, which no one can set."""
    dice = random.Random()
    return Clock(asyncio.get_running_loop().time, lambda: datetime.now(UTC), lambda: dice.uniform(-1.0, 1.0))


def wall_text(moment: datetime) -> str:
    """UTC in ISO 8601 with microseconds and "Z", the form of every time the contract shows."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
