"""Faults on purpose: calls that fail with an error, and points at which the process that makes them dies.

A Fate is asked before and after each call that leaves a mark outside the process. `mortal` puts it in front
of any object; who is dead makes no call any more, whatever its code still tries on its way out.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import sqlite3
from collections.abc import Callable, Collection
from typing import Any, TypeVar

from blackhole_cg.observe.database import Database

T = TypeVar("T")


class Died(BaseException):
    """The process is gone; nothing may catch this and go on."""


class Fate:
    """What happens at each point of one life; by itself nothing but counting.

    Args:
        die_at: the number of the point, from 1, at which this life ends.
        fail_at: the error to raise at the n-th call of a name: {("launch", 2): OSError(...)}.
        stop: ends the process really, in place of the exception; must not return.
    """

    def __init__(
        self,
        die_at: int | None = None,
        fail_at: dict[tuple[str, int], Exception] | None = None,
        stop: Callable[[], None] | None = None,
    ) -> None:
        self.points: list[str] = []
        self.is_dead = False
        self.on_death: Callable[[], None] = lambda: None
        self.die_at = die_at
        self._fail_at = fail_at or {}
        self._stop = stop
        self._calls: dict[str, int] = {}

    def reach(self, point: str) -> None:
        """Pass a point, or die there."""
        if self.is_dead:
            raise Died(point)
        self.points.append(point)
        if len(self.points) == self.die_at:
            self.die()

    def die(self) -> None:
        """This is the end."""
        if self._stop is not None:
            self._stop()
        self.is_dead = True
        self.on_death()
        raise Died(self.points[-1] if self.points else "at once")

    def enter(self, name: str) -> None:
        """A call begins: it may fail, and it may be the last."""
        self.reach(f"before {name}")
        self._calls[name] = self._calls.get(name, 0) + 1
        if error := self._fail_at.get((name, self._calls[name])):
            raise error

    def leave(self, name: str) -> None:
        """It has had its effect, of which nobody may hear."""
        self.reach(f"after {name}")


def mortal(target: Any, fate: Fate, effects: Collection[str], answers: Collection[str] = ()) -> Any:
    """The same object, for somebody who may die at each call of `effects`, and to whom they may fail.

    `answers` are the methods that return something that is to be mortal too.
    """
    return _Mortal(target, fate, frozenset(effects), frozenset(answers))


class _Mortal:
    def __init__(self, target: Any, fate: Fate, effects: frozenset[str], answers: frozenset[str]) -> None:
        self.__dict__.update(_target=target, _fate=fate, _effects=effects, _answers=answers)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._target, name)
        if name not in self._effects:
            return value
        call = self._later if inspect.iscoroutinefunction(value) else self._now
        return functools.partial(call, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._target, name, value)

    def _now(self, name: str, method: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        self._fate.enter(name)
        answer = method(*arguments, **options)
        self._fate.leave(name)
        return self._answer(name, answer)

    async def _later(self, name: str, method: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        self._fate.enter(name)
        answer = await method(*arguments, **options)
        self._fate.leave(name)
        return self._answer(name, answer)

    def _answer(self, name: str, answer: Any) -> Any:
        if name not in self._answers or answer is None:
            return answer
        return mortal(answer, self._fate, RUN_EFFECTS)


RUN_EFFECTS = frozenset(
    {"executed", "exited", "emptied", "signal", "signal_rest", "kill", "close", "adjust", "thaw"}
)
HOST_EFFECTS = frozenset({"open", "open_streams", "launch", "adopt", "clear", "remove_streams"})


def mortal_host(host: Any, fate: Fate) -> Any:
    """A host, fake or real, for a supervisor that may die at each of its effects."""
    return mortal(host, fate, HOST_EFFECTS, answers={"launch", "adopt"})


class MortalDatabase(Database):
    """A database for one who may die before, within and after each transaction, and around each sync."""

    fate: Fate

    def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        def last_work(connection: sqlite3.Connection) -> T:
            result = work(connection)
            self.fate.reach("within a transaction")
            return result

        self.fate.enter("write")
        result = super().write(last_work)
        self.fate.leave("write")
        return result

    def sync(self) -> None:
        self.fate.enter("sync")
        super().sync()
        self.fate.leave("sync")


def mortal_database(fate: Fate) -> type[MortalDatabase]:
    """What makes databases for one life."""
    return type("DatabaseOfOneLife", (MortalDatabase,), {"fate": fate})


async def bury(tasks: Collection[asyncio.Task[Any]]) -> None:
    """End what a dead process still has to do; whatever else than its death comes out of it is raised."""
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, BaseException) and not isinstance(result, Died | asyncio.CancelledError):
            raise result
