"""One fake machine and one database file, and the supervisors that come after each other on them.

Each may die at any point of its life; an observer, who knows only the machine, the file and what was
acknowledged, says what must hold.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from blackhole_cg.core.facts import ExitStatus
from blackhole_cg.core.record import parse_status
from blackhole_cg.core.spec import SupervisorSpec
from blackhole_cg.core.status import ServiceStatus
from blackhole_cg.core.words import LIVE_STATES, Dependents, Desired, State
from blackhole_cg.errors import OperationError
from blackhole_cg.supervisor.paths import Paths
from blackhole_cg.supervisor.stores import Stores
from blackhole_cg.supervisor.supervisor import Supervisor
from tests.support.fake_host import FakeHost
from tests.support.faults import Died, Fate, bury, mortal_database, mortal_host

SETTLED_SECONDS = 60.0  # of virtual time


@dataclass
class Wish:
    """What an operator asked for, and whether it was acknowledged."""

    action: str
    names: tuple[str, ...]
    is_acknowledged: bool = False
    refusal: str | None = None


@dataclass
class Ledger:
    """What the database file says, read by somebody who is not the supervisor."""

    statuses: dict[str, ServiceStatus]
    events: list[tuple[int, str, int, str, str | None, str | None]]

    @classmethod
    def read(cls, path: Path) -> Ledger:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            rows = connection.execute("SELECT name, text FROM memory WHERE kind = 'status'").fetchall()
            events = connection.execute(
                "SELECT id, service, run_id, kind, from_state, to_state FROM events ORDER BY id"
            ).fetchall()
        return cls({name: parse_status(text) for name, text in rows}, events)


@dataclass
class World:
    """What outlives supervisors."""

    spec: SupervisorSpec
    directory: Path
    host: FakeHost = field(default_factory=FakeHost)
    fate: Fate = field(default_factory=Fate)
    supervisor: Supervisor | None = None
    deaths: int = 0
    _before: set[asyncio.Task[Any]] = field(default_factory=set)

    @property
    def paths(self) -> Paths:
        return Paths(self.directory / "run", self.directory / "state", self.directory / "log")

    async def begin(self, fate: Fate) -> bool:
        """Let a supervisor come up and start what is to be up; False if it has died before that."""
        asyncio.get_running_loop().set_exception_handler(_expect_death)
        self.fate, self._before = fate, asyncio.all_tasks()
        self._death = asyncio.get_running_loop().create_future()
        fate.on_death = self._die
        self.supervisor = Supervisor(self.spec, paths=self.paths, host=mortal_host(self.host, fate))
        self.supervisor.make_stores = partial(Stores, database=mortal_database(fate))
        return await self._attempt(self._open(self.supervisor))

    async def ask(self, wish: Wish) -> bool:
        """Carry out a wish; False if the supervisor has died before it was acknowledged."""
        assert self.supervisor is not None
        wish.is_acknowledged = await self._attempt(self._carry_out(wish))
        return not self.fate.is_dead

    async def settle(self, seconds: float = SETTLED_SECONDS) -> bool:
        """Let time pass; False if the supervisor has died meanwhile."""
        await self._attempt(asyncio.sleep(seconds))
        return not self.fate.is_dead

    async def kill(self) -> None:
        """The supervisor dies now, if it has not yet; what the kernel does then is done."""
        with contextlib.suppress(Died):
            if not self.fate.is_dead:
                self.fate.die()
        self.deaths += 1
        mine = asyncio.all_tasks() - self._before
        await bury(mine)
        assert self.supervisor is not None
        if hasattr(self.supervisor, "services"):  # else it has died in `open`, which gives everything back
            with contextlib.suppress(Died):
                await self.supervisor.detach()  # what a process holds, the kernel takes back
        await bury(asyncio.all_tasks() - self._before)

    async def end(self) -> None:
        """The ordered end."""
        assert self.supervisor is not None
        await self.supervisor.shutdown()

    def _die(self) -> None:
        self.host.supervisor_died()
        self._death.set_result(None)

    async def _open(self, supervisor: Supervisor) -> None:
        await supervisor.open()
        with contextlib.suppress(OperationError):
            await supervisor.start()

    async def _carry_out(self, wish: Wish) -> None:
        assert self.supervisor is not None
        try:
            options = {"dependents": Dependents.LEAVE} if wish.action == "stop" else {}
            answer = getattr(self.supervisor, wish.action)(*wish.names, **options)
            if answer is not None:
                await answer
        except OperationError as error:
            wish.refusal = str(error)

    async def _attempt(self, work: Any) -> bool:
        """Do it until it is done or the supervisor is dead, wherever it dies."""
        task = asyncio.ensure_future(work)
        await asyncio.wait({task, self._death}, return_when=asyncio.FIRST_COMPLETED)
        if self.fate.is_dead:
            await bury({task})
            return False
        await task
        return True


class Observer:
    """Watches the machine and the file; every method raises AssertionError where something is wrong."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._seen_events: list[tuple[Any, ...]] = []

    @property
    def begun(self) -> Counter[str]:
        """How many runs of each service have begun, ever."""
        return Counter(run.spec.name for run in self._world.host.runs if run.began)

    def live_run(self, name: str) -> int | None:
        """The number of the one run that lives."""
        run = self._world.host.live.get(name)
        return run.run_id if run is not None and run.live and run.began else None

    def check_machine(self) -> None:
        """No number is given twice, and never are two runs of a service live (the machine itself checks)."""
        last: dict[str, int] = {}
        for run in self._world.host.runs:
            assert run.run_id > last.get(run.spec.name, 0), f"{run.spec.name}: run {run.run_id} came twice"
            last[run.spec.name] = run.run_id

    def check_file(self) -> Ledger:
        """Whenever one looks: events have no gap and never change, each run begins once, and the last event
        of a service is about the status that is stored of it.
        """
        ledger = Ledger.read(self._world.paths.database)
        assert [event[0] for event in ledger.events] == list(range(1, len(ledger.events) + 1))
        assert ledger.events[: len(self._seen_events)] == self._seen_events, "history was rewritten"
        self._seen_events = list(ledger.events)
        starts = Counter((event[1], event[2]) for event in ledger.events if event[5] == State.STARTING)
        assert not starts or max(starts.values()) == 1, "a run has started twice"
        states = {event[1]: event[5] for event in ledger.events if event[3] == "state"}
        for name, status in ledger.statuses.items():
            assert states.get(name, State.STOPPED) == status.state, f"{name}: event and status differ"
        for run in self._world.host.runs:
            assert (run.spec.name, run.run_id) in starts, "a run of which no event tells"
        return ledger

    def check_settled(self) -> None:
        """Once things have come to rest: what is desired is so."""
        self.check_machine()
        statuses = self.check_file().statuses
        for name, status in statuses.items():
            live = self.live_run(name)
            assert (live is not None) == (status.state in LIVE_STATES), f"{name}: {status.state}, run {live}"
            if status.desired is Desired.UP:
                assert self._has_arrived(name, statuses), f"{name}: wanted, and {status.state}"
                assert live is None or live == status.run_id
            else:
                assert live is None, f"{name}: not wanted, and run {live} lives"
            assert status.restarts == 0, f"{name}: restarted, though no service has failed"

    def _has_arrived(self, name: str, statuses: dict[str, ServiceStatus]) -> bool:
        """Whether it is up, or done, or there is a reason to fail or to wait that is nobody's fault."""
        status = statuses[name]
        match status.state:
            case State.FAILED:  # it was done while nobody watched, and nobody knows how it went
                return status.last_exit is not None and status.last_exit.status == ExitStatus()
            case State.WAITING:  # for what is stopped, or failed
                needs = self._world.spec.services[name].depends_on
                return any(statuses[need].state not in (State.RUNNING, State.COMPLETED) for need in needs)
        return status.state in (State.RUNNING, State.COMPLETED)

    def desired(self, names: Sequence[str]) -> dict[str, str]:
        """What the file says is desired."""
        statuses = Ledger.read(self._world.paths.database).statuses
        return {name: str(statuses[name].desired) if name in statuses else "unknown" for name in names}


def _expect_death(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """A dead process's callbacks say so; anything else is a fault of the program."""
    if not isinstance(context.get("exception"), Died):
        logging.getLogger(__name__).critical("unexpected: %r", context)
        loop.default_exception_handler(context)
