"""This very process as a parent: what it is and may do, and what it changes about itself to supervise."""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import prctl

from blackhole_cg.core.words import Isolation
from blackhole_cg.kernel.facts import effective_capabilities, in_initial_user_namespace
from blackhole_cg.kernel.identity import Identity
from blackhole_cg.kernel.preexec import capability_number
from blackhole_cg.kernel.procfs import read_kernel_file
from blackhole_cg.kernel.reserved_signals import unignore_reserved_signals
from blackhole_cg.kernel.rlimits import RlimitBounds

PROCESS_NAME: Final = "blackhole-cg"


@dataclass(frozen=True, slots=True)
class Abilities:
    """What this process is and may do."""

    identity: Identity
    bounds: RlimitBounds
    oom_score_adj: int
    last_capability: int
    may_limit_capabilities: bool  # CAP_SETPCAP
    may_lower_oom_score: bool  # CAP_SYS_RESOURCE

    @classmethod
    def of_this_process(cls, base: Path = Path("/")) -> Abilities:
        """Read them from the kernel."""
        mask = effective_capabilities(base)
        privileged = bool(mask >> capability_number("SYS_RESOURCE") & 1) and in_initial_user_namespace(base)
        return cls(
            identity=Identity.of_this_process(),
            bounds=RlimitBounds.of_this_process(privileged, base / "proc"),
            oom_score_adj=int((base / "proc/self/oom_score_adj").read_text()),
            last_capability=int((base / "proc/sys/kernel/cap_last_cap").read_text()),
            may_limit_capabilities=bool(mask >> capability_number("SETPCAP") & 1),
            may_lower_oom_score=privileged,
        )

    def oom_score_obstacle(self, wanted: int) -> str | None:
        """Why a child cannot get this oom_score_adj. Source: proc(5): lowering it needs CAP_SYS_RESOURCE."""
        if wanted >= self.oom_score_adj or self.may_lower_oom_score:
            return None
        return f"it is {self.oom_score_adj} here and lowering it needs CAP_SYS_RESOURCE"

    def oom_score_to_write(self, wanted: int, isolation: Isolation) -> int | None:
        """What a child must write, None for nothing: it is so already, or cannot be had and need not be.

        0 is nobody's wish but the default: where a desktop session has raised ours, a child keeps that.
        """
        if wanted == self.oom_score_adj:
            return None
        dispensable = isolation is Isolation.BEST_EFFORT or wanted == 0
        return None if self.oom_score_obstacle(wanted) and dispensable else wanted


class OwnProcess:
    """The changes that supervising needs, undone by `close`."""

    def __init__(self, subreaper: bool) -> None:
        _occupy_standard_descriptors()
        _close_inherited_on_exec()
        self.null_fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self.nofile_before = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (self.nofile_before[1], self.nofile_before[1]))
        self._name_before = prctl.get_name()
        prctl.set_name(PROCESS_NAME)
        self._subreaper_before = bool(prctl.get_child_subreaper())
        if subreaper:
            prctl.set_child_subreaper(True)
        unignore_reserved_signals(read_kernel_file("/proc/self/status"))
        if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, the kernel would reap before we can ask

    def close(self) -> None:
        """Put back what was."""
        os.close(self.null_fd)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, self.nofile_before)
        prctl.set_name(self._name_before)
        prctl.set_child_subreaper(self._subreaper_before)


def settle_memory() -> None:
    """Take what exists by now, which lives as long as we do, out of the garbage collector's rounds.

    Each round writes to every object it looks at; after a fork each such page has to be copied.
    """
    gc.collect()
    gc.freeze()
    gc.enable()


def caught_signals() -> tuple[int, ...]:
    """The signals whose disposition is not the default: handled here, or ignored.

    From the kernel's masks: asking Python about each signal takes longer than the whole rest of a launch.
    """
    return parse_caught_signals(read_kernel_file("/proc/self/status"))


def parse_caught_signals(status: str) -> tuple[int, ...]:
    """The signals in SigIgn and SigCgt of /proc/PID/status, without those that the C library reserves."""
    bits = 0
    for line in status.splitlines():
        if line.startswith(("SigIgn:", "SigCgt:")):
            bits |= int(line[7:], 16)
    return tuple(number for number in _SETTABLE if bits >> (number - 1) & 1)


def _occupy_standard_descriptors() -> None:
    """So that no descriptor of ours is ever 0, 1 or 2, which a child gets replaced."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


def _close_inherited_on_exec() -> None:
    """Whatever whoever started us left open must not reach the services."""
    for entry in list(Path("/proc/self/fd").iterdir()):
        if int(entry.name) > 2:
            with contextlib.suppress(OSError):  # the directory's own descriptor is closed by now
                os.set_inheritable(int(entry.name), False)


_SETTABLE: Final = sorted(map(int, signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}))
