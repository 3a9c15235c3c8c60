"""When a supervisor makes way for the next program, and when it does not."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from blackhole_cg.core.words import State
from blackhole_cg.errors import LockHeldError, OperationError
from blackhole_cg.supervisor.lock import RuntimeLock
from blackhole_cg.supervisor.upgrade import CLIENT, Upgrade, begin_upgrade


class FakeSuccessor:
    """Answers when it is let."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.refusal: Exception | None = None

    async def check(self) -> str:
        await self.gate.wait()
        if self.refusal:
            raise self.refusal
        return "2.0.0"


class Bench:
    """An upgrade of a supervisor with one service."""

    def __init__(self, quiet_timeout_seconds: float = 0.0) -> None:
        self.web = SimpleNamespace(name="web", status=SimpleNamespace(state=State.RUNNING))
        operations = SimpleNamespace(under_way=Counter())
        self.under_way = operations.under_way
        self.supervisor: Any = SimpleNamespace(
            stopping=False,
            configuration=SimpleNamespace(is_under_way=False),
            share=lambda: {"lock": 77},
            services=SimpleNamespace(operations=operations, runners={"web": self.web}),
        )
        self.successor = FakeSuccessor()
        self.left: list[dict[str, int]] = []
        self.upgrade = Upgrade(self.supervisor, self.successor, self.left.append, quiet_timeout_seconds)

    async def refusal(self) -> str:
        """Of an upgrade that changes nothing."""
        with pytest.raises(OperationError, match=r"^cannot upgrade: ") as caught:
            await self.upgrade.begin(9)
        assert (self.left, self.supervisor.stopping) == ([], False)
        return str(caught.value)


def test_a_quiet_supervisor_makes_way_at_once() -> None:
    async def main() -> None:
        bench = Bench()
        await bench.upgrade.begin(9)
        assert bench.left == [{"lock": 77, CLIENT: 9}]
        assert bench.supervisor.stopping, "no wish is accepted any more"

    asyncio.run(main())


def test_what_takes_too_long_is_named_and_refuses_the_upgrade() -> None:
    async def main() -> None:
        bench = Bench()
        bench.under_way["restart"] += 1
        bench.web.status.state = State.STOPPING
        bench.supervisor.configuration.is_under_way = True
        said = await bench.refusal()
        assert said.endswith("after 0s: a reload, a restart of services, 'web' is stopping")

    asyncio.run(main())


@pytest.mark.parametrize("state", [State.STARTING, State.STOPPING])
def test_what_is_half_done_is_waited_for(state: State) -> None:
    async def main() -> None:
        bench = Bench(30.0)
        bench.web.status.state = state
        upgrade = asyncio.create_task(bench.upgrade.begin(9))
        await asyncio.sleep(0.1)
        assert bench.left == []
        bench.web.status.state = State.RUNNING
        await upgrade
        assert len(bench.left) == 1

    asyncio.run(main())


@pytest.mark.parametrize("state", [State.WAITING, State.RESTARTING, State.FAILED, State.STOPPED])
def test_what_the_next_program_remembers_is_not_waited_for(state: State) -> None:
    async def main() -> None:
        bench = Bench()
        bench.web.status.state = state
        await bench.upgrade.begin(9)
        assert len(bench.left) == 1

    asyncio.run(main())


def test_one_at_a_time_and_none_once_the_supervisor_ends() -> None:
    async def main() -> None:
        bench = Bench()
        bench.successor.gate.clear()
        first = asyncio.create_task(bench.upgrade.begin(9))
        await asyncio.sleep(0)
        assert "an upgrade is under way" in await bench.refusal()
        bench.supervisor.stopping = True
        bench.successor.gate.set()
        with pytest.raises(OperationError, match="shutting down"):
            await first
        assert bench.left == []

    asyncio.run(main())


def test_a_refusal_of_the_next_program_or_of_the_kernel_changes_nothing() -> None:
    def refuse() -> dict[str, int]:
        raise OSError(24, "Too many open files")

    async def main() -> None:
        bench = Bench()
        bench.successor.refusal = OperationError("cannot upgrade: too old")
        assert await bench.refusal() == "cannot upgrade: too old"
        bench.successor.refusal, bench.supervisor.share = None, refuse
        assert "Too many open files" in await bench.refusal()

    asyncio.run(main())


def test_a_supervisor_within_another_program_is_not_replaced() -> None:
    client = os.open(os.devnull, os.O_RDONLY)
    with pytest.raises(OperationError, match="part of another program"):
        asyncio.run(begin_upgrade(None, client))
    with pytest.raises(OSError):
        os.fstat(client)


def test_the_lock_is_held_as_long_as_one_of_its_descriptors_is_open(tmp_path: Path) -> None:
    first, second, other = (RuntimeLock(tmp_path / "lock") for _ in range(3))
    first.acquire()
    shared = first.share()
    first.release()
    with pytest.raises(LockHeldError):
        other.acquire()
    second.acquire(shared)
    second.release()
    other.acquire()
    other.release()


def test_a_lock_whose_file_was_replaced_is_taken_anew(tmp_path: Path) -> None:
    first, second, other = (RuntimeLock(tmp_path / "lock") for _ in range(3))
    first.acquire()
    shared = first.share()
    first.release()
    (tmp_path / "lock").unlink()
    second.acquire(shared)
    with pytest.raises(LockHeldError):
        other.acquire()
    second.release()
