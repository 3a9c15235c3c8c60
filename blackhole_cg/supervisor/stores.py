"""All that is kept in the database: what happened, and what the next supervisor must know."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from pathlib import Path

from blackhole_cg.core.facts import EventRecord
from blackhole_cg.core.record import Memory
from blackhole_cg.core.words import Reason
from blackhole_cg.errors import StoreError
from blackhole_cg.observe.database import Database
from blackhole_cg.observe.event_store import EventStore
from blackhole_cg.observe.state_store import StateStore
from blackhole_cg.runner.clock import Clock, wall_text


class Stores:
    """The stores of one supervisor, over one file; needs a running event loop.

    Args:
        path: the database.
        clock: when something about the file itself happened.
        on_append: told each new event.
        database: what opens the file.
    """

    def __init__(
        self,
        path: Path,
        clock: Clock,
        on_append: Callable[[EventRecord], None],
        database: type[Database] = Database,
    ) -> None:
        self._clock = clock
        self._database = database(path, on_set_aside=self._tell_set_aside)
        self.events = EventStore(self._database, on_append=on_append)
        self.states = StateStore(self._database)

    @property
    def sinks(self) -> tuple[EventStore, StateStore, Callable[[], AbstractContextManager[None]]]:
        """Where services write what happens, and what makes it one transaction."""
        return self.events, self.states, self.together

    def together(self) -> AbstractContextManager[None]:
        """Store in one transaction what is noted within."""
        return self._database.outbox.together()

    def begin(self, boot_id: str, known: Mapping[str, int]) -> Memory:
        """What an earlier supervisor left, with the last number of a run of each service, however known.

        `known` are numbers from elsewhere: on a full disk a run begins without being stored.
        """
        memory = self.states.begin(boot_id)
        numbers = Counter(memory.run_ids) | Counter(known)
        with suppress(StoreError):  # told already
            numbers |= Counter(self.events.newest_run_ids())
        return replace(memory, run_ids=numbers)

    def close(self) -> None:
        """Store what waits, end every follower, and close the file."""
        self.events.close()
        self._database.close()

    def _tell_set_aside(self, detail: str) -> None:
        """An event, once the database is usable again; of no service, as it concerns all."""
        asyncio.get_running_loop().call_soon(self._append, "store", detail)

    def _append(self, kind: str, detail: str) -> None:
        at_wall = wall_text(self._clock.wall())
        self.events.append(EventRecord(at_wall, "", 0, kind, None, None, Reason.UNKNOWN, detail))
