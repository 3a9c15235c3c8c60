"""A supervisor in the foreground: start everything, wait for a signal, stop everything."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Protocol, Self

from blackhole_cg.errors import OperationError

logger = logging.getLogger(__name__)

# The terminal that goes away takes its supervisor with it, but not without stopping the services.
STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Supervisable(Protocol):
    """What is needed of a supervisor here; leaving its context is the ordered shutdown."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *exc: object) -> None: ...

    async def start(self) -> None:
        """Start everything that is enabled. Raises OperationError."""

    async def shutdown(self) -> None:
        """Stop everything in order; a start that is under way fails."""

    async def detach(self) -> None:
        """Leave the services running, for the next supervisor."""

    def kill(self) -> None:
        """Kill everything that is left, so that a shutdown ends at once."""


class Foreground:
    """Runs one supervisor until a signal.

    Args:
        supervisor: what to run.
        on_running: called once everything has started.
        is_restart: asked at a SIGTERM: whether a next supervisor follows, to which the services are left.
    """

    def __init__(
        self,
        supervisor: Supervisable,
        on_running: Callable[[], Any],
        is_restart: Callable[[], bool] = lambda: False,
    ) -> None:
        self._supervisor = supervisor
        self._on_running = on_running
        self._is_restart = is_restart
        self._asked = asyncio.Event()
        self._restarting = False

    async def run(self) -> None:
        """Start, wait for a signal and stop in order; a second signal kills what is left.

        Raises:
            BlackholeError: it could not start; what had been started is stopped again.
        """
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self._interrupt, number)
        try:
            async with self._supervisor:
                if await self._start():
                    self._on_running()
                    await self._asked.wait()
                if self._restarting:
                    await self._supervisor.detach()
        finally:
            for number in STOP_SIGNALS:
                loop.remove_signal_handler(number)

    async def _start(self) -> bool:
        """Whether everything has started, and not a signal come first."""
        starting = asyncio.create_task(self._supervisor.start())
        asked = asyncio.create_task(self._asked.wait())
        await asyncio.wait({starting, asked}, return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        if self._asked.is_set():
            await self._give_up(starting)
            return False
        try:
            await starting
        except OperationError as error:
            if error.rolled_back:
                raise
            logger.warning("%s", error)  # only services that are not required: the others go on
        return True

    async def _give_up(self, starting: asyncio.Task[None]) -> None:
        """End a start that is under way."""
        if self._restarting:
            starting.cancel()
            with suppress(OperationError, asyncio.CancelledError):
                await starting
            return
        await self._supervisor.shutdown()
        with suppress(OperationError):  # of course it did not reach its goal
            await starting

    def _interrupt(self, number: int) -> None:
        name = signal.Signals(number).name
        if not self._asked.is_set():
            self._restarting = number == signal.SIGTERM and self._is_restart()
            if self._restarting:
                logger.info("%s, to be started again: leaving the services running", name)
            else:
                logger.info("%s: stopping every service; a second one kills what is left", name)
            self._asked.set()
            return
        logger.warning("%s again: killing what is left", name)
        self._supervisor.kill()
