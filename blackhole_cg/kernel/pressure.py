"""Being told by the kernel that a cgroup is short of memory or that its tasks stall, instead of asking.

memory.events changes when the cgroup hits memory.high or memory.max, or loses a process for want of memory. A
pressure file that a threshold was written to becomes readable-with-priority when tasks stalled for so long.
Both are only reasons to look: what is true then is in the sample.
Source: kernel Documentation/accounting/psi.rst, Monitoring for pressure thresholds (5.2).
"""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Callable, Mapping
from typing import Final

from blackhole_cg.kernel.changes import ChangeWatch

WINDOW_USEC: Final = 2_000_000
"""The time stalls are summed over; whole multiples of 2 s are open to ordinary users (kernel 6.5)."""

_EVENTS: Final = "memory.events"
_ONCE: Final = select.EPOLLONESHOT


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
        self._descriptors: list[int] = []
        self._events: int | None = None
        self._rung: set[int] = set()

    @property
    def is_set(self) -> bool:
        """Whether there is anything that could ring."""
        return bool(self._descriptors)

    def add_events(self, path: str) -> None:
        """Ring when the file changes."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return  # no memory controller here, or no descriptor left: sampling goes on without
        self._events = descriptor
        self._read_events()  # what happened before is not news
        self._watch(descriptor)

    def add_pressure(self, path: str, percent: float) -> None:
        """Ring when some task stalled for that part of the window."""
        stall_usec = max(1, min(WINDOW_USEC, round(WINDOW_USEC * percent / 100)))
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return
        try:
            os.write(descriptor, f"some {stall_usec} {WINDOW_USEC}\0".encode())
        except OSError:  # PSI is switched off, or the kernel does not let this user
            os.close(descriptor)
            return
        self._watch(descriptor)

    def rearm(self) -> None:
        """Let it ring again; what happened since it rang rings at once."""
        if self._events in self._rung:
            self._read_events()
        for descriptor in self._rung:
            self._changes.rearm(descriptor, _ONCE)
        self._rung.clear()

    def close(self) -> None:
        """End the watch."""
        for descriptor in self._descriptors:
            self._changes.discard(descriptor)
            os.close(descriptor)
        self._descriptors.clear()
        self._rung.clear()

    def _read_events(self) -> None:
        """Reading is what lets the kernel announce the next change."""
        assert self._events is not None
        with contextlib.suppress(OSError):  # the cgroup has been removed
            os.pread(self._events, 4096, 0)

    def _watch(self, descriptor: int) -> None:
        def changed() -> None:
            self._rung.add(descriptor)
            self._ring()

        self._descriptors.append(descriptor)
        self._changes.add(descriptor, changed, _ONCE)
