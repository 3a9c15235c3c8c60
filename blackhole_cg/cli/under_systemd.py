"""What a supervisor under systemd tells it: ready, how it is going, and that its event loop still turns."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable

from blackhole_cg.kernel.service_manager import ServiceManager

STATUS_DELAY_SECONDS = 0.2

UPGRADE_SECONDS = 300.0
"""How long the next program may take until it feeds the watchdog. It has to be loaded first."""


class Reports:
    """Reports to a service manager from the running event loop, until it is closed.

    Args:
        manager: whom to tell.
        states: the state of every enabled service, asked when a summary is due.
    """

    def __init__(self, manager: ServiceManager, states: Callable[[], Iterable[str]]) -> None:
        self._manager = manager
        self._states = states
        self._due: asyncio.TimerHandle | None = None
        self._watchdog: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Begin to feed the watchdog: by a timer of the loop, so that a loop that hangs lets it bite."""
        if self._manager.present and self._manager.watchdog_seconds:
            self._feed(self._manager.watchdog_seconds / 2)

    def ready(self) -> None:
        """Everything that must be up is up."""
        self._manager.tell(READY=1, STATUS=summarise(self._states()))

    def stopping(self) -> None:
        """The ordered stop has begun."""
        self._manager.tell(STOPPING=1)

    def upgrading(self) -> None:
        """The next program follows, in this same process: it will tell that it is ready.

        The watchdog, which nobody feeds until then, is told to be patient. Source: sd_notify(3).
        """
        now_usec = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._manager.tell(RELOADING=1, MONOTONIC_USEC=now_usec, STATUS="upgrading")
        self._set_watchdog(UPGRADE_SECONDS)

    def upgraded(self) -> None:
        """We are that next program, and at work."""
        self._set_watchdog(0.0)
        self.ready()

    def changed(self) -> None:
        """Some service has a new state: tell soon, and once for many."""
        if self._manager.present and self._due is None:
            self._due = asyncio.get_running_loop().call_later(STATUS_DELAY_SECONDS, self._tell_status)

    def close(self) -> None:
        """Fall silent."""
        for timer in (self._due, self._watchdog):
            if timer is not None:
                timer.cancel()

    def _tell_status(self) -> None:
        self._due = None
        self._manager.tell(STATUS=summarise(self._states()))

    def _set_watchdog(self, at_least_seconds: float) -> None:
        if self._manager.watchdog_seconds:
            seconds = max(self._manager.watchdog_seconds, at_least_seconds)
            self._manager.tell(WATCHDOG_USEC=int(seconds * 1e6), WATCHDOG=1)

    def _feed(self, interval_seconds: float) -> None:
        self._manager.tell(WATCHDOG=1)
        loop = asyncio.get_running_loop()
        self._watchdog = loop.call_later(interval_seconds, self._feed, interval_seconds)


def summarise(states: Iterable[str]) -> str:
    """ "5 services: 4 running, 1 completed"."""
    counts = Counter(states)
    total = sum(counts.values())
    parts = ", ".join(f"{count} {state}" for state, count in counts.most_common())
    return f"{total} service{'' if total == 1 else 's'}: {parts}" if total else "no services"
