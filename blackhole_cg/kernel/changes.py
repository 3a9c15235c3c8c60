"""Waiting for kernel files to change, any number of them through one descriptor of the event loop.

The kernel marks such files as changed with EPOLLPRI, which asyncio does not watch for; an epoll can itself
be watched for reading, so all the files go into one of our own and the loop watches that.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable


class ChangeWatch:
    """The watched files of one event loop. Costs nothing while there are none."""

    def __init__(self) -> None:
        self._epoll: select.epoll | None = None
        self._changed: dict[int, Callable[[], None]] = {}

    def add(self, descriptor: int, changed: Callable[[], None], flags: int = select.EPOLLET) -> None:
        """Call `changed` whenever the kernel says that the file has."""
        if self._epoll is None:
            self._epoll = select.epoll()
        self._epoll.register(descriptor, select.EPOLLPRI | flags)
        if not self._changed:
            asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._dispatch)
        self._changed[descriptor] = changed

    def rearm(self, descriptor: int, flags: int) -> None:
        """Let a file that was added with EPOLLONESHOT be told of once more."""
        if self._epoll is not None and descriptor in self._changed:
            self._epoll.modify(descriptor, select.EPOLLPRI | flags)

    def discard(self, descriptor: int) -> None:
        """Stop watching a file; before it is closed."""
        if self._changed.pop(descriptor, None) is None or self._epoll is None:
            return
        self._epoll.unregister(descriptor)
        if not self._changed:
            asyncio.get_running_loop().remove_reader(self._epoll.fileno())

    def close(self) -> None:
        """Close the epoll; only when nothing is watched any more."""
        if self._epoll is not None:
            self._epoll.close()
            self._epoll = None

    def _dispatch(self) -> None:
        if self._epoll is None:
            return
        for descriptor, _ in self._epoll.poll(0):
            changed = self._changed.get(descriptor)
            if changed is not None:
                changed()
