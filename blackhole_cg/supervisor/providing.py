"""Instances that a program provides: takes in its newest list, and survives whatever it does wrong."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from blackhole_cg.core.instance_list import Instance, InstanceProvider, checked, from_text, to_text
from blackhole_cg.core.restart import backoff_delay_seconds
from blackhole_cg.core.spec import RestartPolicy
from blackhole_cg.core.units import shorten
from blackhole_cg.errors import BlackholeError

_log = logging.getLogger(__name__)

RETRIES: Final = RestartPolicy(max_restarts="max")
"""The delays after a failure of the provider, and before a list that was refused is tried again."""

_SHOWN: Final = 2000  # characters of a refusal


class Memory:
    """The list that was taken in last, for the next supervisor: nothing must stop for want of a list."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> tuple[Instance, ...]:
        """The list, empty when there is none that can be read."""
        try:
            return from_text(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return ()
        except (OSError, ValueError, RecursionError) as error:
            _log.error("cannot read the last list of instances in %s: %s", self._path, error)
            return ()

    def save(self, instances: tuple[Instance, ...]) -> None:
        """Keep it; a failure is told, and holds up nothing."""
        beside = self._path.with_suffix(".new")
        try:
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(to_text(instances))
                file.flush()
                os.fdatasync(file.fileno())
            beside.replace(self._path)
        except OSError as error:
            _log.error("cannot store the list of instances in %s: %s", self._path, error)


class Providing:
    """Follows one provider.

    Args:
        provider: says which instances there should be.
        take: makes a list the one that holds, or raises BlackholeError and changes nothing.
        note: stores what went wrong as an event.
        jitter: draws from -1.0 to 1.0.
    """

    def __init__(
        self,
        provider: InstanceProvider,
        take: Callable[[tuple[Instance, ...]], Awaitable[None]],
        note: Callable[[str], None],
        jitter: Callable[[], float],
    ) -> None:
        self._provider = provider
        self._take = take
        self._note = note
        self._jitter = jitter
        self._newest: tuple[Instance, ...] | None = None
        self._news = asyncio.Event()
        self._told = ""

    async def run(self) -> None:
        """Follow it until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow())
            group.create_task(self._take_newest())

    async def _follow(self) -> None:
        failures = 0
        while True:
            try:
                async for wanted in self._provider:
                    if self._look_at(wanted):
                        failures = 0
            except Exception as error:  # whatever it raises is its own affair, and no reason to stop
                self._report(f"the provider of instances failed: {type(error).__name__}: {error}")
            else:
                _log.info("the provider of instances has ended; its last list holds")
                return
            await asyncio.sleep(self._delay(failures))
            failures += 1

    def _look_at(self, wanted: object) -> bool:
        """Whether it is a list; it is taken in soon, unless a newer one comes before."""
        try:
            self._newest = checked(wanted)
        except Exception as error:  # looking at it runs its code
            self._report(f"the provider of instances gave nonsense, the last list holds: {error}")
            return False
        self._news.set()
        return True

    async def _take_newest(self) -> None:
        failures, taken = 0, None
        while True:
            if not failures:
                await self._news.wait()
            else:
                await self._news_within(self._delay(failures - 1))
            failures = 0 if self._news.is_set() else failures
            self._news.clear()
            newest = self._newest
            if newest is None or newest == taken:
                failures = 0
                continue
            try:
                await self._take(newest)
            except BlackholeError as error:
                self._report(f"a list of instances was refused, the last one holds:\n{error}")
                failures += 1
            else:
                failures, taken, self._told = 0, newest, ""

    async def _news_within(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            return

    def _delay(self, failures: int) -> float:
        return backoff_delay_seconds(RETRIES, failures, self._jitter())

    def _report(self, text: str) -> None:
        """Tell it, once for as long as nothing else goes wrong."""
        if text == self._told:
            return
        self._told = text
        said = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
        _log.error("%s", "\n".join(shorten(line, _SHOWN) for line in said.splitlines()))
        self._note("; ".join(shorten(line, _SHOWN) for line in said.splitlines()))
