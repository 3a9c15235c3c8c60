"""Changing the limits of a live run: raised before lowered, never below what is in use, and all or none."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from blackhole_cg.core.facts import LimitState
from blackhole_cg.core.limits import Limit, Value, held_value, is_lowered, lifted_limits
from blackhole_cg.core.spec import ServiceSpec
from blackhole_cg.core.units import format_size
from blackhole_cg.core.words import Isolation
from blackhole_cg.errors import CgroupError
from blackhole_cg.kernel.adjust import SLICE_BYTES
from blackhole_cg.kernel.cgroup import Cgroup
from blackhole_cg.kernel.limit_writer import BFQ_FILE, LimitWriter

_log = logging.getLogger(__name__)

_IN_USE: Final = {"memory_max": "memory.current", "pids_max": "pids.current"}
_TRIES: Final = 3  # what is in use can grow while it is taken back


@dataclass(frozen=True, slots=True)
class Changed:
    """What came of it: the state of each limit, and why nothing was changed, if it was not."""

    states: Mapping[str, LimitState]
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Held:
    """What a limit was before it was changed."""

    limit: Limit
    value: Value
    texts: tuple[str, ...]  # to write it back


class _RefusedError(Exception):
    """This limit cannot be had, for this reason."""

    def __init__(self, limit: Limit, reason: str) -> None:
        self.limit, self.reason = limit, reason
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class LimitChanger:
    """Changes the limits of one run, whose cgroup this is."""

    writer: LimitWriter
    cgroup: Cgroup

    async def change(self, spec: ServiceSpec, before: Mapping[str, LimitState], force: bool) -> Changed:
        """Bring the limits to those of `spec`, from `before`, or leave them all as they are.

        Args:
            spec: what is wanted.
            before: the states of the run's limits; those that are no cgroup's stay as they are.
            force: go below what is in use, too; below memory.max the kernel kills then.

        Source: kernel Documentation/admin-guide/cgroup-v2.rst, memory.max.
        """
        wanted, bad_devices = self.writer.limits(spec)
        requested = {name: state.requested for name, state in before.items()}
        lifted = tuple(map(self._liftable, lifted_limits(requested, wanted)))
        changed = [limit for limit in wanted if not _is_as_asked(limit, before.get(limit.name))]
        states = {name: state for name, state in before.items() if name not in {each.name for each in lifted}}
        obstacles = {limit.name: self.writer.obstacle(limit, bad_devices) for limit in changed}
        writable = [
            *(limit for limit in lifted if self.writer.obstacle(limit, {}) is None),
            *(limit for limit in changed if obstacles[limit.name] is None),
        ]
        done: list[_Held] = []
        try:
            for limit in changed:
                if reason := obstacles[limit.name]:
                    states[limit.name] = LimitState(limit.requested, reason=reason)
                    if limit.promised and self.writer.isolation is Isolation.REQUIRED:
                        raise _RefusedError(limit, reason)
            for held in self._in_order(writable):
                done.append(held)
                state = await self._write(held, force)
                if held.limit in changed:
                    states[held.limit.name] = state
        except _RefusedError as refusal:
            self._take_back(done)
            return Changed(_unchanged(before, changed, refusal), (_text(spec, refusal),))
        return Changed(states)

    def _liftable(self, limit: Limit) -> Limit:
        """In a form that the kernel takes of a live run: no cgroup with processes may have an empty cpuset.

        Source: kernel/cgroup/cpuset.c, validate_change: ENOSPC.
        """
        if limit.name != "cpuset_cpus":
            return limit
        online = (self.writer.sys / "devices/system/cpu/online").read_text().strip()
        return replace(limit, requested=online, writes=(online,))

    def _in_order(self, limits: Iterable[Limit]) -> Sequence[_Held]:
        """Raised ones first, as what is lowered may need the room; memory.high before memory.max."""
        found = [self._read(limit) for limit in limits]
        return sorted(found, key=lambda held: is_lowered(held.limit, held.value))

    def _read(self, limit: Limit) -> _Held:
        file = limit.file
        if limit.name == "io_weight" and not self.cgroup.has(file):
            file = BFQ_FILE
        try:
            text = self.cgroup.read(file)
            value = held_value(limit, text)
        except (CgroupError, ValueError, IndexError) as cause:
            raise _RefusedError(limit, str(cause)) from cause
        if limit.file == "io.max":
            return _Held(limit, value, tuple(str(value).split(", ")))
        return _Held(limit, value, (str(value) if limit.name == "io_weight" else text.strip() or "\n",))

    async def _write(self, held: _Held, force: bool) -> LimitState:
        limit = held.limit
        try:
            if limit.name in ("memory_high", "memory_max"):
                await self._make_room(limit.requested)
            if not force:
                self._check_in_use(limit)
        except CgroupError as cause:
            raise _RefusedError(limit, str(cause)) from cause
        state = self.writer.enforce(limit, self.cgroup)
        if not state.enforced:
            raise _RefusedError(limit, state.reason or "the kernel did not take it")
        return self.writer.heeded(limit, state)

    def _check_in_use(self, limit: Limit) -> None:
        """Refuse a bound that is exceeded already. Raises CgroupError as well."""
        if limit.name not in _IN_USE or not isinstance(limit.requested, int):
            return
        used = int(self.cgroup.read(_IN_USE[limit.name]))
        if used > limit.requested:
            is_memory = limit.name == "memory_max"
            amounts = (
                (format_size(used), format_size(limit.requested)) if is_memory else (used, limit.requested)
            )
            raise _RefusedError(limit, "{} are in use, more than {}, and it was not forced".format(*amounts))

    async def _make_room(self, wanted: Value) -> None:
        """Take memory back in slices, so that the write of memory.high, which takes it back, is short.

        Source: kernel Documentation/admin-guide/cgroup-v2.rst, memory.reclaim (5.19).
        """
        if not isinstance(wanted, int) or not self.cgroup.has("memory.reclaim"):
            return
        excess = int(self.cgroup.read("memory.current")) - wanted
        for _ in range(_TRIES * -(-excess // SLICE_BYTES) if excess > 0 else 0):
            if int(self.cgroup.read("memory.current")) <= wanted:
                return
            try:
                self.cgroup.write("memory.reclaim", str(SLICE_BYTES))
            except CgroupError as cause:
                if cause.errno in (errno.EAGAIN, errno.EINTR):
                    return  # there is no more to be had
                raise
            await asyncio.sleep(0)

    def _take_back(self, done: Sequence[_Held]) -> None:
        for held in reversed(done):
            former = replace(held.limit, requested=held.value, writes=held.texts)
            state = self.writer.enforce(former, self.cgroup)
            if not state.enforced:
                _log.error("cannot take a change of %s back: %s", former.name, state.reason)


def _is_as_asked(limit: Limit, known: LimitState | None) -> bool:
    """Whether it was asked for before and came into force, or is kept from it by the host as ever."""
    return known is not None and known.requested == limit.requested and not _was_refused(known)


def _was_refused(state: LimitState) -> bool:
    return state.reason is not None and state.reason.startswith(_NOT_CHANGED)


_NOT_CHANGED: Final = "not changed while it runs"


def _unchanged(
    before: Mapping[str, LimitState], changed: Iterable[Limit], refusal: _RefusedError
) -> dict[str, LimitState]:
    """The states when nothing was changed: asked for anew, and in force as before."""
    states = dict(before)
    for limit in changed:
        known = before.get(limit.name)
        reason = refusal.reason if limit is refusal.limit else f"nor was {refusal.limit.name}"
        effective = None if known is None else known.effective
        states[limit.name] = LimitState(limit.requested, effective, reason=f"{_NOT_CHANGED}: {reason}")
    return states


def _text(spec: ServiceSpec, refusal: _RefusedError) -> str:
    wanted = f"{refusal.limit.name} of '{spec.name}' to {refusal.limit.requested}"
    return f"cannot change {wanted} while it runs: {refusal.reason}; none of its limits was changed"
