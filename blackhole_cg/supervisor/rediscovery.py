"""Looks at the services directory while running, where the configuration asks for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from blackhole_cg.core.discovery import Discovery
from blackhole_cg.core.spec import DiscoverySpec, SupervisorSpec
from blackhole_cg.errors import BlackholeError

_log = logging.getLogger(__name__)


class Rediscovery:
    """Has programs that came become services, and services end whose program has gone.

    A program that is exchanged may be away for a moment: it has gone when two looks in a row do not see it.

    Args:
        spec: the newest configuration.
        look: looks into a directory.
        take: takes in what is there now, or raises BlackholeError and changes nothing.
    """

    def __init__(
        self,
        spec: Callable[[], SupervisorSpec],
        look: Callable[[str], Awaitable[Discovery]],
        take: Callable[[], Awaitable[None]],
    ) -> None:
        self._spec = spec
        self._look = look
        self._take = take
        self._changed = asyncio.Event()
        self._missed: frozenset[str] = frozenset()

    def configured(self) -> None:
        """There is another configuration."""
        self._changed.set()

    async def run(self) -> None:
        """Look every so often, until cancelled."""
        while True:
            self._changed.clear()
            wanted = self._spec().runtime.discovery
            try:
                async with asyncio.timeout(None if wanted is None else wanted.interval_seconds):
                    await self._changed.wait()
            except TimeoutError:
                assert wanted is not None
                await self._look_once(wanted)

    async def _look_once(self, wanted: DiscoverySpec) -> None:
        try:
            found = await self._look(wanted.directory)
            if self._differs(found):
                await self._take()
        except BlackholeError as error:
            _log.error("cannot take in what is in %s: %s", wanted.directory, error)

    def _differs(self, found: Discovery) -> bool:
        """Whether something came, or something is away for the second time."""
        spec = self._spec()
        services = {**spec.surge, **spec.services}
        known = frozenset(name for name, spec in services.items() if spec.discovered)
        came = frozenset(found.names) - services.keys()
        away = frozenset() if found.problem is not None else known - frozenset(found.names)
        gone = away & self._missed
        self._missed = away
        return bool(came) or bool(gone)
