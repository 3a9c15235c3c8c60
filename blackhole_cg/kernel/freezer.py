"""Who freezes a cgroup, and why: a rule or an operator until further notice, or the throttle for a moment.

The throttle marks the cgroup before it freezes it, so that whoever comes after a crash knows which of the two
it was. Source: kernel Documentation/admin-guide/cgroup-v2.rst, cgroup.freeze (5.2); user extended attributes
of cgroups (5.7).
"""

from __future__ import annotations

from functools import cached_property
from typing import Final

from blackhole_cg.errors import CgroupError
from blackhole_cg.kernel.cgroup import Cgroup, parse_counters

FILE: Final = "cgroup.freeze"
MARK: Final = "user.blackhole_cg.held"


class Freezer:
    """Freezes and thaws one cgroup."""

    def __init__(self, cgroup: Cgroup) -> None:
        self._cgroup = cgroup
        self._is_held = False

    @cached_property
    def obstacle(self) -> str | None:
        """Why the cgroup cannot be held for moments; None when it can. Looks when it is first asked."""
        if not self._cgroup.has(FILE):
            return "there is no cgroup.freeze (Linux 5.2)"
        try:
            self._cgroup.mark(MARK)
            self._cgroup.unmark(MARK)
        except CgroupError as cause:
            return f"a cgroup cannot be marked as frozen for a moment (Linux 5.7): {cause}"
        return None

    def cpu_seconds(self) -> float:
        """Processor time used in the cgroup so far. Raises CgroupError."""
        return parse_counters(self._cgroup.read("cpu.stat"))["usage_usec"] / 1e6

    def hold(self) -> None:
        """Freeze for a moment, unless it is frozen by somebody else. Raises CgroupError."""
        if self._is_held or self._is_frozen():
            return
        self._cgroup.mark(MARK)
        self._is_held = True
        self._cgroup.write(FILE, "1")

    def let_go(self) -> None:
        """End what `hold` did, and nothing else. Raises CgroupError."""
        if self._is_held:
            self._is_held = False
            self._cgroup.write(FILE, "0")
            self._cgroup.unmark(MARK)

    def recover(self) -> None:
        """End what the `hold` of a supervisor that is gone did. Raises CgroupError."""
        self._is_held = self._cgroup.is_marked(MARK)
        self.let_go()

    def freeze(self) -> None:
        """Freeze until `thaw`. Raises CgroupError."""
        self._cgroup.write(FILE, "1")
        if self._is_held:
            self._is_held = False
            self._cgroup.unmark(MARK)

    def thaw(self) -> None:
        """Let it go on, whoever has frozen it. Raises CgroupError."""
        self.let_go()
        if self._is_frozen():
            self._cgroup.write(FILE, "0")

    def _is_frozen(self) -> bool:
        return self._cgroup.read(FILE).strip() == "1"
