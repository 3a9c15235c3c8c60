"""An event loop whose time jumps: when nothing is ready, it is at once as late as the next timer.

Use it only with fakes: a real process would not keep up with such a clock.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _JumpingSelector(selectors.DefaultSelector):
    """Never waits; adds to the loop's time what it was to wait."""

    jumped_seconds = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is None:
            raise RuntimeError("the virtual loop has nothing left to wait for: a deadlock")
        if not ready and timeout:
            self.jumped_seconds += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """A selector loop that begins at second 1000 and never sleeps."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Virtual monotonic seconds."""
        return 1000.0 + self._jumping.jumped_seconds

    def lose(self, seconds: float) -> None:
        """Let time pass in which nothing here runs, as when this process is stopped."""
        self._jumping.jumped_seconds += seconds


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
