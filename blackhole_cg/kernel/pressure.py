"""Being told by the kernel that a cgroup is short of memory or that its tasks stall, instead of asking.

memory.events changes when the cgroup hits memory.high or memory.max, or loses a process for want of memory. A
pressure file that a threshold was written to becomes readable-with-priority when tasks stalled for so long.
Both are only reasons to look: what is true then is in the sample.
Source: kernel Documentation/accounting/psi.rst, Monitoring for pressure thresholds (5.2).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
from collections.abc import Callable, Mapping
from typing import Final

from blackhole_cg.kernel.changes import ChangeWatch

WINDOW_USEC: Final = 2_000_000
"""The time stalls are summed over; whole multiples of 2 s are open to ordinary users (kernel 6.5)."""

_EVENTS: Final = "memory.events"


class PressureAlarms:
    """The alarms of one event loop; close them all before closing this."""

    def __init__(self) -> None:
        self._changes = ChangeWatch()

    def watch(
        self, cgroup: str, pressures: Mapping[str, float], ring: Callable[[], None]
    ) -> PressureAlarm | None:
        """An alarm over the cgroup directory; None where the kernel offers nothing to watch.

        `pressures` maps pressure files to the percentage of time that some task has to stall.
        """
        alarm = PressureAlarm(self._changes, ring)
        alarm.add_events(f"{cgroup}/{_EVENTS}")
        for file, percent in pressures.items():
            alarm.add_pressure(f"{cgroup}/{file}", percent)
        return alarm if alarm.is_set else None

    def close(self) -> None:
        """Give back what is held."""
        self._changes.close()


class PressureAlarm:
    """The watched files of one cgroup. Rings once; `rearm` lets it ring again.

    Without that, a service at its memory.high would wake us a hundred times a second.
    """

    def __init__(self, changes: ChangeWatch, ring: Callable[[], None]) -> None:
        self._changes = changes
        self._ring = ring
        self._is_armed = True
        self._events: int | None = None
        self._triggers: list[tuple[int, select.epoll]] = []

    @property
    def is_set(self) -> bool:
        """Whether there is anything that could ring."""
        return self._events is not None or bool(self._triggers)

    def add_events(self, path: str) -> None:
        """Ring when the file changes."""
        try:
            self._events = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return  # no memory controller here, or no descriptor left: sampling goes on without
        self._read_events()  # what happened before is not news
        self._changes.add(self._events, self._rang, select.EPOLLONESHOT)

    def add_pressure(self, path: str, percent: float) -> None:
        """Ring when some task stalled for that part of the window.

        Each trigger has an epoll of its own, because it is told of only once: to whoever polls first. The
        loop's look at a common epoll would use that up, and leave nobody to say which trigger it was.
        Source: kernel/sched/psi.c, psi_trigger_poll; fs/eventpoll.c, __ep_eventpoll_poll.
        """
        stall_usec = max(1, min(WINDOW_USEC, round(WINDOW_USEC * percent / 100)))
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return
        try:
            os.write(descriptor, f"some {stall_usec} {WINDOW_USEC}\0".encode())
            epoll = select.epoll()
        except OSError:  # PSI is switched off, the kernel does not let this user, or no descriptor is left
            os.close(descriptor)
            return
        epoll.register(descriptor, select.EPOLLPRI | select.EPOLLET)
        asyncio.get_running_loop().add_reader(epoll.fileno(), self._stalled, epoll)
        self._triggers.append((descriptor, epoll))

    def rearm(self) -> None:
        """Let it ring again."""
        self._is_armed = True
        if self._events is not None:
            self._read_events()
            self._changes.rearm(self._events, select.EPOLLONESHOT)

    def close(self) -> None:
        """End the watch."""
        if self._events is not None:
            self._changes.discard(self._events)
            os.close(self._events)
            self._events = None
        for descriptor, epoll in self._triggers:
            asyncio.get_running_loop().remove_reader(epoll.fileno())
            epoll.close()
            os.close(descriptor)
        self._triggers.clear()

    def _rang(self) -> None:
        if self._is_armed:
            self._is_armed = False
            self._ring()

    def _stalled(self, epoll: select.epoll) -> None:
        epoll.poll(0)  # a cgroup that was removed is an error that would be ready for ever
        self._rang()

    def _read_events(self) -> None:
        """Reading is what lets the kernel announce the next change."""
        assert self._events is not None
        with contextlib.suppress(OSError):  # the cgroup has been removed
            os.pread(self._events, 4096, 0)
