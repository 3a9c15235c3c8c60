"""Waking whoever waits for something new, without a queue: waiters look for themselves what changed."""

from __future__ import annotations

import asyncio


class Bell:
    """Wakes every waiting coroutine of the loop.

    No ring is missed by a coroutine that looks, finds nothing and waits without awaiting anything in between.
    """

    def __init__(self) -> None:
        self._waiters: set[asyncio.Future[None]] = set()
        self._closed = False

    @property
    def closed(self) -> bool:
        """Nothing new will ever come."""
        return self._closed

    def ring(self) -> None:
        """Wake everyone who waits now."""
        if not self._waiters:
            return
        waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def close(self) -> None:
        """Wake everyone; from now on waiting returns at once."""
        self._closed = True
        self.ring()

    async def wait(self) -> None:
        """Return at the next ring."""
        if self._closed:
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)
