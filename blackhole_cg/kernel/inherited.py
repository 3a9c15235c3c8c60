"""Descriptors that outlive a program: taken over at its start, and laid out for the one that follows.

Both ways it is the protocol of sd_listen_fds(3): they are numbered from 3, LISTEN_FDS says how many they are,
LISTEN_FDNAMES what they are called, and LISTEN_PID whom they are for. systemd hands over so what was stored
with it, and a supervisor that executes another program in its own place does the same.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Final, Self

log = logging.getLogger(__name__)

FIRST_FD: Final = 3
MAX_NAME_LENGTH: Final = 255
UNNAMED: Final = "unknown"
"""What systemd calls a descriptor that was not given a name. Source: sd_listen_fds(3)."""

VARIABLES: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")


class Inheritance:
    """Named descriptors that nobody has claimed yet; whoever knows a name takes the descriptor.

    One name may stand for several descriptors, which are taken in the order in which they came.
    """

    def __init__(self, descriptors: Mapping[str, list[int]] | None = None) -> None:
        self._descriptors = {name: list(held) for name, held in (descriptors or {}).items()}

    @classmethod
    def receive(cls, environ: MutableMapping[str, str], pid: int | None = None) -> Self:
        """Take what was handed over to this process, and forget the variables that say so.

        The descriptors are close-on-exec from here on. Call it once, before anything else is opened or
        executed. A number that is not open, or variables that make no sense, are left out and logged.
        Source: sd_listen_fds(3).
        """
        said = {name: environ.pop(name, "") for name in VARIABLES}
        if said["LISTEN_PID"] != str(os.getpid() if pid is None else pid):
            return cls()
        try:
            count = int(said["LISTEN_FDS"])
        except ValueError:
            log.warning("no descriptors are taken over: LISTEN_FDS is %r", said["LISTEN_FDS"])
            return cls()
        names = said["LISTEN_FDNAMES"].split(":")
        if len(names) != count:
            names = [UNNAMED] * count
        found: dict[str, list[int]] = {}
        for number, name in enumerate(names, FIRST_FD):
            try:
                os.set_inheritable(number, False)
            except OSError as cause:
                log.warning("descriptor %d (%s) is not taken over: %s", number, name, cause)
            else:
                found.setdefault(name, []).append(number)
        return cls(found)

    @property
    def names(self) -> list[str]:
        """What is not claimed yet, in the order in which it came."""
        return list(self._descriptors)

    def take(self, name: str) -> int | None:
        """The first descriptor of this name, for the caller to close; None when there is none."""
        held = self._descriptors.get(name)
        if not held:
            return None
        descriptor = held.pop(0)
        if not held:
            del self._descriptors[name]
        return descriptor

    def close(self) -> None:
        """Close what nobody has claimed."""
        for held in self._descriptors.values():
            for descriptor in held:
                os.close(descriptor)
        self._descriptors.clear()


def is_valid_name(name: str) -> bool:
    """Whether a descriptor can be called so: by printable ASCII without ":".

    Source: sd_pid_notify_with_fds(3), FDNAME.
    """
    return 0 < len(name) <= MAX_NAME_LENGTH and all(" " <= each <= "~" and each != ":" for each in name)


def render_environment(names: list[str], pid: int) -> dict[str, str]:
    """The variables that tell `pid` of descriptors with these names, numbered from 3.

    Raises:
        ValueError: a name is not valid.
    """
    for name in names:
        if not is_valid_name(name):
            raise ValueError(f"no descriptor can be called {name!r}")
    return {"LISTEN_PID": str(pid), "LISTEN_FDS": str(len(names)), "LISTEN_FDNAMES": ":".join(names)}


@contextlib.contextmanager
def laid_out(handed: Mapping[str, int]) -> Iterator[dict[str, str]]:
    """Number these descriptors from 3 and let them outlive an exec; yields the variables to execute with.

    The body is to execute the next program. If that fails, every number is afterwards what it was before.

    Raises:
        OSError: there are not enough descriptors; nothing has changed.
        ValueError: a name is not valid; nothing has changed.
    """
    environment = render_environment(list(handed), os.getpid())
    end = FIRST_FD + len(handed)
    with contextlib.ExitStack() as undo:
        # All copies first, out of the way: the numbers wanted may be those of each other.
        copies = [_copy_above(end, descriptor, undo) for descriptor in handed.values()]
        aside = {number: _set_aside(number, end, undo) for number in range(FIRST_FD, end)}
        for number, copy in zip(aside, copies, strict=True):
            undo.callback(_put_back, number, *aside[number])
            os.dup2(copy, number, inheritable=True)
        yield environment


def lift(descriptor: int, floor: int) -> int:
    """The same with a number from `floor` on, close-on-exec. Raises OSError; the descriptor stays then."""
    if descriptor >= floor:
        return descriptor
    lifted = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, floor)
    os.close(descriptor)
    return lifted


def _copy_above(floor: int, descriptor: int, undo: contextlib.ExitStack) -> int:
    copy = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, floor)
    undo.callback(os.close, copy)
    return copy


def _set_aside(number: int, floor: int, undo: contextlib.ExitStack) -> tuple[int | None, bool]:
    """A copy of what has this number, and whether it was to outlive an exec; None where nothing has it."""
    try:
        inheritable = os.get_inheritable(number)
    except OSError:
        return None, False
    return _copy_above(floor, number, undo), inheritable


def _put_back(number: int, copy: int | None, inheritable: bool) -> None:
    if copy is None:
        os.close(number)
    else:
        os.dup2(copy, number, inheritable=inheritable)
