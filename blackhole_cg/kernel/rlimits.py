"""rlimits: their names, what this process may ask for, and what another process really has."""

from __future__ import annotations

import resource
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from blackhole_cg.core.words import MAX, Max

NUMBERS: Final[Mapping[str, int]] = {
    name.removeprefix("RLIMIT_").lower(): getattr(resource, name)
    for name in dir(resource)
    if name.startswith("RLIMIT_") and name != "RLIMIT_OFILE"
}

# The names in /proc/PID/limits. Source: fs/proc/base.c, lnames.
_PROC_NAMES: Final = {
    "Max cpu time": "cpu",
    "Max file size": "fsize",
    "Max data size": "data",
    "Max stack size": "stack",
    "Max core file size": "core",
    "Max resident set": "rss",
    "Max processes": "nproc",
    "Max open files": "nofile",
    "Max locked memory": "memlock",
    "Max address space": "as",
    "Max pending signals": "sigpending",
    "Max msgqueue size": "msgqueue",
    "Max nice priority": "nice",
    "Max realtime priority": "rtprio",
    "Max realtime timeout": "rttime",
}


@dataclass(frozen=True, slots=True)
class Rlimit:
    """One rlimit of one service: soft and hard are set alike."""

    name: str  # "nofile"
    requested: int | Max
    value: int  # what setrlimit is given
    problem: str | None = None  # why `requested` cannot be had here

    @property
    def number(self) -> int:
        """RLIMIT_*, as setrlimit takes it."""
        return NUMBERS[self.name]


@dataclass(frozen=True, slots=True)
class RlimitBounds:
    """What this process may hand to a child: its own hard limits, unless it is privileged, and fs.nr_open."""

    hard: Mapping[str, int]
    privileged: bool
    nr_open: int

    @classmethod
    def of_this_process(cls, privileged: bool, proc: Path = Path("/proc")) -> RlimitBounds:
        """Read them. `privileged` is CAP_SYS_RESOURCE in the initial user namespace."""
        hard = {name: resource.getrlimit(number)[1] for name, number in NUMBERS.items()}
        return cls(hard, privileged, int((proc / "sys/fs/nr_open").read_text()))

    def plan(self, requested: Mapping[str, int | Max], clamp: bool) -> tuple[Rlimit, ...]:
        """Each rlimit with the value to set: what was asked for or, with `clamp`, the most there is."""
        return tuple(self._plan_one(name, value, clamp) for name, value in requested.items())

    def _plan_one(self, name: str, requested: int | Max, clamp: bool) -> Rlimit:
        wanted = resource.RLIM_INFINITY if requested == MAX else int(requested)
        most, reason = self._most(name)
        if _at_most(wanted, most):
            return Rlimit(name, requested, wanted)
        return Rlimit(name, requested, most if clamp else wanted, reason)

    def _most(self, name: str) -> tuple[int, str]:
        """Source: setrlimit(2); kernel/sys.c, do_prlimit: fs.nr_open binds even the privileged."""
        hard = self.hard[name]
        if name == "nofile" and (self.privileged or not _at_most(hard, self.nr_open)):
            return self.nr_open, f"fs.nr_open is {self.nr_open} on this host"
        if self.privileged:
            return resource.RLIM_INFINITY, ""
        return hard, f"the hard limit here is {hard} and raising it needs CAP_SYS_RESOURCE"


def parse_proc_limits(text: str) -> dict[str, int | Max]:
    """The soft limits in /proc/PID/limits. Source: fs/proc/base.c: a name takes 26 columns."""
    found: dict[str, int | Max] = {}
    for line in text.splitlines():
        name = _PROC_NAMES.get(line[:26].rstrip())
        if name is not None:
            soft = line[26:].split(None, 1)[0]
            found[name] = MAX if soft == "unlimited" else int(soft)
    return found


def _at_most(value: int, bound: int) -> bool:
    if bound == resource.RLIM_INFINITY:
        return True
    return value != resource.RLIM_INFINITY and value <= bound
