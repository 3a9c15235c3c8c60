"""What a rule may do to a run's cgroup without ending the run: take memory back, change its weights."""

from __future__ import annotations

import asyncio
import errno
from typing import Final

from blackhole_cg.core.limits import bfq_weight
from blackhole_cg.core.monitor_spec import Action, ActionKind
from blackhole_cg.errors import CgroupError
from blackhole_cg.kernel.cgroup import Cgroup
from blackhole_cg.kernel.limit_writer import BFQ_FILE

SLICE_BYTES: Final = 4 * 2**20
"""A write to memory.reclaim returns when it is done; in slices it leaves the loop its turns."""


async def adjust(cgroup: Cgroup, action: Action) -> None:
    """Carry out an action that leaves the run alive. Raises CgroupError."""
    match action.kind:
        case ActionKind.RECLAIM:
            await _reclaim(cgroup, action.reclaim_bytes or 0)
        case ActionKind.WEIGHT:
            _set_weights(cgroup, action)
        case _:
            raise ValueError(f"not an adjustment: {action.kind}")


async def _reclaim(cgroup: Cgroup, amount_bytes: int) -> None:
    """Source: kernel Documentation/admin-guide/cgroup-v2.rst, memory.reclaim (5.19)."""
    for _ in range(-(-amount_bytes // SLICE_BYTES)):
        try:
            cgroup.write("memory.reclaim", str(SLICE_BYTES))
        except CgroupError as cause:
            if cause.errno == errno.EAGAIN:
                return  # there is no more to be had
            raise
        await asyncio.sleep(0)


def _set_weights(cgroup: Cgroup, action: Action) -> None:
    if action.cpu_weight is not None:
        cgroup.write("cpu.weight", str(action.cpu_weight))
    if action.io_weight is not None:
        if cgroup.has("io.weight") or not cgroup.has(BFQ_FILE):
            cgroup.write("io.weight", f"default {action.io_weight}")
        if cgroup.has(BFQ_FILE):
            cgroup.write(BFQ_FILE, str(bfq_weight(action.io_weight)))
