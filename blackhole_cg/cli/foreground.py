"""A supervisor in the foreground: start everything, reload when told to, stop everything at the end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, Protocol, Self

from blackhole_cg.errors import BlackholeError, OperationError

logger = logging.getLogger(__name__)

STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
SIGNALS: Final = (*STOP_SIGNALS, signal.SIGHUP)


class Supervisable(Protocol):
    """What is needed of a supervisor here; leaving its context is the ordered shutdown."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *exc: object) -> None: ...

    async def start(self) -> None:
        """Start everything that is enabled. Raises OperationError."""

    async def reload(self) -> object:
        """Apply what has changed in the configuration. Raises BlackholeError."""

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
        has_terminal: whether this process has a controlling terminal.
        on_open: called once the supervisor has begun, before it starts anything.
    """

    def __init__(
        self,
        supervisor: Supervisable,
        on_running: Callable[[], Any],
        is_restart: Callable[[], bool] = lambda: False,
        has_terminal: Callable[[], bool] | None = None,
        on_open: Callable[[], Any] = lambda: None,
    ) -> None:
        self._supervisor = supervisor
        self._on_running = on_running
        self._is_restart = is_restart
        self._on_open = on_open
        self._has_terminal = has_terminal or has_controlling_terminal
        is_held_on = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN  # by nohup(1)
        self._had_terminal = self._has_terminal() and not is_held_on
        self._reloads: set[asyncio.Task[None]] = set()
        self._asked = asyncio.Event()
        self._restarting = False
        self._depart: Callable[[], Awaitable[None]] | None = None

    async def run(self) -> None:
        """Start, wait for SIGINT or SIGTERM and stop in order; a second one kills what is left.

        SIGHUP reloads; but the terminal that goes away takes its supervisor with it, in order, unless
        that was begun with SIGHUP ignored.

        Raises:
            BlackholeError: it could not start; what had been started is stopped again.
        """
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self._interrupt, number)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # what the program before this one held back
        try:
            async with self._supervisor:
                self._on_open()
                if await self._start():
                    self._on_running()
                    await self._asked.wait()
                if self._restarting:
                    await (self._depart or self._supervisor.detach)()
        finally:
            for number in SIGNALS:
                loop.remove_signal_handler(number)
            for task in self._reloads:
                task.cancel()

    def leave(self, depart: Callable[[], Awaitable[None]]) -> None:
        """Let `run` end by `depart`, with the services running on.

        Signals wait from now on, also across an exec, for the `run` of whoever follows in this process.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        self._restarting, self._depart = True, depart
        self._asked.set()

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

    def _hang_up(self) -> None:
        if self._had_terminal and not self._has_terminal():
            self._interrupt(signal.SIGHUP)
            return
        logger.info("SIGHUP: reloading the configuration")
        task = asyncio.get_running_loop().create_task(self._reload())
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)

    async def _reload(self) -> None:
        try:
            await self._supervisor.reload()
        except BlackholeError as error:
            logger.error("reload: %s", error)

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


def has_controlling_terminal() -> bool:
    """Whether this process has one; after its hang-up it has none. Source: tty(4)."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
